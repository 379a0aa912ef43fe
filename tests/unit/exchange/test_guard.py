"""Admission checks: who may use the gateway, and is the destination unambiguous?"""

from typing import Any

from mitm_gateway.exchange.guard import (
    MAX_KEYS,
    Policy,
    check_admission,
    check_client_key,
    check_peer,
    check_replay,
    without_proxy_keys,
)
from mitm_gateway.wire.request import Arrival, RequestHead
from support.builders import make_head
from support.table import table

INTERCEPT = Arrival(mode="regular", tls=True, sni="api.anthropic.com", inside_connect=True)
PLAIN = Arrival(mode="regular")
REVERSE = Arrival(mode="reverse", listen_host="127.0.0.1")


def knows(host: str, port: int) -> bool:
    return host == "api.anthropic.com"


def status(head: Any, arrival: Arrival = INTERCEPT, policy: Policy | None = None) -> int | None:
    refusal = check_admission(head, arrival, policy or Policy(), knows)
    return refusal.status if refusal else None


def test_an_ordinary_request_is_admitted() -> None:
    assert status(make_head()) is None
    assert status(make_head(), REVERSE) is None


@table("method", ["TRACE", "trace", "Trace"])
def test_trace_is_refused_in_any_case(method: str) -> None:
    assert status(make_head(method=method)) == 403
    assert status(make_head(method=method, host="other.test")) == 403


@table(
    ("headers", "expected"),
    [
        ({"Host": "evil.test"}, 421),
        ({"Host": "api.anthropic.com.evil.test"}, 421),
        ({"Host": "api.anthropic.com:8443"}, 421),
        ({"Host": "api.anthropic.com:443"}, None),
        ({"Host": "API.Anthropic.COM."}, None),
        ({"Host": "ａpi.anthropic.com"}, None),
        ({"Host": "api.anthropic.com:443@evil.test"}, 400),
        ({"Host": "evil.test#api.anthropic.com"}, 400),
        ({"Host": "api.anthropic.com%00.evil.test"}, 400),
        ({"Host": ""}, 400),
        ([("Host", "evil.test"), ("Host", "api.anthropic.com")], 400),
        ([("Host", "api.anthropic.com"), ("host", "api.anthropic.com")], 400),
    ],
)
def test_host_must_agree_with_the_target(headers: Any, expected: int | None) -> None:
    assert status(make_head(headers=headers)) == expected


@table("target", ["/v1/messages#x", "/v1/messages?a=1#&key=x", "/v1/#/../x"])
def test_a_target_with_a_fragment_is_refused(target: str) -> None:
    # Envoy refuses it before the filter.
    assert status(make_head(target)) == 400


@table("scheme", ["ftp", "HTTPS", "wss"])
@table("host", ["api.anthropic.com", "other.test"])
def test_a_scheme_other_than_http_is_refused(scheme: str, host: str) -> None:
    assert status(make_head(scheme=scheme, host=host)) == 400


def test_a_missing_host_is_refused() -> None:
    assert status(make_head(add_host=False)) == 400


def test_another_target_that_claims_a_rules_host_is_refused() -> None:
    head = make_head(headers={"Host": "api.anthropic.com"}, host="evil.test", port=80, scheme="http")
    assert status(head, PLAIN) == 421


def test_another_target_that_claims_a_rules_host_in_disguise_is_refused() -> None:
    head = make_head(headers={"Host": "x@api.anthropic.com"}, host="evil.test")
    assert status(head) == 400


def test_requests_to_hosts_without_rules_are_admitted() -> None:
    head = make_head(headers={"Host": "whatever", "Origin": "https://page.test"}, host="other.test")
    assert status(head, Arrival(mode="regular", tls=True, sni="other.test")) is None


@table(
    ("sni", "expected"), [("evil.test", 421), ("API.anthropic.com", None), (None, None), ("not a name", 421)]
)
def test_the_server_name_must_agree(sni: str | None, expected: int | None) -> None:
    arrival = Arrival(mode="regular", tls=True, sni=sni, inside_connect=True)
    assert status(make_head(), arrival) == expected


def test_a_transparent_listener_needs_a_server_name() -> None:
    assert status(make_head(), Arrival(mode="transparent", tls=True, sni=None)) == 421


def test_http2_authority_counts_as_the_host() -> None:
    assert status(make_head(authority="api.anthropic.com")) is None
    assert status(make_head(authority="evil.test")) == 421
    both = make_head(authority="api.anthropic.com", headers={"host": "api.anthropic.com"})
    assert status(both) is None
    differing = make_head(authority="api.anthropic.com", headers={"host": "evil.test"})
    assert status(differing) == 400


@table(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", None),
        ("localhost:9", None),
        ("[::1]:8080", None),
        ("api.anthropic.com", None),
        ("gateway.lan:8080", None),
        ("attacker.example:8080", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.nip.io", 421),
    ],
)
def test_a_reverse_listener_answers_to_its_own_names_only(host: str, expected: int | None) -> None:
    policy = Policy(hosts=frozenset({"gateway.lan"}))
    assert status(make_head(headers={"Host": host}), REVERSE, policy) == expected


