"""Secrets, and the names and shapes by which secrets in other text are recognised and masked."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from urllib.parse import unquote

from .echoes import MAX_DECODINGS, SHORTEST_PART, contains_encoded, may_contain_encoded
from .short_cache import remember_short

MASK = "****"
# Four characters of twenty leave at least sixteen unknown (contract, section 4).
SHOWN_CHARACTERS = 4
SHOWN_FROM_LENGTH = 20

Fields = tuple[tuple[bytes, bytes], ...]

# --- names of keys ---

# One list for headers and query parameters, for stripping and for masking (contract, section 9). The names are in the
# form of `normal_name`: these, and all that end in one of the endings. An API key, which a rule may move, has one of the
# API_KEY names; the others are of sessions, signatures and servers.
KEY_NAMES = frozenset({"key", "xkey", "cookie", "cookie2", "sig", "dpop"})
API_KEY_NAMES = frozenset({"key", "accesstoken"})
API_KEY_ENDINGS = (
    "apikey", "anthropickey", "bfvk", "gatewaykey", "litellmkey", "llmkey", "openaikey", "subscriptionkey", "virtualkey",
)  # fmt: skip
KEY_ENDINGS = (
    *API_KEY_ENDINGS,
    "accesskey", "accesskeyid", "accountkey", "applicationkey", "appkey", "authkey", "clientkey", "consumerkey",
    "functionskey", "licensekey", "mashapekey", "masterkey", "privatekey", "proxykey", "secretkey", "servicekey",
    "sharedkey", "userkey",
    "auth", "authorization", "authorizationauxiliary", "authentication", "assertion", "oidcdata",
    "token", "jwt", "bearer", "secret", "password", "passwd", "pwd", "passphrase", "credential", "signature",
    "accesscode", "appcode", "protectionbypass", "serviceaccountjson",
)  # fmt: skip
# Parameters with which a client turns the pages of a list.
PAGE_TOKEN_ENDINGS = (
    "pagetoken", "nexttoken", "continuationtoken", "paginationtoken", "cursortoken", "skiptoken", "synctoken",
)  # fmt: skip
_PROTOCOL_HEADER = "secwebsocketprotocol"
# Values that people enter where a client requires a key that nothing needs.
PLACEHOLDERS = frozenset(
    {"", "-", "x", "xxx", "none", "null", "dummy", "placeholder", "no-key", "not-needed"}
)

_NOT_COMPARED = re.compile(r"[^0-9A-Za-z]+")
# Servers that build arrays or C strings from parameters end the name here.
_NAME_END = re.compile(r"[\[\0]")


def normal_name(name: str) -> str:
    """Return the letters and digits of a name in lower case, which is all that lenient servers compare."""
    return _NOT_COMPARED.sub("", name).lower()


def _names_key(name: str) -> bool:
    normal = normal_name(name)
    return normal in KEY_NAMES or normal.endswith(KEY_ENDINGS)


@remember_short
def is_key_header(name: str) -> bool:
    """Return whether a header of this name carries a key, in any spelling."""
    return _names_key(name)


def is_api_key_header(name: str) -> bool:
    """Return whether a header of this name carries the key of an API, in any spelling."""
    return is_key_header(name) and _names_api_key(name)


def _names_api_key(name: str) -> bool:
    normal = normal_name(name)
    return normal in API_KEY_NAMES or normal.endswith(API_KEY_ENDINGS)


def is_key_parameter(pair: str) -> bool:
    """Return whether a `name=value` of a query carries a key, in any spelling."""
    return any(map(_names_key_of_query, _parameter_names(pair)))


def is_api_key_parameter(pair: str) -> bool:
    """Return whether a `name=value` of a query carries the key of an API, in any spelling."""
    return any(map(_names_api_key, _parameter_names(pair)))


def _parameter_names(pair: str) -> tuple[str, ...]:
    """Return the name of a parameter, as strict servers read it and as lenient ones do."""
    name = pair.partition("=")[0]
    for _ in range(MAX_DECODINGS):
        if "%" not in name:
            break
        name = unquote(name)
    start = _NAME_END.split(name, maxsplit=1)[0]
    return (name, start) if len(start) < len(name) else (name,)


def parameters(target: str) -> list[str]:
    """Return the parameters in a request target; some servers take `;` for `&`."""
    return target.partition("?")[2].replace(";", "&").split("&")


def _names_key_of_query(name: str) -> bool:
    return _names_key(name) and not normal_name(name).endswith(PAGE_TOKEN_ENDINGS)


def subprotocols(value: str) -> Iterator[tuple[str, int | None]]:
    """Yield each subprotocol in a WebSocket's header, and where a key begins in it, if any.

    Browsers cannot set other headers on a WebSocket: the key is part of `openai-insecure-api-key.KEY`, or the
    subprotocol behind `token`.
    """
    is_key = False
    for part in value.split(","):
        start = len(part) - len(part.lstrip()) if is_key else _key_start(part)
        is_key = not is_key and start == len(part)
        yield part, start


def _key_start(protocol: str) -> int | None:
    start = 0
    for label in protocol.split("."):
        start += len(label) + 1
        if _names_key(label):
            return min(start, len(protocol))
    return None


def without_query_keys(target: str, drops: Callable[[str], bool] = is_key_parameter) -> str:
    """Return a request target without the parameters that carry a key; the rest stays byte for byte."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    kept = [rest for pair in query.split("&") if (rest := _without_keys(pair, drops)) is not None]
    return path + mark + "&".join(kept) if kept else path


