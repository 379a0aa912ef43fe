"""The dry run of a request: its rule, every edit and its outcome, and no secret."""

from mitm_gateway.exchange.explain import describe_rules, explain_url
from support.builders import make_rule, make_ruleset
from support.counted_work import assert_linear
from support.table import table

RULE = make_rule(
    "copilot",
    match={"path": "/v1/**"},
    upstream="https://api.githubcopilot.com",
    auth={"scheme": "bearer", "credential": "gh"},
    headers={"set": {"Editor-Version": "vscode/1"}, "remove": ["x-stainless-*"]},
    models={"map": {"claude-opus-*": "claude-opus-4.6"}},
    body={"remove": ["context_management"]},
)
RULES = make_ruleset(RULE, credentials={"gh": {"env": "GH"}})
URL = "https://api.anthropic.com/v1/messages?beta=true"


def test_a_match_shows_every_edit_and_no_secret() -> None:
    headers = [("x-api-key", "sk-ant-api03-0123456789abcdef"), ("X-Stainless-Lang", "js")]
    explanation = explain_url(RULES, "POST", URL, headers, "claude-opus-4")
    assert explanation.as_json() == {
        "request": "POST https://api.anthropic.com/v1/messages",
        "verdict": "forward",
        "rule": "copilot",
        "place": "number 1 of 1",
        "destination": "https://api.githubcopilot.com/v1/messages?beta=true",
        "auth": "x-api-key → bearer",
        "credential": "gh",
        "model": "claude-opus-4",
        "model_sent": "claude-opus-4.6",
        "removed": ["x-api-key", "X-Stainless-Lang"],
        "put_in": ["Editor-Version: vscode/1", "Authorization: Bearer ****"],
        "body": ["remove context_management"],
    }
    assert "0123456789" not in "\n".join(explanation.lines())


def test_a_key_in_the_query_is_reported() -> None:
    explanation = explain_url(RULES, "POST", f"{URL}&key=AIza-0123456789", (), "claude-opus-4")
    assert explanation.destination == "https://api.githubcopilot.com/v1/messages?beta=true"
    assert explanation.auth == "key in the query → bearer"


def test_a_model_that_stays_is_reported() -> None:
    kept, mapped = (explain_url(RULES, "POST", URL, (), name).lines() for name in ("gpt-5", "claude-opus-4"))
    assert "  model      gpt-5, unchanged" in kept
    assert "  model      claude-opus-4 → claude-opus-4.6" in mapped


def test_without_a_match_every_rule_gives_its_reason() -> None:
    explanation = explain_url(RULES, "GET", "https://api.anthropic.com/api/hello")
    assert explanation.verdict == "pass"
    assert explanation.why_not == ('rule "copilot": path /api/hello does not match /v1/**',)


def test_a_refusal_has_its_status() -> None:
    explanation = explain_url(RULES, "POST", URL, [("Origin", "https://evil.test")])
    assert (explanation.verdict, explanation.status) == ("refuse", 403)


def test_each_rule_is_described_in_a_line() -> None:
    assert describe_rules(RULES) == ["1. copilot: api.anthropic.com /v1/** → https://api.githubcopilot.com"]


def test_earlier_rules_give_their_reasons() -> None:
    first = make_rule("first", match={"model": "opus*"}, upstream="https://h.test")
    rules = make_ruleset(first, RULE, make_rule("last"), credentials={"gh": {"env": "GH"}})
    explanation = explain_url(rules, "POST", URL, (), "haiku")
    assert explanation.rule == "copilot"
    assert explanation.why_not == ('rule "first": model haiku does not match opus*',)


def test_both_outcomes_are_shown_where_the_listeners_differ() -> None:
    explanation = explain_url(RULES, "GET", "https://api.anthropic.com/api/hello")
    assert explanation.verdict == "pass"
    assert explanation.elsewhere is not None
    assert explanation.elsewhere.startswith("on a reverse listener: refused with 404")
    assert explain_url(RULES, "POST", URL).elsewhere is None


def test_a_loopback_url_is_a_reverse_listener_in_front_of_the_rules_host() -> None:
    for place in ("http://127.0.0.1:8080", "localhost:8080", "http://[::1]:1"):
        explanation = explain_url(RULES, "POST", f"{place}/v1/messages?beta=true")
        assert (explanation.rule, explanation.request) == (
            "copilot",
            "POST https://api.anthropic.com/v1/messages",
        )
    own = make_ruleset(make_rule("own", host="127.0.0.1", upstream="https://h.test"))
    assert explain_url(own, "POST", "http://127.0.0.1:8080/x").request == "POST http://127.0.0.1:8080/x"


@table(
    ("method", "path", "answer"),
    [
        ("GET", "/v1/models", "respond.models"),
        ("GET", "/v1/models/claude-x", "respond.models"),
        ("POST", "/v1/messages/count_tokens", "respond.count_tokens"),
        ("HEAD", "/api/hello", "a client's probe"),
        ("GET", "/v1/models/other", None),
        ("POST", "/v1/messages", None),
    ],
)
def test_what_a_rule_answers_locally_is_not_called_forwarded(
    method: str, path: str, answer: str | None
) -> None:
    respond = {"models": True, "count_tokens": "estimate", "head": True}
    rule = make_rule("r", upstream="https://gw.test", models={"map": {"claude-x": "x"}}, respond=respond)
    explanation = explain_url(make_ruleset(rule), method, f"https://api.anthropic.com{path}")
    expected = f"answered here with 200: {answer}" if answer else "forwarded to https://gw.test" + path
    assert explanation.outcome() == expected


def test_a_socket_whose_messages_would_be_edited_is_shown_as_refused() -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    explanation = explain_url(RULES, "GET", "https://api.anthropic.com/v1/responses", headers)
    assert (explanation.verdict, explanation.status, explanation.rule) == ("refuse", 426, "copilot")


def test_the_work_on_many_fields_is_linear() -> None:
    def run(count: int) -> None:
        explain_url(RULES, "POST", URL, [(f"x-{number}", "v") for number in range(count)], "claude-opus-4")

    assert_linear(run, 400)
