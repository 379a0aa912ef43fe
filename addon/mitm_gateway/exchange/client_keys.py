"""Keys that a client sends: the slots that can contain them, and the head without those of this gateway."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from urllib.parse import unquote_plus

from ..credentials.value import is_usable
from ..text.echoes import SHORTEST_PART
from ..text.redact import (
    PLACEHOLDERS,
    is_api_key_header,
    is_api_key_parameter,
    is_key_header,
    is_key_parameter,
    parameters,
    subprotocols,
    without_query_keys,
)
from ..wire.request import Fields, RequestHead, as_bytes, as_text, lower_name

PROXY_KEY = "proxy-authorization"
# The slots of Anthropic's and OpenAI's clients, from which a key is moved before any other.
USUAL_SLOTS = ("x-api-key", "authorization")
_COMPARED = (*USUAL_SLOTS, PROXY_KEY)
PROTOCOL = "sec-websocket-protocol"
Names = Callable[[str], bool]


def bare_key(value: str) -> str:
    """Return the key in an auth value without its scheme, of Basic auth the password; empty if there is only a scheme."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return rest.strip()
    if scheme.lower() == "basic":
        return _password(rest)
    return value.strip()


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:  # not base64, or not text
        return ""


def keys_in(head: RequestHead) -> Iterator[str]:
    """Yield the keys in every slot that is masked and stripped: headers, query and WebSocket subprotocols."""
    return chain(
        _header_keys(head, is_key_header),
        protocol_keys(", ".join(head.all(PROTOCOL))),
        _query_keys(head, is_key_parameter),
    )


def every_key_in(head: RequestHead) -> tuple[str, ...]:
    """Return the keys to mask wherever they are echoed; of unusual slots only values that are no ordinary word."""
    usual = [bare_key(value) for name in _COMPARED for value in head.all(name)]
    others = [key for key in keys_in(head) if len(key) >= SHORTEST_PART]
    return tuple(dict.fromkeys([key for key in (*usual, *others) if key]))


def key_to_move(head: RequestHead, prefer: str | None = None) -> str | None:
    """Return the client's own key: from the usual slots first, then from any other for API keys.

    Placeholders are ignored, and so are values that no credential may have, such as a signature.
    """
    slots = USUAL_SLOTS if prefer != USUAL_SLOTS[1] else USUAL_SLOTS[::-1]
    keys = chain(
        (bare_key(value) for name in slots for value in head.all(name)),
        _header_keys(head, is_api_key_header),
        _query_keys(head, is_api_key_parameter),
        protocol_keys(", ".join(head.all(PROTOCOL))),
    )
    return next((key for key in keys if key.lower() not in PLACEHOLDERS and is_usable(key)), None)


def _header_keys(head: RequestHead, is_slot: Names) -> Iterator[str]:
    for name, values in head.values.items():
        if is_slot(name):
            yield from map(bare_key, values)


def _query_keys(head: RequestHead, is_slot: Names) -> Iterator[str]:
    if head.query:
        for pair in parameters(head.target):
            if is_slot(pair):
                yield from dict.fromkeys(_values(pair))


def _values(pair: str) -> tuple[str, str]:
    """Return the value of a parameter decoded and as written."""
    value = pair.partition("=")[2]
    return unquote_plus(value), value


def protocol_keys(value: str) -> Iterator[str]:
    """Yield the keys among the subprotocols in a WebSocket's header."""
    for part, start in subprotocols(value) if value else ():
        if start is not None and (key := part[start:].strip()):
            yield key


def without_protocol_keys(item: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """Return a header field without the keys among its WebSocket subprotocols; None if nothing is left."""
    name, value = item
    if lower_name(name) != PROTOCOL:
        return item
    protocols = list(subprotocols(as_text(value)))
    kept = [part.strip() for part, start in protocols if start is None]
    if len(kept) == len(protocols):
        return item
    return (name, as_bytes(", ".join(kept))) if kept else None


def without_gateway_keys(head: RequestHead, knows: Names) -> RequestHead:
    """Return a head without the keys that `knows` calls the gateway's own, in any slot; all else stays byte for byte."""
    target = head.target
    if head.query:
        target = without_query_keys(
            target, lambda pair: is_key_parameter(pair) and any(map(knows, _values(pair)))
        )
    return replace(head, target=target, fields=_without(head.fields, knows))


def _without(fields: Fields, knows: Names) -> Fields:
    kept = []
    for item in fields:
        name, value = lower_name(item[0]), as_text(item[1])
        if name == PROTOCOL and any(map(knows, protocol_keys(value))):
            kept.append(without_protocol_keys(item))
        elif not (is_key_header(name) and knows(bare_key(value))):
            kept.append(item)
    return tuple(filter(None, kept))
