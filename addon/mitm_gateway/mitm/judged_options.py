"""The options of mitmproxy that would expose or change what a rule with a secret sends."""

import contextlib
from collections.abc import Iterator
from typing import Any

from mitmproxy.addons.modifyheaders import parse_modify_spec
from mitmproxy.options import Options

from ..text.redact import is_key_header

# Options that are refused whenever they are set, with the reason and the alternative.
_ALWAYS = {
    "stickyauth": "would add the Authorization that a rule sends to later requests that no rule takes; leave it off",
    "stickycookie": "would add one client's cookies to the requests of others, after a rule has stripped them; "
    "leave it off",
    "proxyauth": "would store each client's password in its flows, and take the key in Authorization for one; "
    "use gateway_clients",
    "modify_body": "would change a body after its rule has edited, checked or signed it; use body in the rule",
    "store_streamed_bodies": "would keep responses without a limit and unmasked; gateway_capture keeps a copy",
    "keep_alt_svc_header": "would lead clients past the gateway; leave it off",
    "emudhra": "would sign with a CA key that is published with mitmproxy; leave it off",
    "emudhra_old": "would sign with a CA key that is published with mitmproxy; leave it off",
}
# Header fields that decide about framing, destination or the access of web pages, besides those that carry keys.
_DECIDING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "upgrade"}
)

# A change of these options is judged again.
WATCHED = frozenset(
    {
        *_ALWAYS,
        "allow_hosts",
        "gateway_reveal",
        "ignore_hosts",
        "keep_host_header",
        "map_remote",
        "mode",
        "modify_headers",
        "proxy_debug",
        "ssl_insecure",
        "stream_large_bodies",
        "tcp_hosts",
        "udp_hosts",
        "upstream_auth",
        "validate_inbound_headers",
    }
)


def exposing_options(options: Options) -> Iterator[str]:
    """Yield the options that cannot be used with rules that send a secret, each with what to do."""
    for name, reason in _ALWAYS.items():
        if _get(options, name):
            yield f"{name} {reason}"
    if _get(options, "proxy_debug") and not _get(options, "gateway_reveal"):
        yield "proxy_debug would log the bytes of each connection, keys included; leave it off, or set gateway_reveal"
    if _get(options, "upstream_auth") and any(mode.startswith("reverse:") for mode in options.mode):
        yield "upstream_auth would replace the Authorization of a rule on a reverse listener; leave it off"
    for name in _modified_headers(options):
        if name in _DECIDING or is_key_header(name) or name.startswith(("access-control-", "sec-websocket-")):
            yield f"modify_headers would change {name} after a rule has set or stripped it; use headers in the rule"


def _modified_headers(options: Options) -> Iterator[str]:
    for spec in _get(options, "modify_headers") or ():
        with contextlib.suppress(ValueError):  # mitmproxy reports the mistake
            yield parse_modify_spec(spec, False).subject.decode(errors="replace").strip().lower()


def _get(options: Options, name: str) -> Any:
    return getattr(options, name) if name in options else None
