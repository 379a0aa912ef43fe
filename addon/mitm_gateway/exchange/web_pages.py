"""Web pages as clients: preflight requests, and the headers that let a listed origin read a response."""

from ..wire.request import Fields, RequestHead, as_bytes
from .guard import Policy, listed_origin
from .local_answers import LocalAnswer
from .plan import Plan

_ALLOW_ORIGIN = b"access-control-allow-origin"
METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD"
# Browsers ask again after this time.
MAX_AGE_S = 600


def preflight(head: RequestHead, policy: Policy) -> LocalAnswer | None:
    """Return the answer to an `OPTIONS` request of a listed origin, which needs no key."""
    if head.verb != "OPTIONS" or not (headers := page_headers(head, policy)):
        return None
    headers |= {"access-control-allow-methods": METHODS, "access-control-max-age": str(MAX_AGE_S)}
    if names := head.get("access-control-request-headers"):
        headers["access-control-allow-headers"] = names
    if (head.get("access-control-request-private-network") or "").lower() == "true":
        headers["access-control-allow-private-network"] = "true"
    return LocalAnswer(204, "", b"", tuple(headers.items()))


def page_headers(head: RequestHead, policy: Policy) -> dict[str, str]:
    """Return the headers that let the page read a response, if its origin is listed."""
    origins = head.all("origin")
    if len(origins) != 1 or not listed_origin(origins[0], policy):
        return {}
    return {"access-control-allow-origin": origins[0].strip(), "vary": "Origin"}


def fields_for_pages(fields: Fields, plan: Plan, request: RequestHead, policy: Policy) -> Fields:
    """Return the fields of an upstream's response, readable for listed origins only.

    A page of any other origin must not read what the gateway's credential has paid for.
    """
    if headers := page_headers(request, policy):
        if any(name.lower() == _ALLOW_ORIGIN for name, _ in fields):
            return fields
        return (*fields, *((as_bytes(name), as_bytes(value)) for name, value in headers.items()))
    if not plan.rule.credential_names:
        return fields
    return tuple([item for item in fields if not item[0].lower().startswith(b"access-control-")])
