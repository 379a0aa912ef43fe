"""A request's head with its secrets masked, as a flow keeps it, and the way back to the head that is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote_plus

from ..text.echoes import SHORTEST_PART
from ..text.redact import is_key_header, is_key_parameter, masked_fields, masked_target, subprotocols
from ..wire.request import Fields, RequestHead
from .guard import KEY_HEADERS, bare_key, keys_in

_PROTOCOL = "sec-websocket-protocol"


def every_key_in(head: RequestHead) -> tuple[str, ...]:
    """Return the keys that a client sends, wherever; of those that nobody compares, the ones that are no usual word."""
    others = [key for key in _other_keys(head) if len(key) >= SHORTEST_PART]
    return tuple(dict.fromkeys([key for key in (*keys_in(head), *others) if key]))


def _other_keys(head: RequestHead) -> Iterator[str]:
    for name, values in head.values.items():
        if name == _PROTOCOL:
            for part, start in subprotocols(", ".join(values)):
                yield part[start:].strip() if start is not None else ""
        elif name not in KEY_HEADERS and is_key_header(name):
            yield from map(bare_key, values)
    if len(head.target) > len(head.path):
        for pair in head.target[len(head.path) + 1 :].replace(";", "&").split("&"):
            if is_key_parameter(pair):
                value = pair.partition("=")[2]
                yield value
                yield unquote_plus(value)


class MaskedHead:
    """Target and fields of a request without their secrets. `reveal` masks nothing."""

    def __init__(self, target: str, fields: Fields, secrets: Iterable[str], *, reveal: bool = False) -> None:
        self._target = target
        self.target = target if reveal else masked_target(target, secrets)
        self.fields = fields if reveal else masked_fields(fields, secrets)
        pairs = zip(self.fields, fields, strict=True)
        self._hidden = [(shown, real[1]) for shown, real in pairs if shown != real]

    def with_secrets(self, target: str, fields: Fields) -> tuple[str, Fields]:
        """Return a target and fields with the secrets put back; what another addon has edited stays as it is."""
        hidden: dict[tuple[bytes, bytes], list[bytes]] = {}
        for (name, mask), value in self._hidden:
            hidden.setdefault((name.lower(), mask), []).append(value)
        restored = []
        for name, value in fields:
            values = hidden.get((name.lower(), value))
            restored.append((name, values.pop(0) if values else value))
        return self._target if target == self.target else target, tuple(restored)
