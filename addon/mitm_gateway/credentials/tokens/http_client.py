"""One small JSON request over HTTPS with the standard library."""

import math
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from ...text.bounded_json import parsed_object
from ...wire.addresses import is_loopback
from ...wire.proxies import ENVIRONMENT, SETTING_VARIABLE, Proxies

TIMEOUT_S = 15.0
_MAX_BYTES = 1 << 20


class TokenError(Exception):
    """No token; the text gives the reason and the remedy, and contains no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status and the JSON object of a response; empty if the body is no object."""

    status: int
    data: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a text of the object; empty if it is missing."""
        value = self.data.get(key)
        return value if isinstance(value, str) else ""

    def seconds(self, key: str) -> float | None:
        """Return a number of seconds, also one in quotes; None if it is missing or not usable."""
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            return None
        return seconds if math.isfinite(seconds) else None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    # A redirect would send the Authorization header to another host.
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(
    url: str, *, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
) -> Answer:
    """Return the response to a GET, or with `form` to a POST. Raises TokenError without one."""
    host = urlsplit(url).hostname or ""
    if not url.startswith("https://") and not (url.startswith("http://") and is_loopback(host)):
        raise TokenError(
            f"a secret must not be sent to {host or 'this URL'} in clear text; expected https://…"
        )
    request = urllib.request.Request(
        url,
        data=urlencode(form).encode() if form is not None else None,
        headers={"Accept": "application/json", **(headers or {})},
    )
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(_proxies(host)))
    try:
        return _answer(opener, request)
    except (OSError, ValueError, HTTPException) as fault:
        reason = getattr(fault, "reason", None) or type(fault).__name__
        raise TokenError(f"{host} did not answer: {reason}") from None


def _answer(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Answer:
    try:
        response = opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as refusal:
        response = refusal
    with response:
        return Answer(response.status, parsed_object(response.read(_MAX_BYTES)) or {})


def _proxies(host: str) -> dict[str, str]:
    """Return the gateway's proxy in urllib's form; none for loopback, where text is sent in clear."""
    try:
        setting = os.environ.get(SETTING_VARIABLE) or ENVIRONMENT
        proxy = Proxies.of(setting, os.environ).route("https", host)
    except ValueError as fault:
        raise TokenError(str(fault)) from None
    if proxy is not None and proxy.scheme != "http":
        raise TokenError(f"{proxy.source} names a proxy that is not http://…, which this command cannot use")
    return {"https": proxy.url.reveal()} if proxy else {}
