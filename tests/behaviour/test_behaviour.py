"""The same cases through mitmdump and through an exported Envoy."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behaviour.case import MODELS, Case
from behaviour.cases import CASES
from behaviour.engines import ENGINES, ENV, Shared, started
from mitm_gateway.text.redact import KEY_ENDINGS, KEY_NAMES, MASK, masked_header
from support.answers import Reply, Stream, insist_on_bearer, json_reply, message, message_events
from support.bodies import overgrown
from support.constants import API, CK, GW, JSON, REVERSE
from support.envoy import Envoy
from support.starters import RunClaude, StartRecorder
from support.wire import Http2Client, Response, Wire, pseudo_headers

pytestmark = pytest.mark.e2e

Engine = Callable[..., Any]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Start an engine with these rules: `engine(rules, body_limit=…, clients=…)`."""
    start = request.getfixturevalue(request.param)

    def start_mitmdump(rules: str, body_limit: int = 64 << 20, clients: str = "") -> Any:
        options = ("--set", f"gateway_body_limit={body_limit}", "--set", f"gateway_clients={clients}")
        return start(*options, rules=rules, modes=REVERSE, env=ENV)

    def start_envoy(rules: str, body_limit: int = 64 << 20, clients: str = "") -> Any:
        return start(rules, env=ENV, body_limit=body_limit, clients=clients or None)

    return start_envoy if request.param == "envoy" else start_mitmdump


def ask(proxy: Any, case: Case, number: str = "") -> Response:
    has_host = any(name == "Host" for name, _ in case.headers)
    headers = [
        *([] if has_host else [("Host", "localhost")]),
        *case.headers,
        ("Content-Type", "application/json"),
    ]
    with Wire(proxy.port) as client:
        return client.request(case.method, case.target, [*headers, ("X-Case", number)], case.body)


def rules_of_all(upstream: str) -> str:
    """The rules of every case in one file; the header `X-Case` keeps them apart."""
    rules = []
    for number, case in enumerate(CASES):
        for place, rule in enumerate(yaml.safe_load(case.rules(upstream))["rules"]):
            rule["name"] = f"{rule['name']}-{number}-{place}"
            rule["match"].setdefault("header", {})["x-case"] = str(number)
            rules.append(rule)
    credentials = {"gw": {"env": "GW_KEY"}, "other": {"env": "OTHER_KEY"}}
    whole = {"unmatched": "block", "credentials": credentials, "rules": rules}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


@pytest.fixture(scope="module", params=ENGINES)
def all_cases(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """One engine with the rules of every case; one engine for each would take minutes."""
    with started(request, rules_of_all) as (proxy, upstream):
        upstream.script = json_reply(message("gw-large"))
        yield proxy, upstream


@pytest.fixture(scope="module", params=ENGINES)
def mapping(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """One engine with a rule that maps models, for all tests that say what its upstream answers."""
    with started(request, Case("", MODELS, match="path: /**").rules) as shared:
        yield shared


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].name)
def test_the_engine_handles_the_case(all_cases: Shared, number: int) -> None:
    (proxy, upstream), case = all_cases, CASES[number]
    before = len(upstream.requests)
    answer = ask(proxy, case, str(number))
    assert answer.status == case.status, answer.body
    if case.status != 200:
        error = json.loads(answer.body)["error"]
        assert error["message"].startswith("mitm-gateway: ")
        assert case.status != 400 or error["type"] == "invalid_request_error"
        assert answer.header("x-should-retry") == "false"
    if case.answer is not None:
        assert answer.body == case.answer
    if case.sent_target is None:
        assert len(upstream.requests) == before
        return
    asked = upstream.requests[before]
    assert asked.target == case.sent_target
    assert {name: asked.header(name) for name in case.sent_headers} == case.sent_headers
    assert asked.body == (case.body if case.sent_body is None else case.sent_body)
    assert asked.header("host") == f"127.0.0.1:{upstream.port}"


