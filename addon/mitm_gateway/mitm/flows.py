"""Between mitmproxy's flows and the exchange's values: read a head, perform a step, refuse, mask.

`perform` and `perform_response` are the only code that changes what a flow sends.
"""

import logging
from typing import assert_never

from mitmproxy import http
from mitmproxy.connection import Client

from ..exchange.exchange import Exchange
from ..exchange.headers import stripped
from ..exchange.local_answers import LocalAnswer
from ..exchange.masked_head import MaskedHead
from ..exchange.plan import Pass
from ..exchange.response_plan import ResponseHead, ResponsePlan
from ..exchange.steps import AnswerFromRecording, Forward, NeedBody, NeedCredentials, NeedTurn, Step
from ..llm.apis import Form
from ..llm.calls import call_of, identify
from ..llm.errors import error_body, error_headers
from ..text.redact import masked_fields, masked_target
from ..wire.addresses import Upstream, normal_host, normal_path, place
from ..wire.refusal import ANY_FAULT, Refusal
from ..wire.request import Arrival, Fields, Mode, RequestHead, as_bytes, as_text
from .replay import original_head, point_at, remember

logger = logging.getLogger(__name__)

_MODES: dict[str, Mode] = {
    "reverse": "reverse",
    "transparent": "transparent",
    "local": "transparent",
    "wireguard": "transparent",
}


# ---- reading ----


def arrival_of(client: Client, *, inside_connect: bool, authenticated: bool, replay: bool) -> Arrival:
    """Return how a request reached the gateway."""
    mode = client.proxy_mode
    return Arrival(
        mode=_MODES.get(mode.type_name, "regular"),
        listen_host=client.sockname[0] if client.sockname else "",
        tls=client.tls,
        sni=client.sni,
        inside_connect=inside_connect or mode.type_name == "socks5",
        authenticated=authenticated,
        replay=replay,
        goes_to_proxy=mode.type_name == "upstream",
    )


def received(flow: http.HTTPFlow) -> tuple[RequestHead, Arrival]:
    """Return the head of a recorded request as its client sent it, and how it arrived."""
    arrival = arrival_of(flow.client_conn, inside_connect=False, authenticated=True, replay=False)
    return original_head(flow) or head_of(flow, arrival), arrival


def head_of(flow: http.HTTPFlow, arrival: Arrival) -> RequestHead:
    """Return the head of a flow's request."""
    data = flow.request.data
    host = data.host
    if arrival.mode == "transparent" and arrival.sni:
        host = arrival.sni  # the target is an address; the upstream's certificate is checked for this name
    try:
        host = normal_host(host)
    except ValueError:
        host = host.lower()  # no rule has such a host
    return RequestHead(
        method=flow.request.method,
        scheme=as_text(data.scheme),
        host=host,
        port=data.port,
        target=as_text(data.path),
        fields=data.headers.fields,
        authority=_pseudo_authority(flow.request) if data.authority else "",
    )


def _pseudo_authority(request: http.Request) -> str:
    """Return the authority that a request names beside or instead of Host.

    An absolute URL over HTTP/1 names the same place as Host, which it needs as well.
    """
    authority = request.authority
    is_repeated = _is_http1(request) and request.headers.get_all("host") in ([], [authority])
    return "" if is_repeated else authority


def _is_http1(request: http.Request) -> bool:
    return not (request.is_http2 or request.is_http3)


def place_of(request: http.Request) -> Upstream:
    """Return the destination of a request."""
    return place(as_text(request.data.scheme), request.data.host, request.data.port)


def response_head_of(flow: http.HTTPFlow) -> ResponseHead | None:
    """Return the head of a flow's response; None where there is none."""
    if flow.response is None:
        return None
    data = flow.response.data
    return ResponseHead(data.status_code, data.headers.fields, data.reason)


# ---- performing ----


def perform(step: Step, flow: http.HTTPFlow, exchange: Exchange, *, keeps_original: bool = True) -> None:
    """Do to a flow what its exchange has decided. Nothing is forwarded before the last line has run.

    With `keeps_original` the flow also stores the client's own head, for a replay.
    """
    match step:
        case Forward(head, body):
            if head is not None:
                _set_head(flow, head, exchange, keeps_original=keeps_original)
            _set_body(flow, body)
        case Pass(target, fields, authority):
            _pass_on(flow, target, fields, authority)
        case NeedBody(head):
            flow.request.stream = False
            _set_head(flow, head, exchange, keeps_original=keeps_original)
            exchange.is_held = True
            return
        case LocalAnswer():
            flow.request.stream = False
            if not exchange.config.reveal:
                mask(flow.request)
            headers = {**exchange.page_headers, **dict(step.headers)}
            if step.content_type:
                headers["content-type"] = step.content_type
            flow.response = http.Response.make(step.status, step.body, headers)
            return
        case Refusal():
            _refuse(flow, step, exchange)
            return
        case NeedTurn() | NeedCredentials() | AnswerFromRecording():
            raise AssertionError("the caller waits, and obtains credentials and recorded responses")
        case _:
            assert_never(step)
    exchange.is_released = True


def refuse(flow: http.HTTPFlow, reason: Refusal | BaseException, exchange: Exchange | None = None) -> None:
    """Answer a request locally, because of a refusal or of a fault in the gateway; where even that fails, kill it."""
    try:
        if exchange is not None:
            exchange.withhold()
        refusal = reason if isinstance(reason, Refusal) else _internal_fault(reason)
        if exchange is not None:
            refusal = exchange.refuse(refusal)
        _refuse(flow, refusal, exchange)
    except ANY_FAULT as fault:
        logger.warning("internal fault while refusing a request: %s", type(fault).__name__)
    if flow.response is None:
        if exchange is not None:  # also where `withhold` has failed
            exchange.is_released = False
        kill(flow)


