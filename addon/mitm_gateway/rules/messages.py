"""Validation errors as texts in the words of the user's file."""

import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from .edits import Beta, BodyEdits, HeaderEdits, Models, QueryEdits
from .fields import keys_of
from .nodes import BOOLEAN_HINT, shown, type_name
from .problems import Loc, Mistake, did_you_mean
from .right_lines import AUTH, level_of, right_form, slip
from .schema import AUTH_SCHEMES, Auth, Credential, Match, Respond, Rule, RulesFile

_MODELS: dict[str, type[BaseModel]] = {
    "top": RulesFile,
    "credential": Credential,
    "rule": Rule,
    "match": Match,
    "auth": Auth,
    "headers": HeaderEdits,
    "query": QueryEdits,
    "beta": Beta,
    "body": BodyEdits,
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
# A variable as a shell writes it, which YAML reads as text.
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]{0,63})\}?")
_REQUIRED = {
    "match": 'a mapping with "host"',
    "host": 'the host that clients ask for, such as "api.anthropic.com"',
    "scheme": f"one of {', '.join(AUTH_SCHEMES)}",
    "rules": "a list of at least one rule; `mitm-gateway init PRESET` writes an example",
}


def known_keys(loc: Loc) -> tuple[str, ...]:
    """Return the keys that the mapping at a path may have."""
    model = _MODELS.get(level_of(loc))
    return keys_of(model) if model is not None else ()


def mistake_of(error: ErrorDetails, data: dict[str, Any], written: Loc) -> Mistake:
    """Return the finding for a validation error; `written` is its path with the keys as in the file."""
    loc, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        key = str(written[-1])
        where = f" in {_place(loc[:-1], data)}" if loc[:-1] else ""
        text = f"unknown key {shown(key)}{where}{_instead(loc[:-1], key)}"
        return Mistake(loc, text, at_key=True)
    if kind == "missing":
        return Mistake(loc[:-1], _missing(loc, data))
    if loc and loc[-1] == "[key]":
        return Mistake(loc[:-1], f"{quoted(written[:-1])} {_reason(error, loc[:-1], data)}", at_key=True)
    if kind == "value_error":
        return Mistake(loc, f"{_subject(written, data)} {_reason(error, loc, data)}")
    if kind in ("literal_error", "enum"):
        return Mistake(loc, _not_one_of(loc, data, error))
    return Mistake(loc, f"{_entry(written)} is {_other_type(loc, kind, _value_at(data, loc))}")


def _instead(loc: Loc, key: str) -> str:
    """Return the suggestion for an unknown key."""
    if right := slip(loc, key)[1]:
        return f"; expected {right}"
    known = known_keys(loc)
    return (
        did_you_mean(key, known)
        or _misplaced(loc, key)
        or (f"; expected one of {', '.join(known)}" if known else "")
    )


# Keys of a rule that beginners put one level too high, and the level that they leave out.
_SIBLINGS = frozenset({"add", "remove", "keep", "drop", "rename"})
_LEFT_OUT = {"headers": "set", "query": "set", "models": "map", "body": "set"}


def _misplaced(loc: Loc, key: str) -> str:
    """Return the right line for a name that is written directly into `headers` or `models`."""
    match loc:
        case ("rules", int(), str() as part) if (
            part in _LEFT_OUT and key not in _SIBLINGS and shown(key).startswith('"')
        ):
            return f"; expected {part}: {{{_LEFT_OUT[part]}: {{{key}: …}}}}"
        case _:
            return ""


def rule_name(rule: object) -> str:
    """Return a rule as messages call it."""
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {shown(name)}" if isinstance(name, str) else "a rule"


def quoted(loc: Loc) -> str:
    """Return the nearest key of a path in quotes."""
    return shown(next((str(step) for step in reversed(loc) if isinstance(step, str)), "the file"))


def _missing(loc: Loc, data: dict[str, Any]) -> str:
    required = _REQUIRED.get(str(loc[-1]))
    expected = f"; expected {required}" if required else ""
    return f'{_place(loc[:-1], data)} has no "{loc[-1]}"{expected}'


