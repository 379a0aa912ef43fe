"""The way back of a handled flow: let the answer stream, give the client its model name, sum up what happened."""

from __future__ import annotations

import time
from collections.abc import Callable

from mitmproxy import http
from mitmproxy.connection import ConnectionState

from ..exchange import guard
from ..exchange.plan import Plan
from ..exchange.record import Record
from ..exchange.restore_model import JsonRestorer, SseRestorer
from ..exchange.tee import Restorer, Tee
from ..llm.hints import MAX_BODY, Failure, hint
from ..llm.usage import Usage, reader_for
from ..wire.content_encoding import decode_prefix
from .handling import Handling
from .options import Settings

_FRAMING = (b"content-length", b"transfer-encoding")
# An answer longer than this is not unpacked for its usage.
_MAX_UNPACKED = 8 << 20


def note_rejection(response: http.Response, handling: Handling, plan: Plan) -> None:
    """After a 401, has the value dropped, and the client try again where that may bring a fresh one."""
    if response.status_code != 401:
        return
    credentials = handling.loaded.credentials
    fresh = [
        credentials.reject(name, secret)
        for name, secret in handling.secrets.named.items()
        if name == plan.auth.credential
    ]
    if any(fresh):
        response.headers["x-should-retry"] = "true"


def hide_from_pages(response: http.Response, handling: Handling, plan: Plan, settings: Settings) -> None:
    """Takes out what would let a web page read an answer that the gateway's credential has bought."""
    origin = handling.head.get("origin")
    listed = origin is not None and guard.listed_origin(origin, settings.policy)
    fields = response.headers.fields
    kept = tuple([field for field in fields if not field[0].lower().startswith(b"access-control-")])
    if plan.puts_in_credential and not listed and len(kept) < len(fields):
        response.headers.fields = kept


def tee_for(flow: http.HTTPFlow, handling: Handling, settings: Settings, changed: Callable[[], None]) -> Tee:
    """What the answer streams through; `changed` is called for each chunk."""
    response = flow.response
    assert response is not None
    restorer = restorer_for(flow, handling)
    if restorer is not None:
        # The name's length differs, so the answer's length is not known before its end.
        _frame_anew(response, chunked=flow.request.http_version == "HTTP/1.1")
    usage = None if _is_encoded(response) else reader_for(response.headers.get("content-type", ""))
    return Tee(settings.capture, restorer, usage, changed)


def restorer_for(flow: http.HTTPFlow, handling: Handling) -> Restorer | None:
    """What puts the client's model name back, or None where there is nothing to put back."""
    plan, response, model = handling.plan, flow.response, handling.record.model
    if plan is None or response is None or model is None:
        return None
    if not plan.rule.models or not plan.rule.models.restore:
        return None
    if not 200 <= response.status_code < 300 or flow.request.method == "HEAD" or response.status_code == 204:
        return None
    if _is_encoded(response):
        handling.record.notes = ("compressed: model not restored",)
        return None
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SseRestorer(model)
    return JsonRestorer(model) if kind == "application/json" or kind.endswith("+json") else None


def _frame_anew(response: http.Response, *, chunked: bool) -> None:
    fields = tuple([field for field in response.headers.fields if field[0].lower() not in _FRAMING])
    response.headers.fields = (*fields, (b"Transfer-Encoding", b"chunked")) if chunked else fields


def _is_encoded(response: http.Response) -> bool:
    encoding: str = response.headers.get("content-encoding", "identity")
    return encoding.lower() != "identity"


def completed(flow: http.HTTPFlow, handling: Handling) -> Record:
    """The record of a flow that has ended, well or not."""
    tee, response = handling.tee, flow.response
    first = tee.first_chunk_at if tee else None
    record = handling.record
    record.status = response.status_code if response else None
    record.total_s = time.monotonic() - handling.started
    record.first_event_s = first - handling.started if first is not None else None
    record.usage = usage_of(tee, response)
    record.bytes_in = tee.size if tee else None
    record.error = flow.error.msg.rstrip(".") if flow.error else None
    record.is_aborted = is_aborted(flow)
    if tee and tee.is_cut:
        record.notes = (*record.notes, "the rest is not kept")
    if record.failure is None and not record.is_aborted and _lacks_its_end(record.usage):
        record.notes = (*record.notes, "no stop reason came: the stream ended early")
    record.hint = hint_for(handling, response)
    return record


def is_aborted(flow: http.HTTPFlow) -> bool:
    """Whether the client or the user gave the flow up; everything else that ends one early is the upstream's doing."""
    if flow.error is None:
        return False
    if flow.error.msg == flow.error.KILLED_MESSAGE or not flow.client_conn.state & ConnectionState.CAN_READ:
        return True
    # mitmproxy says the same of either side's reset; an upstream has little reason to cancel.
    return flow.request.is_http2 and "reset by client (CANCEL)" in flow.error.msg


def _lacks_its_end(usage: Usage | None) -> bool:
    return usage is not None and usage.is_stream and usage.model is not None and usage.stop_reason is None


def usage_of(tee: Tee | None, response: http.Response | None) -> Usage | None:
    """What the answer told of itself."""
    if tee is None or response is None:
        return None
    if usage := tee.usage():
        return usage
    reader = reader_for(response.headers.get("content-type", ""))
    reader.feed(decode_prefix(tee.kept(), response.headers.get("content-encoding", ""), _MAX_UNPACKED))
    return reader.finish()


def hint_for(handling: Handling, response: http.Response | None) -> str | None:
    """Return the hint for a failed response."""
    plan, tee = handling.plan, handling.tee
    if plan is None or tee is None or response is None:
        return None
    kind = response.headers.get("content-type", "")
    # No API answers with a page, and a login in the way may do so with a good status.
    is_page = handling.head.method == "POST" and kind.lower().startswith("text/html")
    if 200 <= response.status_code < 300 and not is_page:
        return None
    body = decode_prefix(tee.kept()[:MAX_BODY], response.headers.get("content-encoding", ""), MAX_BODY)
    return hint(
        Failure(
            status=response.status_code,
            content_type=kind,
            body=body,
            path=handling.head.path,
            location=response.headers.get("location", ""),
            scheme=plan.auth.scheme,
            credential=plan.auth.credential if plan.auth.credential != "client" else None,
            model=handling.record.model_sent,
        )
    )
