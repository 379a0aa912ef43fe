"""A reverse listener answers probes and shows a page at `/`, unless a rule takes the request."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

from mitm_gateway.clients.environment import variables_at
from mitm_gateway.exchange.comment import comment_of
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.explain import explain_url
from mitm_gateway.exchange.guard import Policy
from mitm_gateway.exchange.local_answers import LocalAnswer
from mitm_gateway.exchange.plan import Pass
from mitm_gateway.exchange.report import Report
from mitm_gateway.exchange.response_plan import ResponseHead
from mitm_gateway.exchange.steps import Forward, NeedBody, Step
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival
from support.builders import make_head, make_rule, make_ruleset
from support.table import table

LISTENER = "127.0.0.1:8080"
UPSTREAM = "https://gateway.example.com/account-7"
RULE = make_rule('<b onload="x()">', match={"path": "/v1/**"}, upstream=UPSTREAM)
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Sec-Fetch-Site": "none"}


def begun(*rules: Any, unmatched: str = "auto", **policy: Any) -> Exchange:
    ruleset = make_ruleset(*(rules or (RULE,)), unmatched=unmatched)
    config = Config(
        ruleset, policy=Policy(**policy), variables=lambda host, url: variables_at(ruleset, {}, host, url)
    )
    return Exchange(config, Arrival("reverse"))


def ask(
    exchange: Exchange, method: str = "GET", target: str = "/", headers: dict[str, str] | None = None
) -> Step:
    return exchange.on_request_head(make_head(target, {"Host": LISTENER, **(headers or {})}, method=method))


def page(headers: dict[str, str] | None = None, **policy: Any) -> tuple[str, dict[str, str]]:
    answer = ask(begun(**policy), headers=BROWSER | (headers or {}))
    assert isinstance(answer, LocalAnswer)
    assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
    return answer.body.decode(), dict(answer.headers)


@table("target", ["/", "/api/hello", "/anthropic/api/hello", "/?x=1"])
def test_a_probe_is_answered_and_is_no_fault(target: str) -> None:
    exchange = begun()
    answer = ask(exchange, "HEAD", target)
    assert isinstance(answer, LocalAnswer)
    assert (answer.status, answer.body) == (200, b"")
    exchange.on_end(ResponseHead(200, ()))
    record = exchange.complete()
    assert Report.of(record).outcome == "ok"
    assert comment_of(Report.of(record)).endswith("a client's probe, answered here")


def test_a_probe_that_a_rule_takes_is_forwarded_and_not_found_is_no_fault() -> None:
    exchange = begun()
    assert isinstance(ask(exchange, "HEAD", "/v1/api/hello"), Forward)
    exchange.is_released = True
    exchange.on_end(ResponseHead(404, ()))
    assert Report.of(exchange.complete()).outcome == "ok"


def test_a_probe_needs_a_client_key_unless_the_rule_says_otherwise() -> None:
    step = ask(begun(client_keys=(b"k",)), "HEAD")
    assert isinstance(step, Refusal)
    assert step.status == 401
    open_rule = make_rule("r", match={"path": "/v1/**"}, respond={"head": True})
    assert isinstance(ask(begun(open_rule, client_keys=(b"k",)), "HEAD"), LocalAnswer)


@table("method", ["HEAD", "GET"])
def test_other_listeners_forward_it_as_before(method: str) -> None:
    step = Exchange(Config(make_ruleset(RULE)), Arrival()).on_request_head(make_head("/", method=method))
    assert isinstance(step, Pass)


@table("method", ["HEAD", "GET"])
def test_a_rule_and_a_passing_listener_have_precedence(method: str) -> None:
    assert isinstance(ask(begun(make_rule("all", upstream=UPSTREAM)), method), Forward)
    assert isinstance(ask(begun(unmatched="pass"), method), Pass)
    by_model = make_rule("by-model", match={"model": "claude-*"}, upstream=UPSTREAM)
    exchange = begun(by_model)
    assert isinstance(ask(exchange, method), NeedBody)
    assert isinstance(exchange.on_request_body(b""), LocalAnswer)


@table(
    ("method", "target", "headers"),
    [
        ("POST", "/", {}),
        ("GET", "/index.html", {}),
        ("GET", "/favicon.ico", {}),
        ("GET", "/", {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}),
    ],
)
def test_any_other_request_that_no_rule_takes_is_refused(
    method: str, target: str, headers: dict[str, str]
) -> None:
    step = ask(begun(), method, target, headers | BROWSER)
    assert isinstance(step, Refusal)
    assert step.status == 404


@table(
    ("headers", "status"),
    [
        ({"Host": "evil.test"}, 421),
        ({"Origin": "https://evil.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_the_guard_comes_before_the_page(headers: dict[str, str], status: int) -> None:
    step = ask(begun(), headers=BROWSER | headers)
    assert isinstance(step, Refusal)
    assert step.status == status


def test_the_page_needs_a_client_key_and_does_not_show_it() -> None:
    policy: Any = {"client_keys": (b"key-of-a-client",)}
    step = ask(begun(**policy), headers=BROWSER)
    assert isinstance(step, Refusal)
    assert step.status == 401
    shown, _ = page({"x-api-key": "key-of-a-client"}, **policy)
    assert "client keys" in shown
    assert "key-of-a-client" not in shown


@table("accept", ["*/*", "application/json", "text/html;q=0, */*", "text/html; q=0.0", ""])
def test_other_programs_get_json(accept: str) -> None:
    answer = ask(begun(), headers={"Accept": accept})
    assert isinstance(answer, LocalAnswer)
    assert answer.content_type == "application/json"
    facts = json.loads(answer.body)
    assert facts["host"] == "api.anthropic.com"
    assert facts["rules"] == [{"name": RULE.name, "match": "/v1/**", "upstream": "gateway.example.com"}]
    assert facts["environment"]["ANTHROPIC_BASE_URL"] == f"http://{LISTENER}"


def test_the_page_has_the_rules_escaped_and_no_script_and_no_path_of_an_upstream() -> None:
    shown, _ = page()
    tags: list[tuple[str, Any]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append((tag, attrs))

    Reader().feed(shown)
    assert not {"script", "form", "img", "iframe", "a"} & {tag for tag, _ in tags}
    assert not [name for _, attrs in tags for name, _ in attrs if name.startswith("on")]
    assert f"ANTHROPIC_BASE_URL=http://{LISTENER}" in shown
    assert "gateway.example.com" in shown
    assert "account-7" not in shown


def test_the_policy_allows_the_style_of_the_page_and_nothing_else() -> None:
    shown, headers = page()
    policy = headers["content-security-policy"]
    style = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    assert [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in style] == (
        re.findall("'sha256-([^']*)'", policy)
    )
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"


def test_explain_says_what_a_listener_answers() -> None:
    ruleset = make_ruleset(RULE)
    lines = explain_url(ruleset, "HEAD", "http://127.0.0.1:8080/").lines()
    assert "  answered   here with 200: a client's probe" in lines
    elsewhere = explain_url(ruleset, "GET", "https://api.anthropic.com/").elsewhere
    assert elsewhere == "on a reverse listener: answered here with 200: front page"