def _not_one_of(loc: Loc, data: dict[str, Any], error: ErrorDetails) -> str:
    names = [name.strip("'") for name in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    value = _value_at(data, loc)
    if not isinstance(value, str):
        return f"{quoted(loc)} is {type_name(value)}; expected {_alternatives(names)}{_choice_hint(value)}"
    hint = did_you_mean(value, names) if loc[-1] == "scheme" else ""
    return f"{quoted(loc)} is not known; expected {_alternatives(names)}{hint}"


def _alternatives(names: list[str]) -> str:
    return "one of " + ", ".join(names) if len(names) > 1 else f'"{names[0]}"'


def _other_type(loc: Loc, kind: str, value: object) -> str:
    match loc:
        case ("credentials", _, "ttl" | "timeout"):
            return f'{type_name(value)}; expected a duration such as "30s"'
        case ("credentials", name) if isinstance(value, str):
            variable = _VARIABLE.fullmatch(value)
            example = name if shown(str(name)).startswith('"') else "NAME"
            return f"text; expected {example}: {{env: {variable[1] if variable else 'VARIABLE'}}}"
        case ("rules", int(), "auth") if isinstance(value, str):
            scheme = value if value in AUTH_SCHEMES else "bearer"
            right = (
                f"auth: {{scheme: {scheme}}}"
                if scheme in ("none", "keep")
                else AUTH.replace("bearer", scheme)
            )
            return f"text; expected {right}"
        case ("rules", int(), "auth", "credential"):
            return f'{type_name(value)}; expected the name of an entry of "credentials"'
        case ("rules", int(), "upstream"):
            return f'{type_name(value)}; expected one URL such as "https://gateway.example.com"'
        case ("version",):
            return f"{type_name(value)}; expected version: 1 (without quotes)"
        case _:
            expected = _EXPECTED.get(kind, "another form")
            form = right_form(loc) if kind in ("dict_type", "model_type", "tuple_type") else ""
            return f"{type_name(value)}; expected {expected}{form or _hint(value, kind)}"


def _choice_hint(value: object) -> str:
    """Return why a choice is not text; in quotes it would be none of the choices either."""
    return " (YAML reads on, off, yes and no as true or false)" if isinstance(value, bool) else ""


def _hint(value: object, kind: str = "") -> str:
    if isinstance(value, bool):
        return f" {BOOLEAN_HINT}"
    if kind == "bool_type":
        return " (without quotes)" if isinstance(value, str) else ""
    return " (put it in quotes)" if isinstance(value, int | float) else ""


def _reason(error: ErrorDetails, loc: Loc, data: dict[str, Any]) -> str:
    """Return a validator's reason, followed by the rule's name unless the subject already names it."""
    reason = str(error.get("ctx", {}).get("error", "is not valid"))
    owner = _owner(loc, data)
    return f"{reason} (in {owner})" if owner else reason


def _entry(loc: Loc) -> str:
    match loc:
        case ("rules", int() as number):
            return f"rule {number + 1}"
        case _:
            return quoted(loc)


def _owner(loc: Loc, data: dict[str, Any]) -> str:
    """Return the rule or credential that contains a part; empty outside of both, and for them."""
    match loc:
        case ("rules", int() as number, _, *_):
            return rule_name(data["rules"][number])
        case ("credentials", name, _, *_):
            return f"credential {shown(str(name))}"
        case _:
            return ""


def _place(loc: Loc, data: dict[str, Any]) -> str:
    """Return a part as messages call it, with the rule or credential that contains it."""
    owner = _owner(loc, data)
    return f"{_subject(loc, data)} of {owner}" if owner else _subject(loc, data)


def _subject(loc: Loc, data: dict[str, Any]) -> str:
    match loc:
        case ():
            return "the file"
        case ("credentials", name):
            return f"credential {shown(str(name))}"
        case ("rules", int() as number):
            return rule_name(data["rules"][number])
        case _:
            return quoted(loc)


def _value_at(data: Any, loc: Loc) -> object:
    for step in loc:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        # A single value in place of a list is reported as its entry 0.
    return data
