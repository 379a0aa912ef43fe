"""mitmproxy's server replay for requests that a rule takes: they are answered from a recording, without a credential.

mitmproxy compares requests as they were sent, so other rules or keys would make them differ. Here they are compared as
their clients made them, and one without a recorded response is refused instead of forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mitmproxy import http
from mitmproxy.options import Options

from ..exchange.exchange import Exchange
from ..exchange.response_plan import SWITCHING
from ..exchange.steps import AnswerFromRecording
from ..recordings.recorded import MAX_BODY_BYTES, model_in
from ..recordings.replies import Comparison, Miss, Question, Replies
from ..text.printable import counted
from ..wire.content_encoding import DecodingError, decode
from ..wire.refusal import ANY_FAULT, Refusal
from ..wire.request import RequestHead
from .flows import received
from .recorder import facts_of
from .recording_file import RecordingReader
from .replay import original_of

# They are about the connection that the recording was made over; the others about a body that is whole now.
_DROPPED = ("transfer-encoding", "content-length", "connection", "keep-alive", "alt-svc")
_NO_RETRY = 424


@dataclass(slots=True)
class ServerReplay:
    """The recorded responses in force. `incomplete` counts those that are broken or cannot be given again."""

    replies: Replies[http.Response]
    refreshes: bool
    incomplete: int = 0

    @classmethod
    def read(cls, options: Options) -> ServerReplay:
        """Return the responses that the options name. Raises RecordingError."""
        found = cls(Replies(_comparison(options)), options.server_replay_refresh)
        number = 0
        for path in options.server_replay:
            for flow in RecordingReader(Path(path).expanduser()):
                number += 1
                try:
                    found._add(number, flow)
                except ANY_FAULT:  # somebody else may have written the file
                    found.incomplete += 1
        return found

    def describe(self) -> str:
        """Return the line for the log."""
        left_out = f"; {self.incomplete} are incomplete and left out" if self.incomplete else ""
        return f"server_replay: {counted(len(self.replies), 'recorded response')} for the requests of rules{left_out}"

    def _add(self, number: int, flow: http.HTTPFlow) -> None:
        facts = facts_of(flow)
        if flow.response is None or facts.get("is_answered_here"):
            return
        if _is_incomplete(flow, facts):
            self.incomplete += 1
            return
        head, _ = received(flow)
        body = _decoded(flow.request.raw_content or b"", flow.request.headers.get("content-encoding", ""))
        model = original_of(flow).get("model")
        model = model if isinstance(model, str) else _model_in(head, body)
        self.replies.add(number, self._question(head, model, (body,)), flow.response)

    def answer(
        self, exchange: Exchange, step: AnswerFromRecording, content: bytes
    ) -> http.Response | Refusal:
        """Return the recorded response to a request, or the refusal of one that is not in the recording."""
        head = exchange.head
        body = _decoded(content, head.get("content-encoding") or "")
        model = exchange.record.model or _model_in(head, body)
        bodies = (body,) if step.edited is None else (step.edited, body)
        found = self.replies.take(self._question(head, model, bodies))
        if isinstance(found, Miss):
            return Refusal(_NO_RETRY, f"server_replay: {found.reason}")
        response = found.copy()
        for name in _DROPPED:
            response.headers.pop(name, None)
        response.headers["content-length"] = str(len(response.raw_content or b""))
        if self.refreshes:
            response.refresh()
        return response

    def _question(self, head: RequestHead, model: str | None, bodies: tuple[bytes, ...]) -> Question:
        compared = map(str.lower, self.replies.comparison.headers)
        values = {name: head.get(name) for name in compared}
        return Question(head.method, head.host, head.port, head.target, model, bodies, values)


def _comparison(options: Options) -> Comparison:
    return Comparison(
        ignores_host=options.server_replay_ignore_host,
        ignores_port=options.server_replay_ignore_port,
        ignores_content=options.server_replay_ignore_content,
        ignored_params=tuple(options.server_replay_ignore_params),
        headers=tuple(options.server_replay_use_headers),
        reuses=options.server_replay_reuse or options.server_replay_nopop,
    )


def _is_incomplete(flow: http.HTTPFlow, facts: Mapping[str, Any]) -> bool:
    """Return whether the end of a response is missing: it broke off, or it was longer than gateway_capture."""
    assert flow.response is not None
    kept = flow.response.raw_content
    is_cut = kept is None or facts.get("bytes_in", 0) > len(kept)
    return flow.error is not None or is_cut or flow.response.status_code == SWITCHING


def _model_in(head: RequestHead, body: bytes) -> str | None:
    # Decoded already, whatever the head says.
    return model_in(replace(head, fields=()), body)


def _decoded(content: bytes, encoding: str) -> bytes:
    try:
        return decode(content, encoding, MAX_BODY_BYTES)
    except DecodingError:
        return content