@table(
    ("headers", "expected"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://app.example"}, None),
        ({"Origin": "HTTPS://App.Example"}, None),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, None),
        ({"Sec-Fetch-Site": "none"}, None),
        ({"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}, None),
    ],
)
def test_pages_need_a_listed_origin(headers: dict[str, str], expected: int | None) -> None:
    policy = Policy(origins=frozenset({"https://app.example"}))
    assert status(make_head(headers=headers), REVERSE, policy) == expected
    assert status(make_head(headers=headers), INTERCEPT, policy) == expected


def test_a_preflight_of_an_unlisted_page_is_refused() -> None:
    head = make_head(method="OPTIONS", headers={"Origin": "https://evil.example"})
    assert status(head, REVERSE) == 403


@table("value", ["a\rx-api-key: CK", "a\r\n b", "a\nb", "a\0b"])
def test_line_breaks_in_values_are_refused(value: str) -> None:
    assert status(make_head(headers={"X-A": value})) == 400


@table("target", ["/v1/messages?x=/../admin", "/v1/", "/", "/v1/a.b/..c", "/v1/%41"])
def test_ordinary_paths_are_admitted(target: str) -> None:
    assert status(make_head(target)) is None


def test_a_path_over_the_limit_is_refused() -> None:
    assert status(make_head("/v1/" + "a" * 8192)) == 400
    assert status(make_head("/v1/" + "a" * 8192, host="other.test"), Arrival(mode="regular")) == 400
    assert status(make_head("/v1/x?" + "a" * 60_000)) is None


def test_only_this_machine_may_connect_without_client_keys() -> None:
    assert [check_peer(here, Policy()) for here in (True, False)] == [True, False]
    assert check_peer(False, Policy(client_keys=(b"k",)))


KEYED = Policy(client_keys=(b"right-key",))


MANY = [("x-api-key", f"wrong-{number}") for number in range(MAX_KEYS)]


@table(
    ("headers", "query"),
    [
        ([], ""),
        ([("x-api-key", "wrong")], ""),
        ([("x-api-key", "right-ke")], "?key=right-key2"),
        ([("x-note", "right-key")], "?note=right-key"),
        ([*MANY, ("x-api-key", "right-key")], ""),  # each is compared with each key
    ],
)
def test_a_configured_client_key_is_needed(headers: list[tuple[str, str]], query: str) -> None:
    refusal = check_client_key(make_head(f"/v1/messages{query}", headers=headers), REVERSE, KEYED)
    assert refusal is not None
    assert refusal.status == 401


@table(
    ("header", "left"),
    [
        (("x-api-key", "right-key"), None),
        (("Authorization", "Bearer right-key"), None),
        (("authorization", "bearer right-key"), None),
        (("Proxy-Authorization", "Basic dXNlcjpyaWdodC1rZXk="), None),
        *(
            (((name, "right-key"), None))
            for name in ("x-goog-api-key", "api-key", "Ocp-Apim-Subscription-Key")
        ),
        (("Sec-WebSocket-Protocol", "openai-insecure-api-key.right-key"), None),
        (("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.right-key"), "realtime"),
        (("Sec-WebSocket-Protocol", "realtime,token, right-key"), "realtime"),
    ],
)
def test_a_client_key_counts_in_every_header_and_is_removed(
    header: tuple[str, str], left: str | None
) -> None:
    own = ("Authorization", "Bearer own") if header[0] != "Authorization" else ("api-key", "own")
    head = make_head("/v1/messages?key=own", headers=[header, own], add_host=False)
    assert check_client_key(head, REVERSE, KEYED) is None
    wanted = [*([(header[0], left)] if left else []), own]
    rest = without_proxy_keys(head, KEYED)
    assert (rest.target, rest.fields) == (head.target, tuple((a.encode(), b.encode()) for a, b in wanted))


@table(
    ("query", "left"),
    [
        ("key=right-key", ""),
        ("a=%20&KEY=right%2Dkey&alt=sse", "?a=%20&alt=sse"),
        ("api_key=other&api-key=right-key", "?api_key=other"),
        ("a;access_token=right-key;b", "?a;b"),
    ],
)
def test_a_client_key_counts_in_the_query_and_is_removed(query: str, left: str) -> None:
    head = make_head(f"/v1/messages?{query}")
    assert check_client_key(head, REVERSE, KEYED) is None
    assert without_proxy_keys(head, KEYED).target == f"/v1/messages{left}"


def test_a_policy_does_not_show_its_keys() -> None:
    assert "right-key" not in repr(KEYED)


@table(
    ("head", "expected"),
    [
        (make_head(), None),
        (make_head(method="TRACE"), 403),
        (make_head(method="track", host="other.test"), 403),
        (make_head(method="GET /x HTTP/1.1"), 400),
        (make_head("/v1/../x"), 400),
        (make_head("/a b"), 400),
        (make_head(headers={"x": "a\r\nb"}), 400),
        (make_head("/v1/../x", host="other.test"), None),
    ],
)
def test_a_replay_that_the_user_has_edited_is_checked(head: RequestHead, expected: int | None) -> None:
    refusal = check_replay(head, lambda host, _port: host == "api.anthropic.com")
    assert (refusal.status if refusal else None) == expected
