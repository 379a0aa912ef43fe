"""The way back: the response's header changes, the tee that its body streams through, and its summary at the end."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from ..credentials.rejection import is_token_rejected
from ..llm.apis import Api
from ..llm.body_kind import media_type
from ..llm.calls import call_of
from ..llm.hints import MAX_ERROR_BYTES, Failure, hint
from ..llm.usage import Usage, reader_for, usage_in
from ..text.redact import Secret, fields_masked_exactly
from ..wire.content_encoding import DecodingError, decode_prefix
from ..wire.request import Fields, RequestHead, as_text
from .config import Config
from .headers import Secrets
from .json_scanner import Rename
from .plan import Plan
from .record import Record
from .restore_model import AutoRestorer, always, by_name
from .tee import Restorer, Tee
from .web_pages import fields_for_pages
from .websocket import is_websocket

SWITCHING = 101
ERROR_TYPE = b"x-amzn-errortype"
_FRAMING = (b"content-length", b"transfer-encoding")
# A longer response is not decoded for its token counts.
_MAX_UNPACKED = 8 << 20


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status, fields and reason phrase of an upstream's response."""

    status: int
    fields: Fields = field(repr=False)
    reason: bytes = field(default=b"", repr=False)

    def get(self, name: bytes, default: str = "") -> str:
        """Return the first value of a field; the name in lower case."""
        for key, value in self.fields:
            if key.lower() == name:
                return as_text(value)
        return default

    @property
    def is_encoded(self) -> bool:
        """The body is compressed."""
        return self.get(b"content-encoding", "identity").lower() != "identity"


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """The fields that the client gets, the tee that the body streams through, and a credential that was rejected.

    With `is_reframed` the length of the body is not known before its end.
    """

    fields: Fields = field(repr=False)
    reason: bytes
    tee: Tee | None = None
    is_reframed: bool = False
    rejected: tuple[str, Secret] | None = None


def plan_response(
    plan: Plan,
    request: RequestHead,
    secrets: Secrets,
    record: Record,
    head: ResponseHead,
    config: Config,
    hidden: Sequence[str],
) -> ResponsePlan:
    """Plan the way back of one response; `hidden` are secrets that the upstream might echo in its head."""
    is_rejected = head.status == 401 or (head.status == 403 and is_token_rejected(head.get(ERROR_TYPE), b""))
    rejected = _own_credential(plan, secrets) if is_rejected else None
    restorer = _restorer_for(plan, request, record, head)
    # Alt-Svc would lead the client to another port of the upstream, past the gateway.
    left_out = (b"alt-svc",) if restorer is None else (b"alt-svc", *_FRAMING)
    kept = tuple([item for item in head.fields if item[0].lower() not in left_out])
    echoing = (b"", head.reason), *fields_for_pages(kept, plan, request, config.policy)
    (_, reason), *fields = fields_masked_exactly(echoing, hidden)
    if head.status == SWITCHING:
        return ResponsePlan(tuple(fields), reason, rejected=rejected)
    usage = None if head.is_encoded else reader_for(head.get(b"content-type"))
    tee = Tee(config.capture, restorer, usage)
    return ResponsePlan(tuple(fields), reason, tee, restorer is not None, rejected)


def _restorer_for(plan: Plan, request: RequestHead, record: Record, head: ResponseHead) -> Restorer | None:
    """Return the restorer of the client's model names; None if the rule changed none, or the body has none."""
    api = call_of(request).api
    rename = _rename_for(plan, record, api)
    if rename is None or not 200 <= head.status < 300 or head.status == 204 or request.method == "HEAD":
        return None
    if head.is_encoded:
        record.notes = ("compressed: model not restored",)
        return None
    kind = head.get(b"content-type")
    return None if media_type(kind).startswith(NEVER_JSON) else AutoRestorer(rename, api, kind)


NEVER_JSON = ("audio/", "image/", "video/", "font/", "multipart/")