def ask_over_http2(client: Http2Client, case: Case, number: int, scheme: str, authority: str) -> Response:
    headers = [(name.lower(), value) for name, value in case.headers if name != "Transfer-Encoding"]
    head = pseudo_headers(authority, case.target, case.method, scheme)
    has_type = any(name == "content-type" for name, _ in headers)
    more = [("x-case", str(number)), *([] if has_type else [("content-type", "application/json")])]
    return client.request([*head, *headers, *more], case.plain_body)


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
def test_every_case_is_the_same_over_http2(all_cases: Shared, is_secured: bool) -> None:
    proxy, upstream = all_cases
    scheme, authority = "http", "localhost"
    if is_secured and isinstance(proxy, Envoy):
        pytest.skip("the listener of Envoy has no TLS")
    elif is_secured:
        scheme, authority = "https", API
        wire = Wire.through(proxy.ports[1], f"{API}:443", proxy.ca_cert, alpn=("h2",))
    else:
        wire = Wire(proxy.port)
    client, differing = Http2Client(wire), []
    for number, case in enumerate(CASES):
        if any(name in ("Host", "Upgrade") for name, _ in case.headers):
            continue
        before = len(upstream.requests)
        status = ask_over_http2(client, case, number, scheme, authority).status
        sent = [(each.target, each.body) for each in upstream.requests[before:]]
        body = case.plain_body if case.sent_body is None else case.sent_body
        wanted = [] if case.sent_target is None else [(case.sent_target, body)]
        if (status, sent) != (case.status, wanted):
            differing.append((case.name, status, sent))
    wire.close()
    assert not differing


def test_every_name_that_the_views_mask_is_stripped(engine: Engine, recorder: StartRecorder) -> None:
    upstream = recorder(json_reply(message()))
    names = sorted({*KEY_NAMES, *KEY_ENDINGS, *(f"X-{ending}" for ending in KEY_ENDINGS)})
    assert all(MASK in masked_header(name, "hunter2") for name in names)
    proxy = engine(Case("").rules(upstream.url))
    for at in range(0, len(names), 40):  # Envoy takes a hundred fields
        some = names[at : at + 40]
        target = f"/v1/messages?{'&'.join(f'{name}=hunter2' for name in some)}&a=1"
        case = Case("", target=target, headers=tuple((name, "hunter2") for name in some))
        assert ask(proxy, case).status == 200
        assert upstream.requests[-1].target == "/base/v1/messages?a=1"
    assert b"hunter2" not in upstream.raw


def test_a_client_key_counts_in_every_slot_and_is_removed(
    engine: Engine, recorder: StartRecorder, tmp_path: Path
) -> None:
    upstream, clients = recorder(json_reply(message())), tmp_path / "clients"
    clients.write_text(f"other-key\n{CK}\n")
    clients.chmod(0o600)
    proxy = engine(Case("", auth="{scheme: keep}").rules(upstream.url), clients=str(clients))
    own = ("x-api-key", "own")
    slots: list[tuple[str, str]] = [
        *((name, CK) for name in ("x-goog-api-key", "api-key", "subscription-key", "x-app-key")),
        ("authorization", f"Bearer {CK}"),
        ("sec-websocket-protocol", f"a, openai-insecure-api-key.{CK}"),
    ]
    encoded = f"%{ord(CK[0]):x}{CK[1:]}"
    cases = [Case("", headers=(own, slot)) for slot in slots]
    cases += [
        Case("", target=f"/v1/messages{query}", headers=(own,), sent_target="/base/v1/messages?a=1&b")
        for query in (f"?a=1&key={CK}&b", f"?a=1&api_key={encoded}&b")
    ]
    for case in cases:
        assert ask(proxy, case).status == 200, case
        assert upstream.requests[-1].target == case.sent_target
        assert upstream.requests[-1].header("x-api-key") == "own"
    assert CK.encode() not in upstream.raw
    for refused in (Case(""), Case("", headers=(own, ("x-note", CK)), target=f"/v1/messages?key={CK}x")):
        assert ask(proxy, refused).status == 401
    assert len(upstream.requests) == 8


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_a_stream_gets_the_clients_model_name_across_any_cut(mapping: Shared, size: int) -> None:
    proxy, upstream = mapping
    whole = (
        b"".join(message_events("gw-large")).replace(b'"model"', b'"mod\\u0065l"', 1) + b'data: {"model":"gw'
    )
    upstream.script = Stream(tuple(whole[at : at + size] for at in range(0, len(whole), size)), gated=False)
    answer = ask(proxy, Case("", body=b'{"model":"claude-opus-4"}'))
    assert answer.body == whole.replace(b'"gw-large"', b'"claude-opus-4"')


