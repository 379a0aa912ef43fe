"""YAML text to builder events; the only user of PyYAML. Dates stay text, other plain scalars are YAML 1.1."""

from typing import Any

import yaml

from .nodes import MAX_NUMBER, Builder, Scalar, Stop
from .problems import Pos

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_CONVERTED = (*_NUMBERS, f"{_TAG}bool", f"{_TAG}null")
_TAG_FAULT = 'a YAML tag; put text that starts with "!" in quotes'


def walk_yaml(text: str, builder: Builder) -> None:
    """Send the events of a YAML text to the builder. Raises Stop where the text cannot be read any further."""
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    builder.fault(_pos(event.start_mark), "a second document; expected one")
                    return
            _take(event, builder)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        character = text[mark.index : mark.index + 1] if mark else ""
        pos = _pos(mark) if mark else Pos(1, 1)
        text = _syntax_fault(f"{fault.context} {fault.problem}", character)
        raise Stop(pos, text + _beginning(fault)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The Python parser converts an escape such as "\UFFFFFFFF" without a check.
        raise Stop(None, "not valid YAML") from None


def _beginning(fault: yaml.MarkedYAMLError) -> str:
    """Return the line on which an unclosed part begins, if it is another one."""
    begin, end = fault.context_mark, fault.problem_mark
    is_open = "quoted scalar" in str(fault.context) or "flow" in str(fault.context)
    return (
        f" (it begins on line {begin.line + 1})"
        if begin and end and is_open and begin.line != end.line
        else ""
    )


def _pos(mark: Any) -> Pos:
    return Pos(mark.line + 1, mark.column + 1)


def _take(event: Any, builder: Builder) -> None:
    pos = _pos(event.start_mark)
    tag = getattr(event, "tag", None)
    if tag is not None:
        builder.fault(pos, _TAG_FAULT)
    match event:
        case yaml.ScalarEvent():
            is_plain = event.implicit[0] and tag is None
            value, merge = _resolved(event.value, pos, builder) if is_plain else (event.value, False)
            builder.scalar(pos, value, event.value, event.anchor, merge=merge)
        case yaml.MappingStartEvent():
            builder.open(pos, {}, event.anchor)
        case yaml.SequenceStartEvent():
            builder.open(pos, [], event.anchor)
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            builder.close()
        case yaml.AliasEvent():
            builder.alias(pos, event.anchor)


def _resolved(text: str, pos: Pos, builder: Builder) -> tuple[Scalar, bool]:
    """Return the value of a plain scalar in YAML 1.1, and whether it is the merge key."""
    for tag, regex in _RESOLVERS.get(text[:1], ()):
        if regex.match(text):
            return _converted(tag, text, pos, builder), tag == f"{_TAG}merge"
    return text, False


def _converted(tag: str, text: str, pos: Pos, builder: Builder) -> Scalar:
    if tag not in _CONVERTED:
        return text
    if tag in _NUMBERS and len(text) > MAX_NUMBER:
        builder.fault(pos, f"a number of more than {MAX_NUMBER} characters; put it in quotes")
        return text
    try:
        value: Scalar = _CONSTRUCTOR.yaml_constructors[tag](_CONSTRUCTOR, yaml.ScalarNode(tag, text))
    except (ValueError, OverflowError):
        return text  # such as 0x_, which matches the pattern and is not a number
    return value


# Parts of the messages of PyYAML and libyaml, each with our own text: theirs may quote the file.
_ESCAPE_FAULT = "an escape that YAML does not have; put text with a backslash in single quotes"
_INDENTATION_FAULT = (
    "wrong indentation, or text that needs quotes; expected the keys of a mapping in one column"
)
_NAME_FAULT = (
    'an anchor or alias without a name; put text with "&" or "*" at its start or behind a bracket in quotes'
)
_COLON_FAULT = (
    '":" makes a mapping, which is not allowed here; put the text in quotes, or all keys in one column'
)
_SYNTAX_FAULTS = (
    ("mapping values are not allowed", _COLON_FAULT),
    ("quoted scalar found unexpected end", "a quoted text is not closed"),
    ("found unexpected document separator", "a quoted text is not closed"),
    ("escape", _ESCAPE_FAULT),
    ("Unicode character code", _ESCAPE_FAULT),
    ("hexdecimal number", _ESCAPE_FAULT),  # as libyaml spells it
    ("node content", 'a value is missing, or a bracket is not closed; expected a value, "]" or "}"'),
    ("',' or ']'", 'a list is not closed; expected "," or "]"'),
    ("',' or '}'", 'a mapping is not closed; expected "," or "}"'),
    ("tag", _TAG_FAULT),
    ("anchor", _NAME_FAULT),
    ("alias", _NAME_FAULT),
    ("expected ':'", 'a key without ":" after it'),
    ("directive", "a directive that YAML does not have"),
    ("<document start>", "text after the end of the document"),
    ("did not find expected key", _INDENTATION_FAULT),
    ("<block end>", _INDENTATION_FAULT),
    ("'-' indicator", _INDENTATION_FAULT),
    ("block sequence entries are not allowed", '"- " makes a list, which is not allowed here'),
    ("block scalar", 'expected a line break after "|" or ">", and indented text'),
)  # fmt: skip


def _syntax_fault(message: str, character: str) -> str:
    if character == "\t":
        return "a tab cannot indent; expected spaces"
    if "cannot start any token" in message:
        known = f'"{character}"' if character in ("@", "`", "%") else "this character"
        return f"text cannot start with {known}; put it in quotes"
    if "',' or '" in message and character in ("{", "["):
        kind = "mapping" if character == "{" else "list"
        return f'"{character}" begins a {kind} here; put text that contains it in quotes'
    for part, ours in _SYNTAX_FAULTS:
        if part in message:
            return ours
    return "not valid YAML"