def _rename_for(plan: Plan, record: Record, api: Api) -> Rename | None:
    models = plan.rule.models
    if models is None or not models.restore:
        return None
    if record.asked_for:
        return by_name(record.asked_for.get)
    if api.is_about_earlier and record.model is None:
        return by_name(models.names.asked_for)
    if record.model is None or record.model_sent == record.model:
        return None
    # A name that is sent as a resource comes back whole.
    keeps_resource = api.has_resource_names and "models/" not in (record.model_sent or "")
    return always(record.model, keeps_resource=keeps_resource)


def summarize(
    record: Record, plan: Plan | None, request: RequestHead, tee: Tee | None, head: ResponseHead | None
) -> None:
    """Complete a record from the response: status, tokens, sizes, and a hint where it failed."""
    record.status = head.status if head else None
    record.bytes_in = tee.size if tee else None
    record.usage = _usage(tee, head)
    if tee and tee.is_cut:
        record.notes = (*record.notes, "the rest is not kept")
    if record.is_cut_short and record.ending == "complete" and record.failure is None:
        record.notes = (*record.notes, "no stop reason: the stream ended early")
    if plan is not None and tee is not None and head is not None:
        is_empty = record.ending == "complete" and _is_empty(request, tee, head)
        record.hint = EMPTY if is_empty else _hint(plan, request, tee, head, record.model_sent)


EMPTY = "received an empty response, probably from a wrong path or an intermediate server; check upstream"


def _is_empty(request: RequestHead, tee: Tee, head: ResponseHead) -> bool:
    """Report whether a call of a model was answered well and without a body, which makes clients try again."""
    is_call = request.verb == "POST" and call_of(request).api.operation is not None
    return is_call and head.status == HTTPStatus.OK and not tee.size


def _usage(tee: Tee | None, head: ResponseHead | None) -> Usage | None:
    """Return the token counts and the model that the response reports."""
    if tee is None or head is None:
        return None
    if usage := tee.usage():
        return usage
    body = tee.kept()
    if head.is_encoded:
        try:
            body = decode_prefix(body, head.get(b"content-encoding"), _MAX_UNPACKED)
        except DecodingError:
            body = b""
    return usage_in(head.get(b"content-type"), body)


def tee_of_recording(head: ResponseHead, body: bytes) -> Tee:
    """Return a tee that has read a recorded response."""
    tee = Tee(len(body), None, None)
    tee.feed(body)
    return tee


def rejected_by_body(plan: Plan, secrets: Secrets, tee: Tee, head: ResponseHead) -> tuple[str, Secret] | None:
    """Return the credential whose token the body of a 403 calls expired or invalid."""
    own = _own_credential(plan, secrets)
    return own if own and is_token_rejected(head.get(ERROR_TYPE), _error_body(tee, head)) else None


def _own_credential(plan: Plan, secrets: Secrets) -> tuple[str, Secret] | None:
    """Return the credential of the rule's auth, if the request was sent with one."""
    name = plan.auth.credential or ""
    return (name, secrets.named[name]) if name in secrets.named else None


def _error_body(tee: Tee, head: ResponseHead) -> bytes:
    """Return the beginning of a response, which says what is wrong; empty if it cannot be decoded."""
    with contextlib.suppress(DecodingError):
        return decode_prefix(tee.kept()[:MAX_ERROR_BYTES], head.get(b"content-encoding"), MAX_ERROR_BYTES)
    return b""


# Answers of servers without a WebSocket at a path.
_NO_SOCKETS = (400, 404, 405, 426, 501)


def _hint(plan: Plan, request: RequestHead, tee: Tee, head: ResponseHead, model: str | None) -> str | None:
    """Return what to change in the rule, where the upstream's response says so."""
    kind = head.get(b"content-type")
    # No API answers with a page, and a login page in between may have a good status.
    is_page = request.method == "POST" and kind.lower().startswith("text/html")
    if 200 <= head.status < 300 and not is_page:
        return None
    if head.status in _NO_SOCKETS and is_websocket(request):
        return "the upstream has no WebSocket here; add `models: {}` to the rule, and the client uses HTTP at once"
    return hint(
        Failure(
            status=head.status,
            content_type=kind,
            body=_error_body(tee, head),
            path=request.path,
            location=head.get(b"location"),
            scheme=plan.auth.scheme,
            credential=plan.auth.credential if plan.auth.credential != "client" else None,
            model=model,
        )
    )
