"""Refusals that exist on Envoy only; the filter, the routes and Envoy itself give them."""

from ..exchange.guard import MAX_HEAD_BYTES
from ..wire.refusal import Refusal

BLOCKED = Refusal(404, "no rule matches this request, and unmatched requests are blocked")
WRONG_HOST = Refusal(
    421, "the Host header does not name this listener; list further names with --gateway-host"
)
WEB_PAGE = Refusal(403, "web pages may not use this gateway; export with --origin to allow one")
CLIENT_KEY = Refusal(401, "a client key is needed; ask the operator of this gateway for one")
COMPRESSED = Refusal(400, "a compressed body cannot be read here; send it without content-encoding")
NOT_GET = Refusal(400, "a WebSocket is opened with GET")
NO_BODY = Refusal(400, "the rules depend on the model, and the request has no body that names one")
FAULT = Refusal(502, "internal fault; see Envoy's log")

# Envoy gives these by itself; every other answer is a route's or the filter's.
UNREACHABLE = Refusal(502, "the upstream cannot be reached, or closed the connection", retry=True)
NO_CREDENTIAL = Refusal(424, "a credential is missing: its file does not exist or is empty")
UNASKED_UPGRADE = Refusal(502, "the upstream switched protocols without being asked to", retry=True)
LONG_HEAD = Refusal(431, f"the request head is larger than {MAX_HEAD_BYTES} bytes")
OVERLOADED = Refusal(503, "the gateway is out of memory; try again", retry=True)
BAD_REQUEST = Refusal(400, "the request is not valid HTTP")
NO_ROUTE = Refusal(404, "no rule matches this request")


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body over the limit."""
    return Refusal(413, f"the body is larger than {limit} bytes")