def _internal_fault(fault: BaseException) -> Refusal:
    kind = type(fault).__name__  # its text may contain a secret
    logger.warning("internal fault while handling a request: %s", kind)
    return Refusal(502, f"internal fault ({kind}); nothing was sent")


def kill(flow: http.HTTPFlow) -> None:
    """End a request that cannot be refused.

    From Python 3.12 on, mitmproxy leaves a client waiting whose flow is killed before its body is complete; such a
    flow stays unreleased and is killed with its body.
    """
    flow.request.stream = False
    mask(flow.request)
    is_complete = flow.request.raw_content is not None or flow.request.method == "CONNECT"
    if is_complete and flow.killable:
        flow.kill()
        logger.error("a request could not even be refused, and was killed")


def _set_head(flow: http.HTTPFlow, head: MaskedHead, exchange: Exchange, *, keeps_original: bool) -> None:
    data, destination = flow.request.data, head.destination
    data.path, data.headers.fields = as_bytes(head.target), head.fields
    if destination is None:
        return
    if keeps_original:
        remember(flow, exchange.head, exchange.all_keys)
    point_at(flow, destination.scheme, destination.host, destination.port, head.target)
    if data.authority:
        _name(flow, destination.authority)


def _name(flow: http.HTTPFlow, authority: str) -> None:
    """Name the host of a request outside of Host: in HTTP/2, or in the absolute URL that a proxy needs.

    mitmproxy would send the absolute URL of a reverse listener's client upstream, and some servers refuse it.
    """
    keeps = not _is_http1(flow.request) or flow.client_conn.proxy_mode.type_name == "upstream"
    flow.request.data.authority = as_bytes(authority) if keeps else b""


def _set_body(flow: http.HTTPFlow, edited: bytes | None) -> None:
    """Insert an edited body, and frame the body for the upstream."""
    data = flow.request.data
    fields = data.headers.fields
    if edited is not None:
        data.content = edited
        fields = tuple([item for item in fields if item[0].lower() != b"content-encoding"])
    if data.content:
        data.headers.fields = _framed(fields, as_bytes(str(len(data.content))))


def _framed(fields: Fields, length: bytes) -> Fields:
    names = [name.lower() for name, _ in fields]
    if b"transfer-encoding" in names:
        return fields
    if b"content-length" not in names:
        return (*fields, (b"content-length", length))
    place = names.index(b"content-length")
    return (*fields[:place], (fields[place][0], length), *fields[place + 1 :])


def _pass_on(flow: http.HTTPFlow, target: str, fields: Fields, authority: str | None) -> None:
    flow.request.data.path = as_bytes(target)
    flow.request.headers.fields = fields
    if authority is None:
        return
    if flow.request.authority:
        _name(flow, authority)
    if _is_http1(flow.request) or not flow.request.data.authority:
        flow.request.headers["Host"] = authority


def _refuse(flow: http.HTTPFlow, refusal: Refusal, exchange: Exchange | None) -> None:
    request = flow.request
    # A local answer to a request that streams would leave both sides waiting.
    request.stream = False
    form = error_form(request, exchange)
    body, headers = error_body(refusal, form), error_headers(refusal, form)
    headers |= exchange.page_headers if exchange is not None else {}
    if exchange is None or not exchange.config.reveal:
        mask(request)
    # mitmproxy's views and its HAR export decode without a limit, and fail on what cannot be decoded.
    request.headers.pop("content-encoding", None)
    if refusal.status == 413:
        request.raw_content = None
    flow.response = http.Response.make(refusal.status, body, headers)
    logger.info("refused with %d: %s", refusal.status, refusal.message)


def error_form(request: http.Request, exchange: Exchange | None) -> Form:
    """Return the error form of the API that a client asked."""
    if exchange is not None and exchange.head.method:  # the request as the client sent it
        return call_of(exchange.head).form
    return identify(request.host, request.method, normal_path(request.path.partition("?")[0])).form


def perform_response(plan: ResponsePlan, flow: http.HTTPFlow, *, may_retry: bool = False) -> None:
    """Let a response stream as its exchange has planned."""
    response = flow.response
    assert response is not None
    fields, response.data.reason = plan.fields, plan.reason
    if plan.is_reframed and flow.request.http_version == "HTTP/1.1":
        fields = (*fields, (b"Transfer-Encoding", b"chunked"))
    response.headers.fields = fields
    if may_retry:
        response.headers["x-should-retry"] = "true"
    if plan.tee is not None:
        response.stream = plan.tee.feed


# ---- masking ----


def hide_connect(flow: http.HTTPFlow) -> None:
    """Remove the keys from a CONNECT: its headers are for the gateway alone."""
    flow.request.headers.fields = stripped(flow.request.headers.fields)
    mask(flow.request)


def mask(request: http.Request) -> None:
    """Mask the secrets in the head of a request that is not forwarded."""
    try:
        request.headers.fields = masked_fields(request.headers.fields)
        request.data.path = as_bytes(masked_target(as_text(request.data.path)))
        request.trailers = None
    except ANY_FAULT as fault:
        logger.warning("a head could not be masked (%s) and is not kept", type(fault).__name__)
        request.headers.fields, request.trailers, request.path = (), None, "/"