def _without_keys(pair: str, drops: Callable[[str], bool]) -> str | None:
    """Return the rest of a parameter; some servers take `;` for `&`."""
    if drops(pair):
        return None
    if ";" not in pair:
        return pair
    kept = [piece for piece in pair.split(";") if not drops(piece)]
    return ";".join(kept) if kept else None


# --- shapes of keys ---

_AUTH_SCHEME = re.compile(r"(?i)(bearer|basic|token|key|negotiate|digest)(\s++)(.*)", re.DOTALL)
_MASKED = re.compile(
    rf"(?is)(?:(?:bearer|basic|token|key|negotiate|digest)\s++)?{re.escape(MASK)}.{{0,{SHOWN_CHARACTERS}}}"
)
# Prefixes that the well-known issuers give to their keys. "sk-" begins one only where no word ends in it
# (desk-booking-service), so it stands at the start, behind punctuation or behind a percent-encoded character.
# A JSON web token takes the whole word that it ends: from its "eyJ" on alone, each "eyJ" of a long word would be tried.
_KEY_SHAPES = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))sk-[A-Za-z0-9_-]{8,}+"  # OpenAI, OpenRouter, LiteLLM, Kimi
    r"|sk-ant-[A-Za-z0-9_-]{8,}+"  # Anthropic
    r"|gh[oprsu]_[A-Za-z0-9]{16,}+|github_pat_[A-Za-z0-9_]{20,}+"
    r"|AIza[A-Za-z0-9_-]{30,}+|AKIA[A-Z0-9]{16}"
    r"|(?<![A-Za-z0-9_-])(?>[A-Za-z0-9_-]*?eyJ)[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"
)
# A text without any of these contains no such key, and to search for them is much faster.
KEY_MARKS = ("sk-", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "AIza", "AKIA", "eyJ")


def _may_hold_key(text: str) -> bool:
    for mark in KEY_MARKS:  # noqa: SIM110 - `any` takes twice as long
        if mark in text:
            return True
    return False


def looks_like_key(text: str) -> bool:
    """Return whether a text contains something in the shape of a well-known issuer's key."""
    return _may_hold_key(text) and bool(_KEY_SHAPES.search(text))


# --- masking ---


class Secret:
    """A credential's value that no log, dump or message can show; `reveal` is for the line that writes the header."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
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
        raise TypeError("a secret cannot be pickled or copied")


# Fields whose values are words of HTTP, such as "application/json" or "keep-alive".
_HTTP_FIELDS = frozenset(
    b"content-type content-encoding content-length transfer-encoding connection keep-alive cache-control vary "
    b"date server accept-ranges x-should-retry".split()
)
_MASK = MASK.encode()


def masked(value: str) -> str:
    """Return `****`, followed by the last four characters of a value of twenty or more."""
    return MASK + (value[-SHOWN_CHARACTERS:] if len(value) >= SHOWN_FROM_LENGTH else "")


def masked_header(name: str, value: str) -> str:
    """Return a header's value as it may be shown: with its auth scheme, without its secret."""
    return (_mask_of(_encoded(name)) or masked_text)(value)


@remember_short
def _mask_of(name: bytes) -> Callable[[str], str] | None:
    """Return the function that masks the values of a header that carries a key; None for any other."""
    text = _decoded(name)
    if normal_name(text) == _PROTOCOL_HEADER:
        return _masked_protocols
    return _masked_key if is_key_header(text) else None


def _masked_protocols(value: str) -> str:
    return ",".join([_masked_protocol(part, start) for part, start in subprotocols(value)])


