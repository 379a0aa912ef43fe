"""Answers of a reverse listener to requests that no rule takes and no upstream needs: probes, and a look at `/`.

Clients send a `HEAD` before their first request to learn whether a server answers. A browser at `/` gets a page, every
other program the same as JSON.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..text.printable import visible
from ..wire.addresses import hostport
from ..wire.request import Arrival, RequestHead
from .local_answers import PROBE, TO_PROBE, LocalAnswer

NAME = "mitmproxy-gateway"
FRONT_PAGE = "front page"
# The variables that point a client at a listener: from the host that it stands for, and its URL.
Variables = Callable[[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Greeting:
    """No rule takes the request, and the listener answers it."""

    note: str


def greeting(head: RequestHead, arrival: Arrival) -> Greeting | None:
    """Return the greeting that a request without a rule gets, if it is a probe or a look at `/`."""
    if arrival.mode != "reverse" or head.get("upgrade") is not None:
        return None
    match head.verb:
        case "HEAD":
            return Greeting(PROBE)
        case "GET" if head.path == "/":
            return Greeting(FRONT_PAGE)
    return None


def greet(
    ruleset: RuleSet, head: RequestHead, arrival: Arrival, variables: Variables, *, needs_key: bool
) -> LocalAnswer:
    """Return the answer to a request that gets a greeting."""
    if head.verb == "HEAD":
        return TO_PROBE
    facts = _facts(ruleset, head, arrival, variables, needs_key=needs_key)
    if _is_browser(head):
        return LocalAnswer(200, "text/html; charset=utf-8", _page(facts).encode(), _PAGE_HEADERS, FRONT_PAGE)
    body = json.dumps(facts, ensure_ascii=False, indent=2).encode() + b"\n"
    return LocalAnswer(200, "application/json", body, _NO_STORE, FRONT_PAGE)


def _is_browser(head: RequestHead) -> bool:
    """Return whether the client names HTML among the types that it accepts."""
    kinds = ",".join(head.all("accept")).lower().replace(" ", "").split(",")
    named = (kind.split(";") for kind in kinds)
    return any(kind == "text/html" and not _is_zero(parameters) for kind, *parameters in named)


def _is_zero(parameters: list[str]) -> bool:
    return any(each.startswith("q=") and not each[2:].strip("0.") for each in parameters)


def _facts(
    ruleset: RuleSet, head: RequestHead, arrival: Arrival, variables: Variables, *, needs_key: bool
) -> dict[str, Any]:
    """Return the facts on the page. No path of an upstream is among them: it may name an account."""
    place = head.get("host") or head.authority
    url = f"{'https' if arrival.tls else 'http'}://{place.strip()}"
    return {
        "name": NAME,
        "host": hostport(head.host, head.port, head.scheme),
        "rules": [_described(rule) for rule in ruleset.on_host(head.host, head.port)],
        "environment": dict(variables(head.host, url)),
        "needs_client_key": needs_key,
    }


def _described(rule: Rule) -> dict[str, str]:
    match = rule.match
    parts = [
        " or ".join(pattern.text for pattern in match.path or ()) or "every path",
        " or ".join(match.method or ()),
        "model " + " or ".join(glob.text for glob in match.model) if match.model else "",
        "some headers" if match.header else "",
    ]
    upstream = "the same host" if rule.upstream is None else rule.upstream
    return {
        "name": visible(rule.name),
        "match": visible(", ".join(filter(None, parts))),
        "upstream": upstream if isinstance(upstream, str) else upstream.authority,
    }


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #8886; }
pre { background: #8882; padding: .8rem; overflow-x: auto; }
:root { color-scheme: light dark; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_NO_STORE = (("cache-control", "no-store"),)
_PAGE_HEADERS = (
    *_NO_STORE,
    (
        "content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}: {host}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<h1>{name}</h1>
<p>This port serves <b>{host}</b>. The rules below change the requests that arrive here, and forward them.
Other requests are refused.</p>
{rules}
<h2>Point a client here</h2>
{client}
<p><code>mitm-gateway explain METHOD URL</code> shows what becomes of a request. <code>mitm-gateway serve --web</code>
shows the traffic.</p>
"""
_KEY_NEEDED = "<p>Send one of the client keys of this gateway as the API key.</p>"
_NO_RULES = "<p>No rule covers this host, so every request is refused.</p>"


def _page(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(rule[key])}</td>' for key in ('name', 'match', 'upstream'))}</tr>"
        for rule in facts["rules"]
    )
    table = f"<table><tr><th>rule</th><th>takes</th><th>sends to</th></tr>{rows}</table>"
    lines = "\n".join(f"export {name}={value}" for name, value in facts["environment"].items())
    client = f"<pre>{escape(lines)}</pre>" if lines else "<p>Use this address as the client's base URL.</p>"
    return _PAGE.format(
        name=NAME,
        host=escape(facts["host"]),
        style=_STYLE,
        rules=table if rows else _NO_RULES,
        client=client + (_KEY_NEEDED if facts["needs_client_key"] else ""),
    )
