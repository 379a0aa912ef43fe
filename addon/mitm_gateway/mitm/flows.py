"""Between mitmproxy's flows and the core's values: read a head, carry out a plan, refuse, mask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from mitmproxy import http
from mitmproxy.connection import Client

from ..exchange.headers import Secrets, outgoing
from ..exchange.plan import Plan
from ..llm.apis import identify
from ..llm.errors import error_body, error_headers
from ..text.redact import fields_masked_exactly, masked_fields, masked_target, masked_text
from ..wire.addresses import hostport, normal_host, normal_path
from ..wire.refusal import Refusal
from ..wire.request import Arrival, Mode, RequestHead, raw, text
from ..wire.sigv4 import AwsKeys, signed

logger = logging.getLogger(__name__)

_MODES: dict[str, Mode] = {
    "reverse": "reverse",
    "transparent": "transparent",
    "local": "transparent",
    "wireguard": "transparent",
}


def arrival_of(client: Client, *, inside_connect: bool, authenticated: bool, replay: bool) -> Arrival:
    """How a request came in."""
    mode = client.proxy_mode
    return Arrival(
        mode=_MODES.get(mode.type_name, "regular"),
        listen_host=client.sockname[0] if client.sockname else "",
        tls=client.tls,
        sni=client.sni,
        inside_connect=inside_connect or mode.type_name == "socks5",
        authenticated=authenticated,
        replay=replay,
    )


def head_of(flow: http.HTTPFlow, arrival: Arrival) -> RequestHead:
    """The head of a flow's request."""
    request = flow.request
    host = request.host
    if arrival.mode == "transparent" and arrival.sni:
        host = arrival.sni  # the address says nothing; the upstream's certificate is checked for this name
    try:
        host = normal_host(host)
    except ValueError:
        host = host.lower()  # no rule has such a host
    return RequestHead(
        method=request.method,
        scheme=request.scheme,
        host=host,
        port=request.port,
        target=text(request.data.path),
        fields=request.headers.fields,
        authority=request.authority,
    )


def point_at(flow: http.HTTPFlow, scheme: str, host: str, port: int, target: str) -> None:
    """Sets where a request goes. Host and `:authority` are the caller's work."""
    data = flow.request.data
    data.scheme = raw(scheme)
    data.host = host
    data.port = port
    data.path = raw(target)


def apply(plan: Plan, head: RequestHead, secrets: Secrets, flow: http.HTTPFlow) -> None:
    """Carries out a plan on the head: the destination first, the secret last."""
    fields = outgoing(plan, head, secrets)
    destination = plan.destination
    point_at(flow, destination.scheme, destination.host, destination.port, plan.target)
    if flow.request.authority:
        flow.request.data.authority = raw(destination.authority)
    flow.request.headers.fields = fields


def pass_on(flow: http.HTTPFlow, head: RequestHead, arrival: Arrival) -> None:
    """Lets a request without a rule go on; a key for this gateway is out of `head` already."""
    flow.request.headers.fields = head.fields
    if arrival.mode == "reverse":
        # The client named the listener; it was kept to be looked at, and is nothing to the target.
        authority = hostport(head.host, head.port, head.scheme)
        if flow.request.authority:
            flow.request.data.authority = raw(authority)
        else:
            flow.request.headers["Host"] = authority


def set_body(flow: http.HTTPFlow, body: bytes, *, edited: bool) -> None:
    """Puts an edited body in, or makes sure that an unedited one is framed for the upstream."""
    fields = flow.request.headers.fields
    if edited:
        flow.request.raw_content = body
        fields = tuple([field for field in fields if field[0].lower() != b"content-encoding"])
    names = [name.lower() for name, _ in fields]
    length = b"%d" % len(body)
    if b"transfer-encoding" in names:
        pass
    elif b"content-length" in names:
        place = names.index(b"content-length")
        fields = (*fields[:place], (fields[place][0], length), *fields[place + 1 :])
    else:
        fields = (*fields, (b"content-length", length))
    flow.request.headers.fields = fields


def sign(flow: http.HTTPFlow, plan: Plan, keys: AwsKeys) -> None:
    """Puts an AWS signature over the request as it stands."""
    auth, request = plan.auth, flow.request
    url = f"{plan.destination.scheme}://{plan.destination.authority}{text(request.data.path)}"
    fields = signed(
        request.headers.fields,
        request.method,
        url,
        request.raw_content or b"",
        keys,
        service=auth.service or "",
        region=auth.region or "",
    )
    if request.authority:  # HTTP/2 knows lower-case names only (RFC 9113, 8.2)
        fields = tuple((name.lower(), value) for name, value in fields)
    request.headers.fields = fields


def refuse(flow: http.HTTPFlow, refusal: Refusal, *, reveal: bool = False) -> None:
    """Answers a request here: no secret stays in it, and nothing of it is sent on."""
    # An answer to a request that streams would hang both sides for ever.
    flow.request.stream = False
    request = flow.request
    form = identify(request.host, request.method, normal_path(request.path.partition("?")[0])).form
    if not reveal:
        mask(flow.request, ())
    flow.response = http.Response.make(
        refusal.status, error_body(refusal, form), error_headers(refusal, form)
    )
    logger.info("refused with %d: %s", refusal.status, refusal.message)


def mask(message: http.Request | http.Response, secrets: Iterable[str]) -> None:
    """Mask the secrets in the kept copy of a message whose head has been sent."""
    known = tuple(filter(None, secrets))
    try:
        message.headers.fields = masked_fields(message.headers.fields, known)
        if isinstance(message, http.Request):
            message.data.path = raw(masked_target(text(message.data.path), known))
        if message.trailers:
            # They may have their way to the client before them, so nothing but keys is taken out.
            message.trailers.fields = tuple(
                (name, raw(masked_text(text(value), known))) for name, value in message.trailers.fields
            )
    except (Exception, asyncio.CancelledError) as fault:
        logger.warning("a head could not be masked (%s) and is not kept", type(fault).__name__)
        message.headers.fields, message.trailers = (), None
        if isinstance(message, http.Request):
            message.path = "/"


def mask_echo(response: http.Response, secrets: Iterable[str]) -> None:
    """Mask exactly these secrets in the head of a response that has yet to be sent."""
    response.headers.fields = fields_masked_exactly(response.headers.fields, secrets)


def mask_backup(flow: http.HTTPFlow, secrets: Iterable[str]) -> None:
    """Masks the flow as it stood before a user edited it: mitmproxy keeps that, saves it and can bring it back."""
    state = getattr(flow, "_backup", None)
    if not state:
        return
    known = tuple(secrets)
    try:
        before = http.HTTPFlow.from_state(state)
        assert isinstance(before, http.HTTPFlow)
        mask(before.request, known)
        if before.response is not None:
            mask(before.response, known)
        flow._backup = before.get_state()
    except (Exception, asyncio.CancelledError) as fault:
        logger.warning(
            "the flow before an edit could not be masked (%s) and is not kept", type(fault).__name__
        )
        flow._backup = None
