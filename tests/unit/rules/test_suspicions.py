"""Valid rules that look like a mistake are warned about, with their position."""

from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.suspicions import suspicions
from support.table import table

AUTH = "    auth: {scheme: none}\n"


def warnings(match: str, more: str = "") -> list[str]:
    text = f"rules:\n  - name: a\n    match: {{{match}}}\n    upstream: https://gw.test\n{more or AUTH}"
    return [str(problem) for problem in suspicions(parse_rules(text.encode(), "f", {}))]


@table("host", ["127.0.0.1:8080", "localhost", "'[::1]:8080'", "LOCALHOST"])
def test_a_rule_for_this_machine_is_suspicious(host: str) -> None:
    (warning,) = warnings(f"host: {host}")
    assert warning.startswith('f:3:19: rule "a" matches this machine; expected the host of the API')


@table("path", ["/v1", "/v1/", "/", "/v1beta"])
def test_a_path_that_leaves_out_everything_below_it_is_suspicious(path: str) -> None:
    (warning,) = warnings(f"host: a.test, path: {path}")
    assert f'"{path.rstrip("/")}/**" covers everything below' in warning


def test_a_variable_without_braces_is_suspicious() -> None:
    (warning,) = warnings("host: a.test", f"{AUTH}    headers: {{set: {{x-team: Team $TEAM_NAME}}}}\n")
    assert 'expected "${NAME}"' in warning


@table(
    ("upstream", "base"),
    [("https://gw.test/v1/messages", "https://gw.test"), ("https://gw.test/x/responses", "https://gw.test/x"),
     ("http://127.0.0.1:4000/v1/chat/completions", "http://127.0.0.1:4000")],
)  # fmt: skip
def test_an_upstream_that_names_an_endpoint_is_suspicious(upstream: str, base: str) -> None:
    text = f"rules:\n  - name: a\n    match: {{host: a.test}}\n    upstream: {upstream}\n{AUTH}"
    (warning,) = map(str, suspicions(parse_rules(text.encode(), "f", {})))
    assert warning.startswith("f:4:15: ")
    assert warning.endswith(f'expected the base URL "{base}"')


@table("prefix", ["Bearer", "token"])
def test_a_prefix_without_its_blank_is_suspicious(prefix: str) -> None:
    auth = "auth: {scheme: header, name: X-Key, credential: client, prefix: "
    (warning,) = warnings("host: a.test", f"    {auth}{prefix}}}\n")
    assert warning.endswith(f'directly follows "{prefix}"; expected prefix: "{prefix} "')
    assert not warnings("host: a.test", f'    {auth}"{prefix} "}}\n')


def test_usual_rules_are_not_warned_about() -> None:
    more = f"{AUTH}    headers: {{set: {{x-price: $5 US$ABC, x-b: a$$}}}}\n"
    assert not warnings("host: [a.test, '*'], path: [/v1/**, /v1/messages, /**]", more)


@table("upstream", ["https://other.test/v1", "http://127.0.0.1:4000"])
def test_an_upstream_without_a_key_is_suspicious(upstream: str) -> None:
    host = upstream.split("/")[2].split(":")[0]
    assert without_key(f"upstream: {upstream}") == [
        f'f:5:15: rule "a" sends no key to {host}; add "auth", or "auth: {{scheme: none}}" if that is intended'
    ]


@table(
    "lines",
    [["upstream: demo"], ["respond: {head: true}"], ["upstream: https://a.test/base"],
     ["upstream: https://o.test", "auth: {scheme: none}"], ["upstream: https://o.test", "auth: {scheme: keep}"],
     ["upstream: https://o.test", "headers: {set: {x-app: '${credential:c}'}}"],
     ["upstream: https://o.test", "query: {set: {key: '${credential:c}'}}"]],
)  # fmt: skip
def test_an_upstream_that_needs_no_key_is_not_suspicious(lines: list[str]) -> None:
    assert not without_key(*lines)


def without_key(*lines: str) -> list[str]:
    body = "".join(f"    {line}\n" for line in lines)
    text = f"credentials: {{c: {{env: C}}}}\nrules:\n  - name: a\n    match: {{host: a.test}}\n{body}"
    return [str(problem) for problem in suspicions(parse_rules(text.encode(), "f", {}))]


@table("name", ["x-api-key", "Authorization", "x-litellm-api-key"])
@table("edit", ["set", "add"])
def test_a_key_in_the_file_is_suspicious(name: str, edit: str) -> None:
    (warning,) = warnings("host: a.test", f"{AUTH}    headers: {{{edit}: {{{name}: Bearer other-key}}}}\n")
    assert warning.startswith("f:6:21: ")
    assert warning.endswith('a secret does not belong in this file, use "${credential:NAME}"')
    assert "other-key" not in warning


@table("value", ["dummy", "not-needed", "''", "${KEY:-other-key}", "Bearer -"])
def test_a_placeholder_in_the_file_is_not_suspicious(value: str) -> None:
    assert not warnings(
        "host: a.test", f'{AUTH}    headers: {{set: {{x-api-key: "{value}"}}}}\n'.replace("''", "")
    )
