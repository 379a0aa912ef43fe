"""The only reader of rules files: bytes become a RuleSet, or every problem with its position."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..text.redact import looks_like_key
from . import desktop, presets
from .cross_checks import check_rules, duplicate_names
from .document import Document, read_document
from .foreign_marks import with_marks
from .messages import known_keys, mistake_of, quoted, rule_name
from .nodes import MAX_BYTES, shown
from .patterns import Glob
from .problems import Loc, Mistake, Pos, Problem, RulesError, did_you_mean, in_file_order, nearest
from .read_file import FileError, FileMissing, read_regular_file
from .right_lines import slip
from .ruleset import RuleSet
from .schema import Credential, Rule, RulesFile
from .variables import VariableError, expanded, set_variables, values_in, without_values

# Parts of a rule whose values may contain "${credential:NAME}".
_CREDENTIAL_PLACES = (("headers", "set"), ("headers", "add"), ("query", "set"))


def load(path: Path, environ: Mapping[str, str]) -> RuleSet:
    """Return the rules of a file. Raises RulesError with all its problems."""
    try:
        content = read_regular_file(path, MAX_BYTES, lambda status: _check_access(path, status))
    except FileMissing:
        text = "there is no such file; write one with `mitm-gateway init PRESET`"
        raise RulesError([Problem(str(path), None, text)]) from None
    except FileError as fault:
        raise RulesError([Problem(str(path), None, str(fault))]) from None
    return parse_rules(content, str(path), environ)


def _check_access(path: Path, status: os.stat_result) -> None:
    """Raise FileError if another user could change the rules (POSIX)."""
    if os.name != "posix":
        return
    reason = "the file decides where keys are sent"
    if status.st_uid not in (0, os.geteuid()):
        raise FileError(f"the file belongs to another user, and {reason}; expected your own")
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status)):
        raise FileError(f"others may write this file, and {reason}; run chmod go-w on it")
    folder = path.resolve().parent.stat()
    # In a sticky folder such as /tmp nobody else can replace the file.
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        raise FileError(f"others may write the folder of this file, and {reason}; run chmod o-w on it")


def _is_own_group(status: os.stat_result) -> bool:
    """Return whether the file's group is the private one of its owner.

    Many systems create such a group for each user, and let it write the files of a fresh clone.
    """
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}


def parse_rules(text: bytes, file: str, environ: Mapping[str, str]) -> RuleSet:
    """Return the rules of a text; problems call it `file`. Raises RulesError with all of them."""
    document, problems = read_document(text, file)
    if document is None:
        raise RulesError(in_file_order(with_marks(problems, text, is_unreadable=True)))
    if desktop.is_desktop(document.data):
        return desktop.parse_desktop(document, problems)
    reading = _Reading(document, problems, environ)
    rules_file = reading.read()
    found = in_file_order(with_marks(reading.problems, text, is_unreadable=False))
    if found or rules_file is None:
        raise RulesError(found)
    return RuleSet(rules_file.rules, rules_file.credentials, rules_file.unmatched, file, document=document)


class _Reading:
    """One reading of a document: its rules, and everything wrong with it."""

    def __init__(self, document: Document, problems: list[Problem], environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self.problems = list(problems)
        # Positions with a fault before validation: validation errors there are consequences.
        self._settled: frozenset[Pos | None] = frozenset()
        # Keys as written in the file, by the path of those that variables changed.
        self._written_keys: dict[Loc, str] = {}
        # Values of variables in the rules, any of which may be a secret, with their references.
        self._inserted: dict[str, str] = {}
        # The set variables in a value, by its path.
        self._variables: dict[Loc, list[str]] = {}
        # Rules with an unknown preset, which may well contain what the rule leaves out.
        self._unfilled: set[Loc] = set()

    def read(self) -> RulesFile | None:
        """Return the rules, or None; the problems are complete either way."""
        self._find_slips(self._document.data)
        data = dict(self._document.data)
        if isinstance(rules := data.get("rules"), list):
            data["rules"] = [self._prepared(number, rule) for number, rule in enumerate(rules)]
            for finding in duplicate_names(data["rules"], self._document.pos):
                self._add(finding)
        self._settled = frozenset(problem.pos for problem in self.problems)
        marked = _with_null_marked(data)
        try:
            rules_file = RulesFile.model_validate(marked)
        except ValidationError as fault:
            errors = fault.errors(include_url=False, include_input=False)
            self._report(data, errors)
            self._check_sound_parts(marked, {error["loc"][:2] for error in errors})
            return None
        self._check(dict(enumerate(rules_file.rules)), dict(rules_file.credentials))
        return rules_file

    def _add(self, finding: Mistake, *, even_if_settled: bool = False) -> None:
        pos = self._document.pos_of(replace(finding, loc=self._written(finding.loc)))
        if even_if_settled or pos not in self._settled:
            text = without_values(finding.text, self._inserted)
            if names := self._variables.get(finding.loc):
                text += f"; the value is from {' and '.join(names)}"
            self.problems.append(Problem(self._document.file, pos, text))

    def _written(self, loc: Loc) -> Loc:
        """Return a path with its keys as in the file."""
        if not self._written_keys:
            return loc
        return tuple(self._written_keys.get(loc[: end + 1], step) for end, step in enumerate(loc))

    # ---- before validation: secrets, names, variables, presets ----

    def _find_slips(self, value: object) -> None:
        """Find secrets, and quotes that a word processor has replaced."""
        for loc, text, is_key in _texts((), value):
            subject = "a key" if is_key else quoted(loc)
            if looks_like_key(text):
                self._add(
                    Mistake(loc, f"{subject} contains a secret; {_instead_of_secret(loc)}", at_key=is_key)
                )
            elif text[:1] in _TYPOGRAPHIC_QUOTES and text and loc[2:4] != ("body", "set"):
                fault = (
                    'has a typographic quote, which is part of the text for YAML; expected plain quotes (")'
                )
                self._add(Mistake(loc, f"{subject} {fault}", at_key=is_key))

    def _prepared(self, number: int, rule: object) -> object:
        if not isinstance(rule, dict):
            return rule
        loc: Loc = ("rules", number)
        filled = self._filled_mapping(loc, rule)
        filled.setdefault("name", f"rule {number + 1}")
        preset = filled.get("preset")
        if not isinstance(preset, str):
            return filled
        if preset not in presets.names():
            hint = did_you_mean(preset, presets.names()) or "; `mitm-gateway presets` lists them"
            text = f"unknown preset {shown(preset)} in {rule_name(filled)}{hint}"
            self._add(Mistake((*loc, "preset"), text))
            self._unfilled.add(loc)
            return filled
        # Only what the rule leaves out: the preset's other variables need not be set.
        own, self._environ = self._environ, presets.with_variables(preset, self._environ)
        provided = self._filled(loc, _left_out(presets.rule_of(preset), filled, ()))
        self._environ = own
        return _merged(filled, provided)

    def _filled(self, loc: Loc, value: object) -> Any:
        """Return the value with environment variables expanded in all texts, keys included."""
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
                text = f"key {shown(key)} expands to the same text as the key on line {line}"
                # Not `_add`, which takes the path of the expanded key: both keys share it.
                pos = self._document.key_pos((*self._written(loc), key))
                self.problems.append(Problem(self._document.file, pos, text))
                continue
            if name != key:
                self._written_keys[*loc, name] = key
            filled[name] = self._filled((*loc, name), item)
        return filled

    def _expanded(self, loc: Loc, text: str, *, credentials: bool = False, at_key: bool = False) -> str:
        try:
            self._inserted |= values_in(text, self._environ)
            filled = expanded(text, self._environ, credentials=credentials)
        except VariableError as fault:
            named, own = self._document.data.get("credentials"), ""
            if isinstance(named, dict) and fault.variable in named:
                own = f'; the credential is "${{credential:{fault.variable}}}"'
            self._add(Mistake(loc, f"{quoted(self._written(loc))} {fault}{own}", at_key))
            return text.replace("$", "")
        if not at_key and (names := set_variables(text, self._environ)):
            self._variables[loc] = names
        return filled

    # ---- validation ----

    def _report(self, data: dict[str, Any], errors: list[ErrorDetails]) -> None:
        misspelt = {
            (*loc[:-1], _meant(loc) or "")
            for loc in (error["loc"] for error in errors if error["type"] == "extra_forbidden")
        }
        for error in errors:
            is_missing = error["type"] == "missing"
            # A misspelt required key is one fault, not two.
            if is_missing and (error["loc"] in misspelt or error["loc"][:2] in self._unfilled):
                continue
            finding = mistake_of(error, data, self._written(error["loc"]))
            # A missing key has the position of its mapping, which its first key may share.
            self._add(finding, even_if_settled=is_missing)

    # ---- between the parts ----

    def _check_sound_parts(self, data: dict[str, Any], faulty: set[tuple[int | str, ...]]) -> None:
        """Run the checks between those parts that are valid by themselves."""

        def is_sound(part: str, key: int | str) -> bool:
            return (part,) not in faulty and (part, key) not in faulty

        rules, named = data.get("rules"), data.get("credentials")
        numbered = enumerate(rules if isinstance(rules, list) else [])
        sound = {number: Rule.model_validate(rule) for number, rule in numbered if is_sound("rules", number)}
        credentials = {
            name: Credential.model_validate(credential) if is_sound("credentials", name) else None
            for name, credential in (named if isinstance(named, dict) else {}).items()
        }
        self._check(sound, credentials)

    def _check(self, rules: Mapping[int, Rule], credentials: Mapping[str, Credential | None]) -> None:
        for finding in check_rules(rules, credentials, self._document.pos):
            self._add(finding)


_TYPOGRAPHIC_QUOTES = "“”„‟‘’‚‛«»‹›"


def _instead_of_secret(loc: Loc) -> str:
    match loc:
        case ("credentials", str() as name, *_) if shown(name).startswith('"'):
            return f"put it into an environment variable and write {name}: {{env: VARIABLE}}"
        case ("rules", int(), "headers" | "query", *_):
            return 'expected its name under "credentials", and "${credential:NAME}" here'
        case _:
            return 'expected its name under "credentials", as in NAME: {env: VARIABLE}'


# Replaces an empty value, so that validation rejects it even for an optional key.
_NULL = object()


def _meant(loc: Loc) -> str | None:
    """Return the key that an unknown one most likely means."""
    key = str(loc[-1])
    return slip(loc[:-1], key)[0] or nearest(key, known_keys(loc[:-1]))


def _with_null_marked(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data with each empty value marked, except for those that become part of a request body."""

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
    """Yield all texts with their paths, and whether each is a key."""
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


def _left_out(preset: dict[str, Any], rule: dict[str, Any], loc: Loc) -> dict[str, Any]:
    """Return the entries of a preset that a rule leaves out, at every level."""
    left = {}
    for key, item in preset.items():
        own = rule.get(key)
        if isinstance(item, dict) and isinstance(own, dict):
            left[key] = _left_out(item, own, (*loc, key))
        elif not _has_entry(rule, key, loc):
            left[key] = item
    return left


def _has_entry(rule: dict[str, Any], key: str, loc: Loc) -> bool:
    """Return whether a mapping decides on a key of its preset: the case of a header, and a glob of models, count."""
    match loc:
        case ("headers", "set"):
            return key.lower() in map(str.lower, rule)
        case ("models", "map"):
            return key in rule or any(Glob(name).covers(key) for name in rule if "*" in name)
        case _:
            return key in rule


def _merged(high: Any, low: Any) -> Any:
    """Merge two mappings at every level; the first wins."""
    return {
        **{key: _merged(item, low[key]) if key in low else item for key, item in high.items()},
        **{key: item for key, item in low.items() if key not in high},
    }
