"""What may be shown of a secret: nothing, or its last four characters where it is long enough."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

MASK = "****"
# Four characters of twenty leave at least sixteen unknown (contract, section 4).
SHOWN_CHARACTERS = 4
SHOWN_FROM_LENGTH = 20

# Names under which clients send a key, without case, "-" and "_" (contract, section 3).
CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxyauthorization",
        "xapikey",
        "apikey",
        "xgoogapikey",
        "anthropicapikey",
        "ocpapimsubscriptionkey",
        "cookie",
    }
)
# Shown masked as well, though no key of a client's: they hold tokens of other parties.
_MASKED_HEADERS = CREDENTIAL_HEADERS | {
    "setcookie",
    "secwebsocketprotocol",
    "xlitellmapikey",
    "xportkeyapikey",
    "cfaigauthorization",
    "heliconeauth",
    "xamzsecuritytoken",
}
_AUTH_SCHEME = re.compile(r"(?i)(bearer|basic|token|key|negotiate|digest)(\s+)(.*)", re.DOTALL)
# What a browser's WebSocket carries a key in, as it cannot set headers.
_WEBSOCKET_KEY = re.compile(r"(?i)(openai-insecure-api-key\.)([^\s,]+)")
_MASKED = re.compile(rf"(?:\w+\s+)?{re.escape(MASK)}.{{0,{SHOWN_CHARACTERS}}}")
# Prefixes that the well-known issuers give to their keys. "sk-" begins one only where no word ends in it
# (desk-booking-service), so it stands at the start, behind punctuation or behind a percent-encoded character.
_KEY_SHAPES = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))sk-[A-Za-z0-9_-]{8,}"  # OpenAI, OpenRouter, LiteLLM, Kimi
    r"|sk-ant-[A-Za-z0-9_-]{8,}"  # Anthropic
    r"|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # a JSON web token
)
# Without one of these there is no such key, which is told much sooner.
_KEY_MARKS = ("sk-", "gh", "AIza", "AKIA", "eyJ")


class Secret:
    """A credential's value. It shows itself to nobody: `reveal` is for the line that writes the header."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not written anywhere")

    @property
    def masked(self) -> str:
        """The value as it may be shown."""
        return masked(self._value)


def masked(value: str) -> str:
    """`****`, followed by the last four characters of a value of twenty or more."""
    return MASK + (value[-SHOWN_CHARACTERS:] if len(value) >= SHOWN_FROM_LENGTH else "")


def is_masked(value: str) -> bool:
    """Whether a header's value is one that `masked_header` gave."""
    return bool(_MASKED.fullmatch(value))


def normal_name(name: str) -> str:
    """A header name without case, `-` and `_`, as lenient servers compare it."""
    return name.lower().replace("-", "").replace("_", "").strip()


@lru_cache(maxsize=4096)
def is_credential_header(name: str) -> bool:
    """Whether a header of this name is a client's key, in whatever spelling."""
    return normal_name(name) in CREDENTIAL_HEADERS


@lru_cache(maxsize=4096)
def holds_secret(name: str) -> bool:
    """Whether the value of a header of this name is masked wherever it is shown."""
    normal = normal_name(name)
    return normal in _MASKED_HEADERS or normal.endswith(("apikey", "token", "secret", "authorization"))


def masked_header(name: str, value: str) -> str:
    """A header's value as it may be shown: the auth scheme stays, the secret goes."""
    if normal_name(name) == "secwebsocketprotocol":
        return _WEBSOCKET_KEY.sub(lambda found: found[1] + masked(found[2]), value)
    if not holds_secret(name):
        return masked_text(value)
    if scheme := _AUTH_SCHEME.fullmatch(value):
        return scheme[1] + scheme[2] + masked(scheme[3])
    return masked(value)


def masked_text(text: str, secrets: Iterable[str] = ()) -> str:
    """A text in which the given secrets, and whatever has the shape of a key, are masked."""
    text = masked_exactly(text, secrets)
    return _KEY_SHAPES.sub(_masked_match, text) if any(mark in text for mark in _KEY_MARKS) else text


def _masked_match(found: re.Match[str]) -> str:
    return masked(found[0])


def masked_exactly(text: str, secrets: Iterable[str]) -> str:
    """A text in which the given secrets, and nothing else, are masked."""
    present = [secret for secret in secrets if secret and secret in text]
    # The longest first: a secret that begins like another one must not leave the other's tail.
    for secret in sorted(present, key=len, reverse=True):
        text = text.replace(secret, masked(secret))
    return text


def looks_like_key(text: str) -> bool:
    """Whether a text holds something in the shape of a well-known issuer's key."""
    return bool(_KEY_SHAPES.search(text))
