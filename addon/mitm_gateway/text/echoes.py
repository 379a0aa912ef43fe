"""Echoes of secrets in another form: percent-encoded, with JSON's escapes, in base64."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

# A shorter secret is part of too many words.
SHORTEST_PART = 8
# Some servers decode once more than they should.
MAX_DECODINGS = 3
# An escape of JSON: a character by its number, or one that stands for itself.
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


def may_contain_encoded(texts: Iterable[str], secrets: Iterable[str]) -> bool:
    """Return whether one of these texts has an escape, or room for a secret in base64; quicker than a closer look."""
    shortest = min([len(secret) for secret in secrets if len(secret) >= SHORTEST_PART], default=None)
    return shortest is not None and any(
        len(text) * 3 // 4 >= shortest or "%" in text or "\\" in text for text in texts
    )


def contains_encoded(text: str, secrets: Iterable[str]) -> bool:
    """Return whether a text contains one of these secrets in another form."""
    has_escapes = "%" in text or "\\" in text
    plain = "\n".join([each for each in _decoded(text) if each != text]) if has_escapes else ""
    in_base64 = f"{text}\n{plain}".replace("-", "+").replace("_", "/")
    return any(
        secret in plain or any(core in in_base64 for core in _in_base64(secret))
        for secret in secrets
        if len(secret) >= SHORTEST_PART
    )


def _decoded(text: str) -> Iterator[str]:
    yield _ESCAPE.sub(_unescaped, text)
    for _ in range(MAX_DECODINGS):
        yield (text := unquote(text, errors="surrogateescape"))


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else found[2]


def _in_base64(secret: str) -> Iterator[str]:
    """Yield the characters of a secret in base64 that depend on nothing else, for each place where it may begin."""
    value = secret.encode("utf-8", "surrogateescape")
    for before in range(3):
        encoded = b2a_base64(bytes(before) + value, newline=False).decode()
        yield encoded[4 if before else 0 : -4]