@pytest.mark.parametrize("rule", ["", MODELS], ids=["untouched", "restored"])
def test_each_event_arrives_before_the_next_is_sent(
    engine: Engine, recorder: StartRecorder, rule: str
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events))
    proxy = engine(Case("", rule).rules(upstream.url))
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", [("Host", "localhost")], b'{"model":"claude-opus-4"}')
        client.read_head()
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk() == (
                expected.replace(b"gw-large", b"claude-opus-4") if rule else expected
            )
        assert client.read_chunk() == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_json_answer_is_restored_and_the_connection_stays_usable(mapping: Shared, chunked: bool) -> None:
    proxy, upstream = mapping
    body, headers = json.dumps(message("gw-s", "x" * 5000)).encode(), (JSON, ("X-Odd", "a,b"))
    whole, pieces = Reply(200, body, headers), Stream((body[:40], body[40:]), gated=False, headers=headers)
    upstream.script = pieces if chunked else whole
    with Wire(proxy.port) as client:
        for name in (b"claude-opus-longer", b"claude-opus-" + b"m" * 300):  # which logs cut
            got = client.request("POST", "/v1/messages", [("Host", "localhost")], b'{"model":"%s"}' % name)
            assert got.body == body.replace(b"gw-s", name)
            assert got.header("x-odd") == "a,b"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(engine: Engine, recorder: StartRecorder, chunked: bool) -> None:
    upstream = recorder(json_reply(message()))
    proxy = engine(Case("", MODELS).rules(upstream.url), body_limit=65536)
    body = b'{"model":"a","x":"' + b"a" * 200_000 + b'"}'
    headers = [("Host", "localhost")]
    if chunked:
        headers.append(("Transfer-Encoding", "chunked"))
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with Wire(proxy.port) as client:
        answer = client.request("POST", "/v1/messages", headers, body)
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["type"] == "request_too_large"
    assert upstream.raw == b""


def test_a_body_small_as_text_and_large_as_data_is_413(mapping: Shared) -> None:
    proxy, upstream = mapping
    before = len(upstream.raw)
    with Wire(proxy.port) as client:
        answer = client.request("POST", "/v1/messages", [("Host", "localhost")], overgrown(b"[]," * 200_000))
    assert answer.status == 413
    assert "too many arrays, objects" in json.loads(answer.body)["error"]["message"]
    assert len(upstream.raw) == before


@pytest.mark.parametrize("body", [b"RIFF\0\xff", '{"a":1}'.encode("utf-16"), b'{"a":1]\xc0', b'{"model":1}'])
def test_the_reason_names_bytes_that_are_no_text_first(mapping: Shared, body: bytes) -> None:
    proxy, _ = mapping
    answer = ask(proxy, Case("", body=body))
    assert answer.status == 400
    assert ("is not UTF-8" in json.loads(answer.body)["error"]["message"]) == (b"model" not in body)


def test_claude_code_gets_its_answer(mapping: Shared, run_claude: RunClaude) -> None:
    proxy, upstream = mapping
    upstream.script = insist_on_bearer(GW)
    before = len(upstream.requests)
    done = run_claude({"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": CK})
    assert (done.code, done.stdout) == (0, "hello there\n"), (done, proxy.output())
    asked = [each for each in upstream.requests[before:] if each.path == "/base/v1/messages"]
    assert {each.json["model"] for each in asked} <= {"gw-small", "gw-large"}
    assert asked
    assert CK.encode() not in upstream.raw


def test_names_are_restored_between_events_without_one(mapping: Shared) -> None:
    proxy, upstream = mapping
    quiet = b'event: x\ndata: {"text":"a \\"model\\" of it"}\n\n'
    named = b'data: {"model":"gw-large","text":"\\u00e9"}\n\n'
    # The name is alone on its line, which looks harmless by itself.
    split = b'data: {"model":\ndata: "gw-large"}\n\n'
    whole = named + quiet * 50 + split + quiet + named.replace(b"\n", b"\r\n") + quiet + named
    upstream.script = Stream((whole, quiet + named), gated=False)
    answer = ask(proxy, Case("", body=b'{"model":"claude-opus-4"}'))
    assert answer.body == (whole + quiet + named).replace(b'"gw-large"', b'"claude-opus-4"')


