"""Flows of mitmproxy as recorded requests, with their secrets masked."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mitmproxy import http

from ..exchange.record import Ending
from ..recordings.masks import Masks
from ..recordings.recorded import MAX_BODY_BYTES, Part, Recorded, SocketMessage
from ..wire.content_encoding import DecodingError, decode_prefix
from ..wire.refusal import ANY_FAULT
from .flows import received
from .recorder import facts_of
from .recording_file import RecordingError, RecordingReader

_ENDINGS: dict[object, Ending] = {
    "client_left": "client_left", "timed_out": "timed_out", "upstream_broke_off": "broke_off",
}  # fmt: skip


class Recording:
    """The requests of a recording, read twice: first for the keys in it, which are then masked everywhere."""

    def __init__(self, path: Path) -> None:
        self._reader = RecordingReader(path)
        self.masks = Masks()

    @property
    def notes(self) -> list[str]:
        """Remarks about the parts that were left out, once the recording has been read."""
        return self._reader.notes

    def __iter__(self) -> Iterator[Recorded]:
        """Yield each request. Raises RecordingError after the requests before the fault."""
        with contextlib.suppress(RecordingError):  # the second reading reports it
            for flow in self._reader:
                request, response = flow.request, flow.response
                bodies = [message.raw_content or b"" for message in (request, response) if message]
                answered = response.headers.fields if response else ()
                self.masks.learn(request.headers.fields, request.path, answered, bodies)
        for number, flow in enumerate(self._reader, 1):
            try:
                found = as_recorded(flow, number, self.masks)
            except ANY_FAULT as fault:
                self._reader.note(
                    f"request {number} has invalid values ({type(fault).__name__}) and is left out"
                )
                continue
            yield found


def as_recorded(flow: http.HTTPFlow, number: int, known: Masks) -> Recorded:
    """Return a flow as a recorded request without secrets."""
    head, arrival = received(flow)
    request, response, error = flow.request, flow.response, flow.error
    began = _time(request.timestamp_start) or 0.0
    masks = known.having(
        (*request.headers.fields, *(response.headers.fields if response else ())), request.path
    )
    return Recorded(
        number,
        replace(head, target=masks.target(head.target), fields=masks.fields(head.fields)),
        _part(request, masks),
        response=_part(response, masks) if response else None,
        status=response.status_code if response else None,
        time=began,
        first_event_s=_between(began, _time(response.timestamp_start)) if response else None,
        total_s=_between(began, _time(response.timestamp_end)) if response else None,
        error=masks.text(error.msg) if error else None,
        ending=_ending(flow),
        facts=_masked_facts(facts_of(flow), masks),
        arrival=replace(arrival, tls=head.scheme == "https", sni=head.host),
        messages=_messages(flow, masks),
        masks=masks,
    )


def _part(message: http.Message, masks: Masks) -> Part:
    fields = message.headers.fields
    encoding = message.headers.get("content-encoding", "")
    content = message.raw_content or b""
    try:
        content = decode_prefix(content, encoding, MAX_BODY_BYTES)
    except DecodingError:
        content = b""
    plain = [field for field in masks.fields(fields) if field[0].lower() != b"content-encoding"]
    return Part(tuple(plain), content, masks)


def _time(stamp: float | None) -> float | None:
    """Return a time as it is. Raises ValueError, OverflowError or OSError for one that no clock shows."""
    if stamp is not None:
        datetime.fromtimestamp(stamp, UTC)
    return stamp


def _between(start: float, end: float | None) -> float | None:
    return None if end is None else max(end - start, 0.0)


def _ending(flow: http.HTTPFlow) -> Ending:
    known = _ENDINGS.get(facts_of(flow).get("outcome"))
    if known or flow.error is None:
        return known or "complete"
    return "client_left" if "client" in flow.error.msg.lower() else "broke_off"


def _masked_facts(value: Any, masks: Masks) -> Any:
    if isinstance(value, str):
        return masks.text(value)
    if isinstance(value, Mapping):
        return {str(key): _masked_facts(item, masks) for key, item in value.items()}
    return [_masked_facts(item, masks) for item in value] if isinstance(value, list | tuple) else value


def _messages(flow: http.HTTPFlow, masks: Masks) -> tuple[SocketMessage, ...]:
    socket = flow.websocket
    if socket is None:
        return ()
    return tuple(SocketMessage(each.from_client, masks.body(each.content)) for each in socket.messages)
