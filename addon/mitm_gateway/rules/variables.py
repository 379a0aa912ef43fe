"""Environment variables in the text of a rule: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar sign."""

import re
from collections.abc import Mapping

from ..text.echoes import SHORTEST_PART

_REFERENCE = re.compile(r"\$(?:\$|\{([^{}]*)(\})?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
_CREDENTIAL = "credential:"


class VariableError(ValueError):
    """A reference that cannot be resolved; the text gives the reason and contains no value."""

    def __init__(self, text: str, variable: str | None = None) -> None:
        super().__init__(text)
        self.variable = variable


def expanded(text: str, environ: Mapping[str, str], *, credentials: bool = False) -> str:
    """Return the text with its variables filled in; `credentials` allows and keeps `${credential:NAME}`.

    As in a shell, the default replaces an unset and an empty variable. Only the text itself can name a
    credential, no value of a variable can. Raises VariableError.
    """
    if "$" not in text:
        return text
    references = 0

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        if found[2] and found[1].startswith(_CREDENTIAL):
            nonlocal references
            references += 1
            return _credential(found[0], found[1], allowed=credentials)
        variable = _VARIABLE.fullmatch(found[1]) if found[2] else None
        if variable is None:
            raise VariableError(
                'contains "${" without a name or an end; expected "${NAME}", or "$$" for a dollar sign'
            )
        return _value(variable[1], variable[2], environ)

    filled = _REFERENCE.sub(value, text)
    if credentials and filled.count("${" + _CREDENTIAL) > references:
        raise VariableError(
            "expands to text that looks like a credential, which only the file itself may name"
        )
    return filled


def set_variables(text: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that insert a value into a text."""
    references = _REFERENCE.finditer(text) if "$" in text else ()
    found = (_VARIABLE.fullmatch(reference[1]) for reference in references if reference[2])
    return [name for name in dict.fromkeys(each[1] for each in found if each) if environ.get(name)]


def values_in(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values that variables insert into a text, each with its reference."""
    names = [found[1] for found in _NAME.finditer(text)] if "$" in text else []
    return {value: f"${{{name}}}" for name in names if len(value := environ.get(name, "")) >= SHORTEST_PART}


def without_values(text: str, references: Mapping[str, str]) -> str:
    """Return a text with the references in place of their values, which may be secrets."""
    for value in sorted(references, key=len, reverse=True):
        text = text.replace(value, references[value])
    return text


def _value(name: str, default: str | None, environ: Mapping[str, str]) -> str:
    if default is not None:
        return environ.get(name) or default.replace("$$", "$")
    if name not in environ:
        raise VariableError(
            f'needs the environment variable "{name}", which is not set; '
            f'set it, or write a default as in "${{{name}:-text}}"',
            name,
        )
    return environ[name]


def _credential(reference: str, content: str, *, allowed: bool) -> str:
    if not allowed:
        raise VariableError("names a credential, which only the values of headers and of the query may do")
    if content == _CREDENTIAL:
        raise VariableError('names no credential; expected "${credential:NAME}"')
    return reference