@pytest.mark.parametrize(
    ("endpoint", "kind", "body"),
    [
        ("POST /v1/messages", "application/octet-stream", b'data: {"model":"gw-large"}\n\n'),
        ("POST /v1/messages", "text/event-stream", b'{"x":1,"model":"gw-large"}'),
        ("POST /api/chat", "application/x-ndjson", b'{"model":"gw-large"}\n{"x":1,"model":"gw-large"}\n'),
        ("GET /v1beta/models/claude-opus-4", "application/json", b'{"name":"models/gw-large","version":"1"}'),
        (
            "POST /v1beta/models/claude-opus-4:generateContent",
            "application/json",
            b'{"modelVersion":"gw-large","model":1}',
        ),
        (
            "POST /v1beta/models/claude-opus-4:streamGenerateContent",
            "application/json",
            b'[{"modelVersion":"gw-large"}]',
        ),
    ],
)
def test_names_are_restored_where_the_api_has_them_under_any_type(
    mapping: Shared, endpoint: str, kind: str, body: bytes
) -> None:
    proxy, upstream = mapping
    upstream.script = Reply(200, body, (("Content-Type", kind),))
    method, target = endpoint.split()
    sent = b'{"model":"claude-opus-4"}' if method == "POST" else b""
    answer = ask(proxy, Case("", method=method, target=target, body=sent))
    assert answer.body == body.replace(b"gw-large", b"claude-opus-4")


def test_results_of_a_batch_show_the_clients_names_if_only_one_is_possible(
    engine: Engine, recorder: StartRecorder
) -> None:
    line = b'{"custom_id":"a","result":{"type":"succeeded","message":{"model":"%s"}}}\n'
    names = {
        b"gw-exact": b"claude-exact",
        b"vendor/claude-opus-4.8": b"claude-opus-4-8",
        b"gw-small": b"gw-small",
        b"gw-large": b"gw-large",
        b"other": b"other",
    }
    body, expected = (b"".join(map(line.__mod__, each)) for each in (names.keys(), names.values()))
    upstream = recorder(Reply(200, body, (("Content-Type", "application/x-jsonl"),)))
    entries = "claude-exact: gw-exact, claude-haiku-*: gw-small, 'claude-*-4-*': 'vendor/claude-{1}-4.{2}'"
    proxy = engine(Case("", f"models: {{map: {{{entries}}}, default: gw-large}}").rules(upstream.url))
    answer = ask(proxy, Case("", method="GET", target="/v1/messages/batches/b_1/results", body=b""))
    assert answer.body == expected


@pytest.mark.parametrize("sent", ["gw-large", "gw-exact", "dated"])
def test_the_model_that_answers_for_another_gets_its_own_name_back(mapping: Shared, sent: str) -> None:
    proxy, upstream = mapping
    upstream.script = json_reply(message(sent))
    answer = ask(proxy, Case("", body=b'{"fallbacks":[{"model":"claude-exact"}],"model":"claude-opus-4"}'))
    names = {"gw-large": "claude-opus-4", "gw-exact": "claude-exact"}
    assert json.loads(answer.body)["model"] == names.get(sent, sent)


@pytest.mark.parametrize("sent", ["gw-exact", "gw-large"])
def test_an_earlier_response_shows_the_clients_name_if_only_one_is_possible(
    mapping: Shared, sent: str
) -> None:
    proxy, upstream = mapping
    upstream.script = json_reply(message(sent))
    answer = ask(proxy, Case("", method="GET", target="/v1/responses/resp_1", body=b""))
    assert json.loads(answer.body)["model"] == {"gw-exact": "claude-exact"}.get(sent, sent)


def test_a_name_that_the_rule_did_not_change_stays(mapping: Shared) -> None:
    proxy, upstream = mapping
    upstream.script = json_reply(message("gw-large-2026"))
    answer = ask(proxy, Case("", body=b'{"model":"gw-large"}'))
    assert json.loads(answer.body)["model"] == "gw-large-2026"
