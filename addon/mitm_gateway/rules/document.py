"""YAML (or JSON) text in, plain data and the place of every node out; the only user of PyYAML."""

# The nodes are built from the parser's events with a stack of our own: nothing recurses, every limit holds
# while the text is still being read, and each fault is noted without ending the walk where it need not.
# YAML 1.1 decides what a plain scalar is, except that dates stay text.

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..text.redact import looks_like_key
from .problems import Pos, Problem, RulesError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
# What aliases and merges may add, in characters and nodes: as much again as a whole file.
MAX_EXPANSION = MAX_BYTES
_NODE_WEIGHT = 8
# Longer ones cost quadratic time to convert, and nothing in a rules file needs them.
_MAX_NUMBER = 64
_MAX_SHOWN = 64

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers
_TAG = "tag:yaml.org,2002:"
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
BOOLEAN_HINT = "(YAML reads on, off, yes, no as true or false: put it in quotes)"


@dataclass(slots=True)
class Node:
    """A value with its place; a mapping's entries carry the places of their keys."""

    pos: Pos
    data: Any
    entries: dict[str, tuple[Pos, Node]] | None = None
    items: list[Node] | None = None
    height: int = 0
    weight: int = _NODE_WEIGHT


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a file and where each part of it stands."""

    file: str
    root: Node

    @property
    def data(self) -> Any:
        """The content as dict, list, str, int, float, bool and None; parts with an alias are shared."""
        return self.root.data

    def pos(self, loc: Path) -> Pos:
        """The place of the value at a path, or of its nearest ancestor that exists."""
        return self._walk(loc)[1].pos

    def key_pos(self, loc: Path) -> Pos:
        """The place of the key at a path, or of its nearest ancestor's that exists."""
        return self._walk(loc)[0]

    def _walk(self, loc: Path) -> tuple[Pos, Node]:
        key_pos, node = self.root.pos, self.root
        for step in loc:
            if isinstance(step, str) and node.entries is not None and step in node.entries:
                key_pos, node = node.entries[step]
            elif isinstance(step, int) and node.items is not None and step < len(node.items):
                node = node.items[step]
                key_pos = node.pos
            else:
                break
        return key_pos, node


def parse(text: bytes, file: str) -> Document:
    """The document of a file. Raises RulesError with all that is wrong with it as YAML."""
    document, problems = scan(text, file)
    if document is None or problems:
        raise RulesError(problems)
    return document


def scan(text: bytes, file: str) -> tuple[Document | None, list[Problem]]:
    """The document, as far as it can be told, and the problems in file order."""
    try:
        characters = _decoded(text)
        builder = _build(characters)
    except _Stop as fault:
        return None, [Problem(file, fault.pos, fault.text)]
    problems = [Problem(file, pos, text) for pos, text in sorted(builder.faults)]
    if builder.broken or builder.root is None:
        return None, problems
    if not isinstance(builder.root.data, dict):
        # A fault of the top level itself, such as a tag, says enough.
        if not problems:
            problems.append(Problem(file, builder.root.pos, _not_a_mapping(builder.root.data)))
        return None, problems
    return Document(file, builder.root), problems


def type_name(value: object) -> str:
    """What a value is, in the words of a user's file."""
    match value:
        case None:
            return "empty"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def shown(key: str) -> str:
    """A key or name in quotes, or a stand-in where it is long, is no plain text or may be a secret."""
    if len(key) > _MAX_SHOWN or not key.isprintable() or looks_like_key(key):
        return "(not shown)"
    return f'"{key}"'


class _Stop(Exception):
    """A fault behind which nothing can be read."""

    def __init__(self, pos: Pos | None, text: str) -> None:
        super().__init__(text)
        self.pos, self.text = pos, text


def _not_a_mapping(data: object) -> str:
    if data is None:
        return 'the file is empty; expected a mapping with "rules"'
    return f'the file is {type_name(data)}; expected a mapping with "rules"'


