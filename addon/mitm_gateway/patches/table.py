"""The table of patches: every change that the gateway makes to mitmproxy."""

from .patch import Patch, Patches, PatchKind, Unexpected
from .safety import (
    alerts,
    back_pressure,
    bounds,
    dialing,
    error_pages,
    framing,
    heads,
    http2,
    outgoing,
    printing,
    replayed,
    turns,
    views,
    websockets,
)
from .speed import bodies, hooks, layers, lookups, sockets, web

PATCHES: tuple[Patch, ...] = (
    Patch("json-error-pages", "safety",
        "mitmproxy's own errors are HTML pages that quote the peer's message",
        "#4854, pull request #7999 (open)", error_pages.json_pages),
    Patch("printable-text", "safety",
        "mitmproxy prints C1 controls and marks of direction, which act on terminals, as a peer sent them",
        None, printing.print_safely),
    Patch("view-bounds", "safety",
        "mitmproxy's views, prints and exports unpack compressed bodies without a limit, and show all of any body",
        None, views.bound_views),
    Patch("websocket-bounds", "safety",
        "mitmproxy reads all waiting frames in one go, and messages of any size in quadratic time",
        None, websockets.bound_websockets),
    Patch("body-limit", "safety",
        "mitmproxy buffers a request body completely before a hook can refuse it",
        None, bounds.limit_bodies),
    Patch("http1-trailers", "safety",
        "mitmproxy raises NotImplementedError on HTTP/1 trailers and both sides hang",
        "#2474 (open)", framing.end_at_trailers),
    Patch("interim-responses", "safety",
        "mitmproxy takes a 1xx response over HTTP/1 for the final one, and a 101 opens a raw pipe unasked",
        "#2229 (closed, not fixed in 12.3)", framing.skip_interim),
    Patch("http1-head-limit", "safety",
        "mitmproxy buffers a message head, a chunk's head and pipelined requests without a limit, and takes any version",
        None, heads.bound_http1),
    Patch("http2-requests", "safety",
        "mitmproxy forwards HTTP/2 requests without a method, or with a length but no body; large heads end the connection",
        None, heads.check_http2),
    Patch("http2-turns", "safety",
        "mitmproxy handles all received HTTP/2 frames in one go, twenty thousand in a quarter of a megabyte",
        None, turns.divide_frames),
    Patch("http1-turns", "safety",
        "mitmproxy handles all received requests that need no upstream in one go, three thousand in 64 KB",
        None, turns.divide_requests),
    Patch("http2-unread", "safety",
        "mitmproxy copies what an HTTP/2 peer does not read for each byte that it reads, and keeps it when that has left",
        None, http2.bound_http2),
    Patch("http2-back-pressure", "safety",
        "mitmproxy receives without a limit what an HTTP/2 peer does not read, and keeps it in memory",
        None, back_pressure.hold_back),
    Patch("http2-shutdown", "safety",
        "mitmproxy breaks off all responses when an HTTP/2 upstream announces its end, and confuses the sides' resets",
        None, http2.keep_begun_streams),
    Patch("http3-requests", "safety",
        "mitmproxy forwards such requests over HTTP/3 too, and buffers a request head without a limit",
        None, heads.check_http3),
    Patch("http2-encoding", "safety",
        "hpack takes quadratic time for a header value: a second for one of 128 KiB",
        None, heads.encode_linearly),
    Patch("client-hello-limit", "safety",
        "mitmproxy buffers a TLS ClientHello of up to 16 MiB for each connection",
        None, heads.bound_client_hello),
    Patch("tls-alerts", "safety",
        "mitmproxy does not report a connection that an alert has ended, and both sides hang",
        None, alerts.end_at_alerts),
    Patch("outgoing-head", "safety",
        "mitmproxy writes the head that a flow contains, so a secret would be in every copy of the flow",
        None, outgoing.write_secrets),
    Patch("upstream-proxy", "safety",
        "mitmproxy uses a proxy in front of upstreams only in its upstream mode, and never for raw tunnels",
        None, dialing.open_connections),
    Patch("server-replay", "safety",
        "mitmproxy's server replay overwrites what another addon has answered, refusals included",
        None, replayed.keep_answers),
    Patch("tunnels-dialled-first", "safety",
        "with lazy connections, mitmproxy promises a tunnel to a host that it then cannot reach",
        None, dialing.dial_tunnels_first),
    Patch("hook-table", "speed",
        "mitmproxy asks some 33 addons for each hook, and starts a task for each hook",
        None, hooks.index_hooks),
    Patch("plain-layers", "speed",
        "mitmproxy passes each command up through two generators for each layer, and tries eight types at each",
        None, layers.plain_layers),
    Patch("joined-writes", "speed",
        "mitmproxy writes the head, the body and the end of a response separately",
        None, sockets.join_writes),
    Patch("direct-reads", "speed",
        "mitmproxy wakes a task for each piece of data it receives, and events wait for all requests before them",
        None, sockets.direct_reads),
    Patch("plain-bodies", "speed",
        "mitmproxy copies each piece of a body three times, chunks included",
        None, sockets.plain_bodies),
    Patch("whole-bodies", "speed",
        "mitmproxy keeps a body in pieces and joins them in a second block",
        None, bodies.whole_bodies),
    Patch("plain-headers", "speed",
        "mitmproxy looks up a header through six functions and an exception",
        None, lookups.plain_headers),
    Patch("plain-checks", "speed",
        "mitmproxy inspects the dataclass again for each message and hook that it creates",
        None, lookups.plain_checks),
    Patch("fewer-messages", "speed",
        "mitmweb describes and hashes a flow some eight times, even for no browser",
        None, web.fewer_messages),
)  # fmt: skip


def apply(patches: Patches, kind: PatchKind) -> list[str]:
    """Apply the patches of a kind; return a sentence for each that does not fit this mitmproxy."""
    problems = []
    for patch in PATCHES:
        if patch.kind == kind:
            try:
                patches.apply(patch)
            except Unexpected as fault:
                problems.append(str(fault))
    return problems


def describe(patches: Patches) -> list[str]:
    """Return the table as lines of text: on or off, kind, name, reason, upstream reference."""
    return [
        f"{'on ' if patches.is_applied(patch) else 'off'}  {patch.kind:6}  {patch.name:17}  {patch.why}"
        + (f" (mitmproxy {patch.upstream})" if patch.upstream else "")
        for patch in PATCHES
    ]
