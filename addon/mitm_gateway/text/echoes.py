"""Echoes of secrets in another form: percent-encoded, with escapes of JSON or of bytes, in base64, in hexadecimal."""

import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

# A shorter secret is part of too many words.
SHORTEST_PART = 8
# Some servers decode once more than they should.
MAX_DECODINGS = 3
# A character by its number, as in JSON and in dumps of bytes, or one that stands for itself.
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)


def may_contain_encoded(texts: Sequence[str], secrets: Iterable[str]) -> bool:
    """Return whether one of these texts has an escape, or room for a secret in base64; quicker than a closer look."""
    shortest = min([len(secret) for secret in secrets if len(secret) >= SHORTEST_PART], default=None)
    if shortest is None:
        return False
    return max(map(len, texts), default=0) * 3 // 4 >= shortest or _has_escapes("\n".join(texts))


def contains_encoded(text: str, secrets: Iterable[str]) -> bool:
    """Return whether a text contains one of these secrets in another form."""
    plain = "\n".join([each for each in _decoded(text) if each != text]) if _has_escapes(text) else ""
    encoded = f"{text}\n{plain}"
    in_base64, in_hex = encoded.replace("-", "+").replace("_", "/"), encoded.lower()
    for secret in secrets:
        if len(secret) < SHORTEST_PART:
            continue
        value = secret.encode("utf-8", "surrogateescape")
        if secret in plain or value.hex() in in_hex or _is_in_base64(value, in_base64):
            return True
    return False


def _has_escapes(text: str) -> bool:
    return "%" in text or "\\" in text


def _decoded(text: str) -> Iterator[str]:
    yield _ESCAPE.sub(_unescaped, text)
    for _ in range(MAX_DECODINGS):
        yield (text := unquote(text, errors="surrogateescape"))


def _unescaped(found: re.Match[str]) -> str:
    number = found[1] or found[2]
    return chr(int(number, 16)) if number else found[3]


def _is_in_base64(secret: bytes, text: str) -> bool:
    """Look for the characters in base64 that a secret alone determines, for each of its possible offsets."""
    return (
        b2a_base64(secret, newline=False)[:-4].decode() in text
        or b2a_base64(b"\0" + secret, newline=False)[4:-4].decode() in text
        or b2a_base64(b"\0\0" + secret, newline=False)[4:-4].decode() in text
    )
