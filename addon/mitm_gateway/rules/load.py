"""The only reader of rules files: bytes become a RuleSet, or every problem with its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..text.redact import looks_like_key
from . import desktop, presets
from .cross_checks import Loc, check_rules, duplicate_names
from .document import BOOLEAN_HINT, Document, scan, shown, type_name
from .problems import Pos, Problem, RulesError, did_you_mean, in_file_order, nearest
from .ruleset import RuleSet
from .schema import (
    AUTH_SCHEMES,
    Auth,
    Beta,
    Body,
    Credential,
    Headers,
    Match,
    Models,
    Respond,
    Rule,
    RulesFile,
)
from .variables import VariableError, expanded

MAX_BYTES = 256 * 1024

_PARTS: dict[str, type[BaseModel]] = {
    "match": Match,
    "auth": Auth,
    "headers": Headers,
    "beta": Beta,
    "body": Body,
    "models": Models,
    "respond": Respond,
}
_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "version_type": "1",
    "header_test_type": "text, a list of texts, true or false",
}
# Where a value may hold "${credential:NAME}", below its rule.
_CREDENTIAL_PLACES = (("headers", "set"), ("headers", "add"))
_NEEDED = {
    "match": 'a mapping with "host"',
    "host": 'the host that clients ask for, such as "api.anthropic.com"',
    "scheme": f"one of {', '.join(AUTH_SCHEMES)}",
    "rules": "a list of at least one rule",
}


def load(path: Path, environ: Mapping[str, str]) -> RuleSet:
    """The rules of a file. Raises RulesError with all its problems."""
    return parse_rules(_read(path), str(path), environ)


def _read(path: Path) -> bytes:
    def problem(text: str) -> RulesError:
        return RulesError([Problem(str(path), None, text)])

    try:
        # Without O_NONBLOCK a pipe in the file's place would hold the whole proxy.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise problem(
            "there is no such file; expected a rules file, as `mitm-gateway init PRESET` writes it"
        ) from None
    except OSError as fault:
        raise problem(f"the file cannot be read: {fault.strerror}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):  # looked at first: Python gives no file object for a directory
        os.close(handle)
        raise problem("this is not a regular file; expected a rules file")
    with os.fdopen(handle, "rb") as file:
        if why := _open_to_others(path, os.fstat(handle)):
            raise problem(f"{why}, and the file decides where keys go")
        return file.read(MAX_BYTES + 1)


def _open_to_others(path: Path, status: os.stat_result) -> str | None:
    """Why somebody else could change the rules (POSIX); None where nobody could."""
    if os.name != "posix":
        return None
    if status.st_uid not in (0, os.geteuid()):
        return "the file belongs to another user; expected your own"
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status)):
        return "others may write this file; expected chmod go-w"
    folder = path.resolve().parent.stat()
    # In a sticky folder such as /tmp nobody can put another file in its place.
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return "others may write its folder; expected chmod o-w there"
    return None


def _is_own_group(status: os.stat_result) -> bool:
    """Whether the file's group is its owner's private one, as many systems make for each user: there, files
    of a fresh clone may be written by the group."""
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}


def parse_rules(text: bytes, file: str, environ: Mapping[str, str]) -> RuleSet:
    """The rules in a text; `file` is its name in problems. Raises RulesError with all of them."""
    document, problems = scan(text, file)
    if document is None:
        raise RulesError(problems)
    if desktop.is_desktop(document.data):
        return desktop.parse_desktop(document, problems)
    reading = _Reading(document, problems, environ)
    rules_file = reading.read()
    found = in_file_order(reading.problems)
    if found or rules_file is None:
        raise RulesError(found)
    return RuleSet.of(rules_file, file, document)


class _Reading:
    """One reading of a document: what was read, and what is wrong with it."""

    def __init__(self, document: Document, problems: list[Problem], environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self.problems = list(problems)
        # Where something is wrong before the models look at it: what they say of that place follows from it.
        self._settled: frozenset[Pos | None] = frozenset()
        # The keys as they stand in the file, by the place of those that variables changed.
        self._written_keys: dict[Loc, str] = {}
        # Rules whose preset is not known: what they leave out may well stand there.
        self._unfilled: set[Loc] = set()

    def read(self) -> RulesFile | None:
        """The rules, or None; the problems are complete either way."""
        self._find_secrets((), self._document.data)
        data = dict(self._document.data)
        if isinstance(rules := data.get("rules"), list):
            data["rules"] = [self._prepared(number, rule) for number, rule in enumerate(rules)]
            self._find_duplicate_names(data["rules"])
        self._settled = frozenset(problem.pos for problem in self.problems)
        strict = _with_null_marked(data)
        try:
            rules_file = RulesFile.model_validate(strict)
        except ValidationError as fault:
            errors = fault.errors(include_url=False, include_input=False)
            self._report(data, errors)
            self._check_sound(strict, {error["loc"][:2] for error in errors})
            return None
        self._check(dict(enumerate(rules_file.rules)), dict(rules_file.credentials))
        return rules_file

    def _add(self, loc: Loc, text: str, *, at_key: bool = False, follows: bool = True) -> None:
        written = self._written(loc)
        pos = self._document.key_pos(written) if at_key else self._document.pos(written)
        if not follows or pos not in self._settled:
            self.problems.append(Problem(self._document.file, pos, text))

    def _written(self, loc: Loc) -> Loc:
        """A place with its keys as they stand in the file."""
        if not self._written_keys:
            return loc
        return tuple(self._written_keys.get(loc[: end + 1], step) for end, step in enumerate(loc))

    # ---- before the models: secrets, variables, names, presets ----

    def _find_secrets(self, loc: Loc, value: object) -> None:
        for inner, text, is_key in _texts(loc, value):
            if looks_like_key(text):
                place = "a key" if is_key else _quoted(inner)
                self._add(
                    inner, f'{place} holds a secret; expected its name under "credentials"', at_key=is_key
                )

    def _find_duplicate_names(self, rules: list[object]) -> None:
        given = {number: rule.get("name") for number, rule in enumerate(rules) if isinstance(rule, dict)}
        names = {number: name for number, name in given.items() if isinstance(name, str)}
        for loc, text in duplicate_names(names, self._document.pos):
            self._add(loc, text)

    def _prepared(self, number: int, rule: object) -> object:
        if not isinstance(rule, dict):
            return rule
        loc: Loc = ("rules", number)
        filled = self._filled(loc, rule)
        assert isinstance(filled, dict)
        filled.setdefault("name", f"rule {number + 1}")
        preset = filled.get("preset")
        if not isinstance(preset, str):
            return filled
        if preset not in presets.names():
            hint = did_you_mean(preset, presets.names())
            self._add((*loc, "preset"), f"unknown preset {shown(preset)} in {_rule_name(filled)}{hint}")
            self._unfilled.add(loc)
            return filled
        # Only what the rule leaves out: the preset's own variables need not be set for the rest.
        return _merged(filled, self._filled(loc, _without(presets.load(preset), filled)))

    def _filled(self, loc: Loc, value: object) -> Any:
        """The value with the environment's variables in its texts, keys included."""
        match value:
            case str():
                return self._expanded(loc, value, credentials=loc[2:4] in _CREDENTIAL_PLACES)
            case dict():
                return self._filled_mapping(loc, value)
            case list():
                return [self._filled((*loc, place), item) for place, item in enumerate(value)]
            case _:
                return value

    def _filled_mapping(self, loc: Loc, mapping: dict[str, object]) -> dict[str, object]:
        filled: dict[str, object] = {}
        for key, item in mapping.items():
            name = self._expanded((*loc, key), key, at_key=True)
            if name in filled:
                line = self._document.key_pos(self._written((*loc, name))).line
                text = f"key {shown(key)} becomes the same as the key on line {line}; expected another one"
                # Not `_add`: the place is that of the key in the file, which may be the other one's new name.
                place = self._document.key_pos((*self._written(loc), key))
                self.problems.append(Problem(self._document.file, place, text))
                continue
            if name != key:
                self._written_keys[*loc, name] = key
            filled[name] = self._filled((*loc, name), item)
        return filled

    def _expanded(self, loc: Loc, text: str, *, credentials: bool = False, at_key: bool = False) -> str:
        try:
            return expanded(text, self._environ, credentials=credentials)
        except VariableError as fault:
            self._add(loc, f"{_quoted(self._written(loc))} {fault}", at_key=at_key)
            return text.replace("$", "")

    # ---- what the models find ----

    def _report(self, data: dict[str, Any], errors: list[ErrorDetails]) -> None:
        misspelt = {
            (*loc[:-1], nearest(str(loc[-1]), _known_keys(loc[:-1])) or "")
            for loc in (error["loc"] for error in errors if error["type"] == "extra_forbidden")
        }
        for error in errors:
            # A misspelt required key is one fault, not two.
            is_known = error["loc"] in misspelt or error["loc"][:2] in self._unfilled
            if error["type"] != "missing" or not is_known:
                self._report_one(data, error)

    def _report_one(self, data: dict[str, Any], error: ErrorDetails) -> None:
        loc, kind = error["loc"], error["type"]
        written = self._written(loc)
        if kind == "extra_forbidden":
            key = str(written[-1])
            hint = did_you_mean(key, _known_keys(loc[:-1]))
            self._add(loc, f"unknown key {shown(key)}{_where(loc[:-1], data)}{hint}", at_key=True)
        elif kind == "missing":
            needed = _NEEDED.get(str(loc[-1]))
            expected = f"; expected {needed}" if needed else ""
            owner = _owner(loc[:-1], data)
            subject = f"{_subject(loc[:-1], data)} of {owner}" if owner else _subject(loc[:-1], data)
            text = f'{subject} has no "{loc[-1]}"{expected}'
            # Its place is where the mapping begins, and so where its first key may be at fault too.
            self._add(loc[:-1], text, follows=False)
        elif loc and loc[-1] == "[key]":
            key = _quoted(self._written(loc[:-1]))
            self._add(loc[:-1], f"{key} {_reason(error, loc[:-1], data)}", at_key=True)
        elif kind == "value_error":
            self._add(loc, f"{_subject(written, data)} {_reason(error, loc, data)}")
        elif kind in ("literal_error", "enum"):
            self._add(loc, self._not_one_of(loc, data, error))
        else:
            self._add(loc, f"{_entry(written)} is {_other_type(loc, kind, _value_at(data, loc))}")

    def _not_one_of(self, loc: Loc, data: dict[str, Any], error: ErrorDetails) -> str:
        names = [name.strip("'") for name in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        value = _value_at(data, loc)
        if not isinstance(value, str):
            return f"{_quoted(loc)} is {type_name(value)}; expected {_alternatives(names)}{_hint(value)}"
        hint = did_you_mean(value, names) if loc[-1] == "scheme" else ""
        return f"{_quoted(loc)} is not known; expected {_alternatives(names)}{hint}"

    # ---- between the parts ----

    def _check_sound(self, data: dict[str, Any], faulty: set[tuple[int | str, ...]]) -> None:
        """The checks between those parts that are sound by themselves."""
        rules = data.get("rules")
        sound: dict[int, Rule] = {}
        for number, rule in enumerate(rules if isinstance(rules, list) else []):
            if ("rules", number) not in faulty and ("rules",) not in faulty:
                sound[number] = Rule.model_validate(rule)
        given = data.get("credentials")
        credentials: dict[str, Credential | None] = {}
        for name, credential in (given if isinstance(given, dict) else {}).items():
            is_sound = ("credentials", name) not in faulty and ("credentials",) not in faulty
            credentials[str(name)] = Credential.model_validate(credential) if is_sound else None
        self._check(sound, credentials)

    def _check(self, rules: Mapping[int, Rule], credentials: Mapping[str, Credential | None]) -> None:
        for loc, text in check_rules(rules, credentials, self._document.pos):
            self._add(loc, text)


# Stands for an empty value, so that a model refuses it even where the key may be left out.
_NULL = object()


def _with_null_marked(data: dict[str, Any]) -> dict[str, Any]:
    """The data with each empty value marked, but for those that go into a request's body."""

    def marked(loc: Loc, value: object) -> object:
        match value:
            case None:
                return _NULL
            case dict() if loc[2:] != ("body", "set"):
                return {key: marked((*loc, key), item) for key, item in value.items()}
            case list():
                return [marked((*loc, place), item) for place, item in enumerate(value)]
            case _:
                return value

    return {key: marked((key,), value) for key, value in data.items()}


def _texts(loc: Loc, value: object) -> Iterator[tuple[Loc, str, bool]]:
    """All texts with their places, and whether each is a key."""
    match value:
        case str():
            yield loc, value, False
        case dict():
            for key, item in value.items():
                yield (*loc, key), key, True
                yield from _texts((*loc, key), item)
        case list():
            for place, item in enumerate(value):
                yield from _texts((*loc, place), item)


def _without(low: Any, high: Any) -> Any:
    """What the first mapping holds and the second does not, key by key."""
    return {
        key: _without(item, high[key]) if key in high else item
        for key, item in low.items()
        if key not in high or (isinstance(item, dict) and isinstance(high[key], dict))
    }


def _merged(high: Any, low: Any) -> Any:
    """Two mappings, key by key; the first comes first and wins."""
    return {
        **{key: _merged(item, low[key]) if key in low else item for key, item in high.items()},
        **{key: item for key, item in low.items() if key not in high},
    }


def _model_at(loc: Loc) -> type[BaseModel] | None:
    match loc:
        case ():
            return RulesFile
        case ("credentials", _):
            return Credential
        case ("rules", int()):
            return Rule
        case ("rules", int(), str() as part):
            return _PARTS.get(part)
        case _:
            return None


def _known_keys(loc: Loc) -> list[str]:
    model = _model_at(loc)
    return list(model.model_fields) if model else []


def _entry(loc: Loc) -> str:
    match loc:
        case ("rules", int() as number):
            return f"rule {number + 1}"
        case _:
            return _quoted(loc)


def _owner(loc: Loc, data: dict[str, Any]) -> str:
    """The rule or credential that a part belongs to; empty elsewhere, and for these themselves."""
    match loc:
        case ("rules", int() as number, _, *_):
            return _rule_name(data["rules"][number])
        case ("credentials", name, _, *_):
            return f"credential {shown(str(name))}"
        case _:
            return ""


def _rule_name(rule: object) -> str:
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {shown(name)}" if isinstance(name, str) else "a rule"


def _where(loc: Loc, data: dict[str, Any]) -> str:
    """Where a key stands, with a leading blank; nothing for the top of the file."""
    match loc:
        case ():
            return ""
        case ("credentials", name):
            return f" in credential {shown(str(name))}"
        case ("rules", int() as number):
            return f" in {_rule_name(data['rules'][number])}"
        case ("rules", int() as number, *_, last):
            return f' in "{last}" of {_rule_name(data["rules"][number])}'
        case _:
            return f' in "{loc[-1]}"'


def _subject(loc: Loc, data: dict[str, Any]) -> str:
    match loc:
        case ():
            return "the file"
        case ("credentials", name):
            return f"credential {shown(str(name))}"
        case ("rules", int() as number):
            return _rule_name(data["rules"][number])
        case _:
            return _quoted(loc)


def _quoted(loc: Loc) -> str:
    """The nearest key's name."""
    return shown(next((str(step) for step in reversed(loc) if isinstance(step, str)), "the file"))


def _reason(error: ErrorDetails, loc: Loc, data: dict[str, Any]) -> str:
    """What a validator says, with the rule's name behind it where the place alone does not tell it."""
    reason = str(error.get("ctx", {}).get("error", "is not valid"))
    owner = _owner(loc, data)
    return f"{reason} (in {owner})" if owner else reason


def _alternatives(names: list[str]) -> str:
    return "one of " + ", ".join(names) if len(names) > 1 else f'"{names[0]}"'


def _other_type(loc: Loc, kind: str, value: object) -> str:
    match loc:
        case ("credentials", _, "ttl" | "timeout"):
            return f'{type_name(value)}; expected a duration such as "30s"'
        case _:
            return f"{type_name(value)}; expected {_EXPECTED.get(kind, 'another form')}{_hint(value)}"


def _hint(value: object) -> str:
    if isinstance(value, bool):
        return f" {BOOLEAN_HINT}"
    return " (put it in quotes)" if isinstance(value, int | float) else ""


def _value_at(data: Any, loc: Loc) -> object:
    for step in loc:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        # A single value that stands for a list of one is counted as its entry 0.
    return data
