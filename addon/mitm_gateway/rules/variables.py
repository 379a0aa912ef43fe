"""Environment variables in the text of a rule: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{([^{}]*)(\})?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_CREDENTIAL = "credential:"


class VariableError(ValueError):
    """A reference that cannot be resolved; the text says why and holds no value."""


def expanded(text: str, environ: Mapping[str, str], *, credentials: bool = False) -> str:
    """The text with its variables filled in; `credentials` where `${credential:NAME}` may stand and stays.

    As in a shell, the default takes the place of an unset and of an empty variable. Raises VariableError.
    """
    if "$" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        if found[2] and found[1].startswith(_CREDENTIAL):
            return _credential(found[0], found[1], allowed=credentials)
        variable = _VARIABLE.fullmatch(found[1]) if found[2] else None
        if variable is None:
            raise VariableError(
                'holds "${" without a name or an end; expected "${NAME}", or "$$" for a dollar'
            )
        name, default = variable.groups()
        if default is not None:
            return environ.get(name) or default.replace("$$", "$")
        if name not in environ:
            raise VariableError(
                f'needs the environment variable "{name}", which is not set; '
                f'expected it, or a default as in "${{{name}:-text}}"'
            )
        return environ[name]

    return _REFERENCE.sub(value, text)


def _credential(reference: str, content: str, *, allowed: bool) -> str:
    if not allowed:
        raise VariableError("names a credential; expected that only as a value of headers")
    if content == _CREDENTIAL:
        raise VariableError('names no credential; expected "${credential:NAME}"')
    return reference
