"""The only reader of rules files: bytes become a RuleSet, or every problem with its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from . import forms, presets
from .checks import Loc, check_rules, duplicate_names
from .matching import RuleSet
from .problems import Problem, RulesError, did_you_mean
from .redact import looks_like_key
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
from .yamlnodes import BOOLEAN_HINT, Document, scan, shown, type_name

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
        raise problem("there is no such file; expected a rules file") from None
    except OSError as fault:
        raise problem(f"the file cannot be read: {fault.strerror}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):  # looked at first: Python gives no file object for a directory
        os.close(handle)
        raise problem("this is not a regular file; expected a rules file")
    with os.fdopen(handle, "rb") as file:
        if mode & stat.S_IWOTH:
            raise problem("other users may write this file, which decides where keys go; expected chmod o-w")
        return file.read(MAX_BYTES + 1)


def parse_rules(text: bytes, file: str, environ: Mapping[str, str]) -> RuleSet:
    """The rules in a text; `file` is its name in problems. Raises RulesError with all of them."""
    document, problems = scan(text, file)
    if document is None:
        raise RulesError(problems)
    if forms.is_desktop(document.data):
        return forms.parse_desktop(document, problems)
    reading = _Reading(document, environ)
    rules_file = reading.read()
    found = _in_file_order([*problems, *reading.problems])
    if found or rules_file is None:
        raise RulesError(found)
    return RuleSet.of(rules_file, file, document)


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    """The problems by place, and of several at one place the first: the others follow from it."""
    places: dict[object, Problem] = {}
    for problem in problems:
        places.setdefault(problem.pos, problem)
    return sorted(
        places.values(), key=lambda problem: (problem.pos.line, problem.pos.column) if problem.pos else (0, 0)
    )


class _Reading:
    """One reading of a document: what was read, and what is wrong with it."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self.problems: list[Problem] = []

    def read(self) -> RulesFile | None:
        """The rules, or None; the problems are complete either way."""
        self._find_secrets((), self._document.data)
        data = dict(self._document.data)
        if isinstance(rules := data.get("rules"), list):
            data["rules"] = [self._prepared(number, rule) for number, rule in enumerate(rules)]
            self._find_duplicate_names(data["rules"])
        try:
            rules_file = RulesFile.model_validate(data)
        except ValidationError as fault:
            errors = fault.errors(include_url=False, include_input=False)
            self._report(data, errors)
            self._check_sound(data, {error["loc"][:2] for error in errors})
            return None
        self._check(dict(enumerate(rules_file.rules)), dict(rules_file.credentials))
        return rules_file

    def _add(self, loc: Loc, text: str, *, at_key: bool = False) -> None:
        pos = self._document.key_pos(loc) if at_key else self._document.pos(loc)
        self.problems.append(Problem(self._document.file, pos, text))

    # ---- before the models: secrets, variables, names, presets ----

    def _find_secrets(self, loc: Loc, value: object) -> None:
        for inner, text in _texts(loc, value):
            if looks_like_key(text):
                self._add(inner, f'{_quoted(inner)} holds a secret; expected its name under "credentials"')

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
            return {**filled, "match": filled.get("match", {"host": "preset.invalid"})}
        left_out = _left_out(presets.load(preset), filled)
        return _merged(self._filled((*loc, "preset"), left_out), filled)

    def _filled(self, loc: Loc, value: object) -> Any:
        """The value with the environment's variables in its texts, keys included."""
        match value:
            case str():
                try:
                    return expanded(value, self._environ, credentials="headers" in loc)
                except VariableError as fault:
                    self._add(loc, f"{_quoted(loc)} {fault}")
                    return value.replace("$", "")
            case dict():
                return {
                    self._filled((*loc, key), key) if isinstance(key, str) else key: self._filled(
                        (*loc, key), item
                    )
                    for key, item in value.items()
                }
            case list():
                return [self._filled((*loc, place), item) for place, item in enumerate(value)]
            case _:
                return value

    # ---- what the models find ----

    def _report(self, data: dict[str, Any], errors: list[ErrorDetails]) -> None:
        unknown = {
            error["loc"][:-1]: str(error["loc"][-1]) for error in errors if error["type"] == "extra_forbidden"
        }
        for error in errors:
            loc = error["loc"]
            if error["type"] == "missing" and did_you_mean(str(loc[-1]), [unknown.get(loc[:-1], "")]):
                continue  # a misspelt required key is one fault, not two
            self._report_one(data, error)

    def _report_one(self, data: dict[str, Any], error: ErrorDetails) -> None:
        loc, kind = error["loc"], error["type"]
        if kind == "extra_forbidden":
            key = str(loc[-1])
            hint = did_you_mean(key, _known_keys(loc[:-1]))
            self._add(loc, f"unknown key {shown(key)}{_where(loc[:-1], data)}{hint}", at_key=True)
        elif kind == "missing":
            needed = _NEEDED.get(str(loc[-1]))
            expected = f"; expected {needed}" if needed else ""
            self._add(loc[:-1], f'{_subject(loc[:-1], data)} has no "{loc[-1]}"{expected}')
        elif loc and loc[-1] == "[key]":
            self._add(loc[:-1], f"{shown(str(loc[-2]))} {_reason(error)}", at_key=True)
        elif kind == "value_error":
            self._add(loc, f"{_subject(loc, data)} {_reason(error)}")
        elif kind in ("literal_error", "enum"):
            self._add(loc, self._not_one_of(loc, data, error))
        else:
            value = _value_at(data, loc)
            self._add(
                loc,
                f"{_quoted(loc)} is {type_name(value)}; expected {_EXPECTED.get(kind, 'another form')}{_hint(value)}",
            )

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


def _texts(loc: Loc, value: object) -> Iterator[tuple[Loc, str]]:
    match value:
        case str():
            yield loc, value
        case dict():
            for key, item in value.items():
                yield from _texts((*loc, key), item)
        case list():
            for place, item in enumerate(value):
                yield from _texts((*loc, place), item)


def _left_out(preset: dict[str, Any], rule: dict[Any, Any]) -> dict[str, Any]:
    """What of a preset the rule does not say itself: the variables of the rest need not be set."""
    return {
        key: _left_out(value, rule[key])
        if isinstance(value, dict) and isinstance(rule.get(key), dict)
        else value
        for key, value in preset.items()
        if key not in rule or (isinstance(value, dict) and isinstance(rule[key], dict))
    }


def _merged(low: Any, high: Any) -> Any:
    """Two values where the second wins and comes first (in `models.map` order decides); mappings are merged
    key by key."""
    if isinstance(low, dict) and isinstance(high, dict):
        return {**{key: _merged(low.get(key), item) for key, item in high.items()}, **{
            key: item for key, item in low.items() if key not in high
        }}  # fmt: skip
    return high


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


def _reason(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("error", "is not valid"))


def _alternatives(names: list[str]) -> str:
    return "one of " + ", ".join(names) if len(names) > 1 else f'"{names[0]}"'


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