def _decoded(text: bytes) -> str:
    if len(text) > MAX_BYTES:
        raise _Stop(None, f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        characters = text.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        before = text[: fault.start].decode("utf-8-sig", "replace")
        raise _Stop(_pos_at(before, len(before)), "the file is not UTF-8") from None
    if found := _NOT_PRINTABLE.search(characters):
        place = _pos_at(characters, found.start())
        raise _Stop(place, f"the file holds a control character (U+{ord(found[0]):04X})")
    return characters


def _pos_at(text: str, index: int) -> Pos:
    line_start = text.rfind("\n", 0, index) + 1
    return Pos(text.count("\n", 0, index) + 1, index - line_start + 1)


def _build(text: str) -> _Builder:
    builder = _Builder()
    try:
        # A JSON text is walked as JSON: tabs, surrogate pairs and numbers such as 1e5 mean what JSON says.
        if text.lstrip(" \t\r\n").startswith("{") and _is_json(text):
            _walk_json(text, builder)
        else:
            _walk_yaml(text, builder)
    except _Stop as fault:
        builder.broken = True
        builder.fault(fault.pos or Pos(1, 1), fault.text)
    return builder


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is still open."""

    node: Node
    anchor: str | None
    key: str | None = None
    key_pos: Pos | None = None
    # What stands where the next value goes: a key, the value of a usable key, or a value that is passed over.
    state: str = "key"
    merges: list[tuple[Pos, Node]] = field(default_factory=list)
    merge_keys: int = 0


_MERGE = "<<"


class _Builder:
    """Takes a document piece by piece and holds its nodes and faults."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.faults: list[tuple[Pos, str]] = []
        self.broken = False
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}  # None while the anchored node is still open
        self._expansion = 0

    def fault(self, pos: Pos, text: str) -> None:
        """Note what is wrong and go on."""
        self.faults.append((pos, text))

    def open(self, pos: Pos, data: dict[str, Any] | list[Any], anchor: str | None = None) -> None:
        """Begin a mapping or a list."""
        if len(self._stack) >= MAX_DEPTH:
            raise _Stop(pos, f"nested deeper than {MAX_DEPTH} levels")
        node = Node(pos, data, {}, None) if isinstance(data, dict) else Node(pos, data, None, [])
        if anchor is not None:
            self._anchors[anchor] = None
        self._stack.append(_Frame(node, anchor))

    def close(self) -> None:
        """End the innermost mapping or list."""
        frame = self._stack.pop()
        node = frame.node
        if frame.merges:
            self._merge(frame)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = node
        self._add(node)

    def scalar(self, pos: Pos, value: Scalar, text: str, anchor: str | None = None, *, merge: bool) -> None:
        """Take one value; `merge` where it is a plain `<<`."""
        if isinstance(value, str) and _SURROGATE.search(value):
            self.fault(pos, "half of a surrogate pair; expected a whole character")
            value = ""
        node = Node(pos, value, weight=_NODE_WEIGHT + len(text))
        if anchor is not None:
            self._anchors[anchor] = node
        frame = self._stack[-1] if self._stack else None
        if frame and frame.node.entries is not None and frame.state == "key":
            self._key(frame, pos, value, text, merge=merge)
        else:
            self._add(node)

    def alias(self, pos: Pos, name: str | None) -> None:
        """Take what an anchor names once more."""
        node = Node(pos, None)
        if name is None or name not in self._anchors:
            self.fault(pos, "an alias without an anchor before it")
        else:
            target = self._anchors[name]
            if target is None:
                self.fault(pos, "an alias stands inside its own anchor")
            else:
                if len(self._stack) + target.height > MAX_DEPTH:
                    raise _Stop(pos, f"nested deeper than {MAX_DEPTH} levels")
                self._spend(pos, target.weight)
                node = target
        frame = self._stack[-1] if self._stack else None
        if frame and frame.node.entries is not None and frame.state == "key":
            data = node.data
            if isinstance(data, dict | list):
                self._add(node)
            else:
                self._key(frame, pos, data, str(data), merge=False)
        else:
            self._add(node)

    def _spend(self, pos: Pos, weight: int) -> None:
        self._expansion += weight
        if self._expansion > MAX_EXPANSION:
            raise _Stop(pos, "aliases or merges expand to more than a rules file may hold")

    def _key(self, frame: _Frame, pos: Pos, value: Scalar, text: str, *, merge: bool) -> None:
        entries = frame.node.entries or {}
        frame.state, frame.key, frame.key_pos = "value", None, pos
        frame.node.weight += _NODE_WEIGHT + len(text)
        if merge:
            frame.state = "merge"
            frame.merge_keys += 1
            if frame.merge_keys > 1:
                self.fault(pos, f'duplicate key "{_MERGE}"; give it a list of mappings')
        elif not isinstance(value, str):
            frame.state = "skip"
            self.fault(pos, _key_fault(value, text))
        elif value in entries:
            frame.state = "skip"
            first = entries[value][0]
            self.fault(pos, f"duplicate key {shown(value)}; first given on line {first.line}")
        else:
            frame.key = value
            # Held from now on, so that the value of a key is no excuse for a second one.
            entries[value] = (pos, Node(pos, None))

    def _add(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        parent = frame.node
        if parent.items is not None:
            parent.items.append(node)
            parent.data.append(node.data)
        elif frame.state == "key":  # a mapping or a list where a key goes
            self.fault(node.pos, f"a key is {type_name(node.data)}; expected text")
            frame.state, frame.key = "skip", None
            return
        else:
            state, frame.state = frame.state, "key"
            if state == "skip":
                return
            if state == "merge":
                self._take_merge(frame, node)
                return
            assert frame.key is not None
            assert frame.key_pos is not None
            assert parent.entries is not None
            parent.entries[frame.key] = (frame.key_pos, node)
            parent.data[frame.key] = node.data
        parent.height = max(parent.height, node.height + 1)
        parent.weight += node.weight

    def _take_merge(self, frame: _Frame, node: Node) -> None:
        sources = node.items if node.items is not None else [node]
        for source in sources:
            if source.entries is None:
                self.fault(source.pos, f'"{_MERGE}" is {type_name(source.data)}; expected a mapping')
            else:
                frame.merges.append((node.pos, source))

    def _merge(self, frame: _Frame) -> None:
        """Add what merged mappings hold and the mapping itself does not; the earlier of two wins."""
        node = frame.node
        assert node.entries is not None
        for pos, source in frame.merges:
            self._spend(pos, source.weight)
            for key, (key_pos, value) in (source.entries or {}).items():
                if key not in node.entries:
                    node.entries[key] = (key_pos, value)
                    node.data[key] = value.data
                    node.weight += value.weight + _NODE_WEIGHT + len(key)
                    node.height = max(node.height, value.height + 1)


def _key_fault(value: Scalar, text: str) -> str:
    match value:
        case None:
            return "a key is empty; expected text"
        case bool():
            return f"key {shown(text)} is a boolean; expected text {BOOLEAN_HINT}"
        case _:
            return f"key {shown(text)} is a number; expected text (put it in quotes)"


def _walk_yaml(text: str, builder: _Builder) -> None:
    documents = 0
    try:
        event: Any
        for event in yaml.parse(text, Loader=_PARSER):
            mark = event.start_mark
            pos = Pos(mark.line + 1, mark.column + 1)
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        builder.fault(pos, "a second document; expected one")
                        return
                case yaml.ScalarEvent():
                    tagged = _refuse_tag(event, pos, builder)
                    plain = event.implicit[0] and not tagged
                    value, merge = _resolved(event.value, pos, builder) if plain else (event.value, False)
                    builder.scalar(pos, value, event.value, event.anchor, merge=merge)
                case yaml.MappingStartEvent():
                    _refuse_tag(event, pos, builder)
                    builder.open(pos, {}, event.anchor)
                case yaml.SequenceStartEvent():
                    _refuse_tag(event, pos, builder)
                    builder.open(pos, [], event.anchor)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    builder.close()
                case yaml.AliasEvent():
                    builder.alias(pos, event.anchor)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        place = Pos(mark.line + 1, mark.column + 1) if mark else Pos(1, 1)
        character = text[mark.index : mark.index + 1] if mark else ""
        raise _Stop(place, _syntax_fault(f"{fault.context} {fault.problem}", character)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The Python parser converts an escape such as "\UFFFFFFFF" without a check.
        raise _Stop(None, "not valid YAML") from None
    if not documents:
        raise _Stop(Pos(1, 1), _not_a_mapping(None))


def _refuse_tag(event: Any, pos: Pos, builder: _Builder) -> bool:
    if event.tag is None:
        return False
    builder.fault(pos, 'a YAML tag; put text that starts with "!" in quotes')
    return True


def _resolved(text: str, pos: Pos, builder: _Builder) -> tuple[Scalar, bool]:
    """What YAML 1.1 takes a plain scalar for, and whether it is the merge key."""
    for tag, regex in _RESOLVERS.get(text[:1], ()):
        if regex.match(text):
            kind = tag.removeprefix(_TAG)
            convert = _CONVERTERS.get(kind)
            if convert is None:
                return text, kind == "merge"
            if kind in ("int", "float") and len(text) > _MAX_NUMBER:
                builder.fault(pos, f"a number of more than {_MAX_NUMBER} characters; put it in quotes")
                return text, False
            try:
                return convert(text), False
            except (ValueError, OverflowError):
                return text, False  # such as 0x_, which the pattern allows and no number is
    return text, False


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if ":" in digits:
        total = 0
        for part in digits.split(":"):
            total = total * 60 + int(part)
        return sign * total
    for prefix, base in (("0b", 2), ("0x", 16)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * (int(digits, 8) if len(digits) > 1 and digits.startswith("0") else int(digits))


def _real(text: str) -> float:
    digits = text.replace("_", "").lower()
    sign = -1.0 if digits.startswith("-") else 1.0
    digits = digits.lstrip("+-")
    if digits in (".inf", ".nan"):
        return sign * float(digits[1:])
    if ":" in digits:
        total = 0.0
        for part in digits.split(":"):
            total = total * 60 + float(part)
        return sign * total
    return sign * float(digits)


_CONVERTERS: dict[str, Callable[[str], Scalar]] = {
    "null": lambda text: None,
    "bool": lambda text: _BOOLEANS[text.lower()],
    "int": _integer,
    "float": _real,
}

# Parts of PyYAML's and libyaml's messages, and what we say instead: theirs may quote the file.
_ESCAPE_FAULT = "an escape that YAML does not know; expected single quotes around a backslash"
_INDENTATION_FAULT = "wrong indentation, or a text that needs quotes"
_NAME_FAULT = 'an anchor or alias without a name; put text that starts with "&" or "*" in quotes'
_SYNTAX_FAULTS = (
    ("mapping values are not allowed", '":" makes a mapping where none can stand; put the text in quotes'),
    ("quoted scalar found unexpected end", "a quoted text is not closed"),
    ("found unexpected document separator", "a quoted text is not closed"),
    ("escape", _ESCAPE_FAULT),
    ("Unicode character code", _ESCAPE_FAULT),
    ("',' or ']'", 'a list is not closed; expected "," or "]"'),
    ("',' or '}'", 'a mapping is not closed; expected "," or "}"'),
    ("tag", 'a YAML tag; put text that starts with "!" in quotes'),
    ("anchor", _NAME_FAULT),
    ("alias", _NAME_FAULT),
    ("expected ':'", 'a key without ":" behind it'),
    ("directive", "a directive that YAML does not know"),
    ("<document start>", "text behind the end of the document"),
    ("did not find expected key", _INDENTATION_FAULT),
    ("<block end>", _INDENTATION_FAULT),
    ("'-' indicator", _INDENTATION_FAULT),
    ("block sequence entries are not allowed", '"- " makes a list where none can stand'),
    ("block scalar", 'expected a line break behind "|" or ">", and an indented text'),
)  # fmt: skip


def _syntax_fault(message: str, character: str) -> str:
    if character == "\t":
        return "a tab cannot indent; expected blanks"
    if "cannot start any token" in message:
        known = f'"{character}"' if character in ("@", "`", "%") else "this character"
        return f"text cannot start with {known}; put it in quotes"
    for part, ours in _SYNTAX_FAULTS:
        if part in message:
            return ours
    return "not valid YAML"


_JSON_TOKEN = re.compile(r'[ \t\r\n]*(?:([{}\[\]])|[,:]|("(?:[^"\\]|\\.)*")|([^\s,:{}\[\]"]+))', re.DOTALL)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _walk_json(text: str, builder: _Builder) -> None:
    """Take a text that is known to be JSON token by token."""
    for pos, token in _json_tokens(text):
        match token[0]:
            case "{":
                builder.open(pos, {})
            case "[":
                builder.open(pos, [])
            case "}" | "]":
                builder.close()
            case '"':
                builder.scalar(pos, json.loads(token), token, merge=False)
            case _ if len(token) > _MAX_NUMBER:
                builder.fault(pos, f"a number of more than {_MAX_NUMBER} characters; put it in quotes")
                builder.scalar(pos, None, token, merge=False)
            case _:
                builder.scalar(pos, json.loads(token), token, merge=False)


def _json_tokens(text: str) -> Iterator[tuple[Pos, str]]:
    line, line_start, seen = 1, 0, 0
    for found in _JSON_TOKEN.finditer(text):
        if token := found[1] or found[2] or found[3]:
            start = found.end() - len(token)
            if breaks := text.count("\n", seen, start):
                line += breaks
                line_start = text.rfind("\n", seen, start) + 1
            seen = start
            yield Pos(line, start - line_start + 1), token
