"""Masking of recorded text, which may come from a proxy that masked nothing.

The gateway masks heads, since bodies are the user's own. A recording is passed on to others, so here every text is
searched: for the keys that its requests used, for what looks like a key, and for values with a name that denotes a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from ..text.redact import (
    KEY_ENDINGS,
    KEY_NAMES,
    MASK,
    PAGE_TOKEN_ENDINGS,
    is_key_header,
    is_key_parameter,
    masked,
    masked_fields,
    masked_target,
    masked_text,
    normal_name,
)
from ..wire.request import Fields, as_bytes, as_text

# Shorter values are placeholders, and occur inside other words.
_LEAST_KEY = 8
# The number of keys that are searched for in all other requests, and of less certain ones; further keys are masked
# only in the place where they were found.
_MAX_SECRETS = 256
# Longer bodies are conversations; a key in one is masked where it is found.
_MAX_LEARNED = 1 << 16
# Each pattern ends with the value, and begins with a rare character: a search takes linear time, and little of it.
_PAIR = re.compile(r"[?&;]([\w.%\[\]-]{1,64}=)([^\s&;#\"'\\<>]{8,})")
_FIRST_PAIR = re.compile(r"\A([\w.%\[\]-]{1,64}=)([^\s&;#\"'\\<>]{8,})")
# A member of JSON, also of JSON inside a string.
_MEMBER = re.compile(r'"([\w.@ -]{1,64})\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}"((?:[^"\\\n]|\\/){8,}+)')
_FIELD = re.compile(r": ([^\s\"'\\,;*]{8,})")
_FIELD_NAME = re.compile(r"[\w-]{1,64}$")
_BEARER = re.compile(r"earer ([\w.~+/=-]{16,})")
_BASIC = re.compile(r"asic ([\w.~+/=-]{16,})")
# Names that carry other things as often as keys, so the value has to look like one.
_DOUBTFUL = (*(name for name in KEY_NAMES if name != "cookie"), "signature")
_SPELT = ("password", "passwd", "secret")
_COOKIES = ("cookie", "cookie2", "setcookie")
_ANTHROPIC = "sk-ant-"


class Masks:
    """The keys of a recording, and everything else that is masked in it."""

    def __init__(self) -> None:
        self._secrets: dict[str, None] = {}
        self._likely: dict[str, None] = {}

    def learn(
        self, request: Fields, target: str, response: Fields = (), bodies: Iterable[bytes] = ()
    ) -> None:
        """Note the keys of a request and its response, to mask them in all the other requests too."""
        _add(self._secrets, keys_in_head(request, target))
        _add(self._likely, _cookies(request))
        _add(self._likely, _cookies(response))
        texts = [as_text(value) for _, value in (*request, *response)]
        texts += [as_text(body) for body in bodies if len(body) <= _MAX_LEARNED]
        for each in texts:
            _add(self._likely, (found[found.lastindex or 0] for found in _named_values(each)))

    def having(self, fields: Fields, target: str) -> Masks:
        """Return the masks of one request, its cookies included."""
        own = Masks()
        own._secrets = dict.fromkeys(
            [*self._secrets, *self._likely, *keys_in_head(fields, target), *_cookies(fields)]
        )
        return own

    def text(self, value: str) -> str:
        """Return a text without secrets."""
        value = masked_text(value, self._secrets)
        for mark, pattern, hides in _NAMED:
            if mark in value:
                value = pattern.sub(partial(_masked, hides), value)
        return value

    def body(self, data: bytes) -> bytes:
        """Return a body without secrets; it is the same object if it contains none."""
        before = as_text(data)
        after = self.text(before)
        return data if after == before else as_bytes(after)

    def target(self, value: str) -> str:
        """Return a request target without secrets."""
        return self.text(masked_target(value, self._secrets))

    def fields(self, fields: Fields) -> Fields:
        """Return header fields without secrets. An Anthropic key stays recognisable as one."""
        shown = masked_fields(fields, self._secrets)
        return tuple(
            (name, _shown(name, before, as_bytes(self.text(as_text(value)))))
            for (name, value), (_, before) in zip(shown, fields, strict=True)
        )


def _add(known: dict[str, None], secrets: Iterable[str]) -> None:
    for secret in secrets:
        if len(known) < _MAX_SECRETS and _is_key(secret):
            known[secret] = None


def keys_in_head(fields: Fields, target: str) -> Iterable[str]:
    """Yield the keys in a head, without their auth schemes; cookies do not count."""
    for name, value in fields:
        if is_key_header(as_text(name)) and normal_name(as_text(name)) not in _COOKIES:
            yield from filter(_is_key, _values(as_text(value).strip()))
    for pair in re.split("[&;]", target.partition("?")[2]):
        if is_key_parameter(pair) and _is_key(secret := pair.partition("=")[2]):
            yield secret


def _values(value: str) -> list[str]:
    """Return a header's value without its scheme and, for Basic, also the password."""
    scheme, blank, rest = value.partition(" ")
    if not blank:
        return [value]
    if scheme.lower() != "basic":
        return [rest.strip()]
    try:
        pair = base64.b64decode(rest, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return [rest]
    return [rest, pair.partition(":")[2]]


def _cookies(fields: Fields) -> Iterable[str]:
    for name, value in fields:
        if normal_name(as_text(name)) in _COOKIES:
            yield from (part.partition("=")[2].strip() for part in as_text(value).split(";"))


def _is_key(value: str) -> bool:
    return len(value) >= _LEAST_KEY and MASK not in value


def _shown(name: bytes, before: bytes, shown: bytes) -> bytes:
    if name.lower() == b"set-cookie":
        cookie, equals, _ = shown.partition(b"=")
        return cookie + equals + as_bytes(MASK)
    scheme, blank, value = before.rpartition(b" ")
    return scheme + blank + as_bytes(_ANTHROPIC + MASK) if value.startswith(as_bytes(_ANTHROPIC)) else shown


# ---- values whose name says that they are keys ----


def _is_key_pair(found: re.Match[str]) -> bool:
    return is_key_parameter(found[1])


def _is_key_member(found: re.Match[str]) -> bool:
    name, value = normal_name(found[1]), found[2]
    if name.endswith(PAGE_TOKEN_ENDINGS):
        return False
    if name in _DOUBTFUL or name.endswith("signature"):
        return len(value) >= 20 and not re.search(r"\s", value) and any(map(str.isdigit, value))
    if name.endswith(_SPELT):
        return True
    return (name == "cookie" or name.endswith(KEY_ENDINGS)) and not re.search(r"\s", value)


def _is_key_field(found: re.Match[str]) -> bool:
    name = _FIELD_NAME.search(found.string, max(found.start() - 64, 0), found.start())
    return name is not None and is_key_header(name[0])


_Hides: TypeAlias = Callable[[re.Match[str]], bool]
_NAMED: tuple[tuple[str, re.Pattern[str], _Hides], ...] = (
    ('"', _MEMBER, _is_key_member),
    ("=", _PAIR, _is_key_pair),
    ("=", _FIRST_PAIR, _is_key_pair),
    (": ", _FIELD, _is_key_field),
    ("earer ", _BEARER, lambda _: True),
    ("asic ", _BASIC, lambda _: True),
)


def _named_values(value: str) -> Iterable[re.Match[str]]:
    for mark, pattern, hides in _NAMED:
        if mark in value:
            yield from filter(hides, pattern.finditer(value))


def _masked(hides: _Hides, found: re.Match[str]) -> str:
    secret = found[found.lastindex or 0]
    return found[0][: -len(secret)] + masked(secret) if MASK not in secret and hides(found) else found[0]