def _masked_key(value: str) -> str:
    if _MASKED.fullmatch(value):
        return value
    if scheme := _AUTH_SCHEME.fullmatch(value):
        return scheme[1] + scheme[2] + masked(scheme[3])
    return masked(value)


def _masked_protocol(protocol: str, start: int | None) -> str:
    if start is None:
        return masked_text(protocol)
    key = protocol[start:].rstrip()
    shown = key if not key or _MASKED.fullmatch(key) else masked(key)
    return protocol[:start] + shown + protocol[start + len(key) :]


def masked_fields(fields: Fields, secrets: Iterable[str] = ()) -> Fields:
    """Return header fields as they may be kept and shown.

    Masked are the values of headers that carry a key and, in all others, the given secrets and what looks like a key.
    """
    shown = tuple(
        [
            (item[0], _encoded(mask(_decoded(item[1])))) if (mask := _mask_of(item[0])) else item
            for item in fields
        ]
    )
    rest = _values(shown)
    if present := _present(secrets, rest):
        shown = _without_echoes(shown, present)
        rest = _values(shown)
    if _may_hold_key(rest):
        return tuple((name, _encoded(_shapes_masked(_decoded(value)))) for name, value in shown)
    return shown


def fields_masked_exactly(fields: Fields, secrets: Sequence[str]) -> Fields:
    """Return header fields in which the given secrets, and nothing else, are masked, also in names.

    A value that contains one in another form, such as base64, is masked as a whole.
    """
    if present := _present(secrets, _decoded(b"\n".join(chain.from_iterable(fields)))):
        named = [(_encoded(without_echoes(_decoded(name), present)), value) for name, value in fields]
        fields = _without_echoes(tuple(named), present)
    values = [_decoded(value) for _, value in fields]
    # Most heads contain none, which one search in all values shows.
    if not may_contain_encoded(values, secrets) or not contains_encoded("\n".join(values), secrets):
        return fields
    pairs = zip(fields, values, strict=True)
    return tuple([(item[0], _MASK) if contains_encoded(value, secrets) else item for item, value in pairs])


def _without_echoes(fields: Fields, secrets: Sequence[str]) -> Fields:
    return tuple([(name, _without_echo(name, value, secrets)) for name, value in fields])


def _without_echo(name: bytes, value: bytes, secrets: Sequence[str]) -> bytes:
    text, is_of_http = _decoded(value), name.lower() in _HTTP_FIELDS
    if text in secrets and not is_of_http:
        return _encoded(masked(text))
    return _encoded(masked_exactly(text, [each for each in secrets if _is_masked_within(each, is_of_http)]))


def _is_masked_within(secret: str, is_of_http: bool) -> bool:
    """Return whether a secret is masked as a part of a value: HTTP's own fields contain longer usual words."""
    return len(secret) >= (SHOWN_FROM_LENGTH if is_of_http else SHORTEST_PART)


def _values(fields: Fields) -> str:
    """Return all values as one text, whose search is much faster than that of each value."""
    return _decoded(b"\n".join([value for _, value in fields]))


def _present(secrets: Iterable[str], text: str) -> list[str]:
    return [secret for secret in secrets if secret and secret in text]


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def masked_target(target: str, secrets: Iterable[str] = ()) -> str:
    """Return a request target as it may be shown."""
    path, mark, query = target.partition("?")
    if mark:
        query = "&".join(map(_masked_pair, query.split("&")))
    return masked_text(path + mark + query, secrets)


def _masked_pair(pair: str) -> str:
    if is_key_parameter(pair):
        return _masked_value(pair)
    if ";" not in pair:
        return pair
    return ";".join(_masked_value(piece) if is_key_parameter(piece) else piece for piece in pair.split(";"))


def _masked_value(pair: str) -> str:
    return f"{pair.partition('=')[0]}={MASK}"


def masked_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text in which the given secrets, and everything that looks like a key, are masked."""
    return _shapes_masked(masked_exactly(text, secrets) if secrets else text)


def _shapes_masked(text: str) -> str:
    if not _may_hold_key(text):
        return text
    return _KEY_SHAPES.sub(lambda found: masked(found[0]), text)


def without_echoes(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which the given secrets are masked, apart from those that may be part of any word."""
    return masked_exactly(text, [each for each in secrets if len(each) >= SHORTEST_PART])


def masked_exactly(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which the given secrets, and nothing else, are masked."""
    present = _present(secrets, text)
    # The longest first: a secret that begins like another one must not leave the other's tail.
    for secret in sorted(present, key=len, reverse=True):
        text = text.replace(secret, masked(secret))
    return text
