"""The same cases through mitmdump and through an exported Envoy."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from behaviour.case import MODELS, Case
from behaviour.cases import CASES
from behaviour.engines import ENGINES, Started, started
from mitm_gateway.text.redact import KEY_ENDINGS, KEY_NAMES, MASK, masked_header
from support.answers import Reply, Seen, Stream, insist_on_bearer, json_reply, message, message_events
from support.bodies import overgrown
from support.constants import API, CK, GW, JSON
from support.fixture_types import RunClaude
from support.http_client import Http2Client, Response, Wire, pseudo_headers
from support.mitmdump import Mitmdump
from support.recorder import Recorder
from support.table import table

pytestmark = pytest.mark.e2e

Engine = Callable[..., Started]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Start an engine with the rules of a case: `engine(case, body_limit=…, clients=…)`."""
    with ExitStack() as opened:
        yield lambda case, **options: opened.enter_context(started(request, case.rules, **options))


def ask(proxy: Any, case: Case, number: object = "") -> Response:
    has_host = any(name == "Host" for name, _ in case.headers)
    headers = [
        *([] if has_host else [("Host", "localhost")]),
        *case.headers,
        ("Content-Type", "application/json"),
    ]
    with Wire(proxy.port) as client:
        return client.request(case.method, case.target, [*headers, ("X-Case", str(number))], case.body)


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


@pytest.fixture(params=ENGINES)
def all_cases(request: pytest.FixtureRequest) -> Iterator[Started]:
    """One engine with the rules of every case; one engine for each would take minutes."""
    with started(request, rules_of_all) as (proxy, upstream):
        upstream.script = json_reply(message("gw-large"))
        yield proxy, upstream


PLAIN = """
  - name: plain
    match: {host: api.anthropic.com}
    upstream: UPSTREAM
    auth: {scheme: bearer, credential: gw}
"""


@pytest.fixture(scope="module", params=ENGINES)
def mapping(request: pytest.FixtureRequest) -> Iterator[Started]:
    """One engine with a rule that maps models and a plain one, for all tests that say what its upstream answers."""
    rules = Case("", MODELS, match="path: [/v1/**, /v1beta/**, /api/**]", more=PLAIN).rules
    with started(request, rules) as shared:
        yield shared


@dataclass(frozen=True)
class OverHttp2:
    """A connection over HTTP/2, and how its requests name the listener."""

    scheme: str
    authority: str
    client: Http2Client

    def ask(self, case: Case, number: int) -> Response:
        headers = [(name.lower(), value) for name, value in case.headers if name != "Transfer-Encoding"]
        if all(name != "content-type" for name, _ in headers):
            headers.append(("content-type", "application/json"))
        head = pseudo_headers(self.authority, case.target, case.method, self.scheme)
        return self.client.request([*head, ("x-case", str(number)), *headers], case.plain_body)


@pytest.fixture
def over_http2(all_cases: Started) -> Iterator[list[OverHttp2]]:
    """A connection in clear, and one through TLS where the engine takes that."""
    proxy, _ = all_cases
    with ExitStack() as opened:
        wire = opened.enter_context(Wire(proxy.port))
        connections = [OverHttp2("http", "localhost", Http2Client(wire))]
        if isinstance(proxy, Mitmdump):
            wire = Wire.through(proxy.ports[1], f"{API}:443", proxy.ca_cert, alpn=("h2",))
            connections.append(OverHttp2("https", API, Http2Client(opened.enter_context(wire))))
        yield connections


def assert_handled(case: Case, answer: Response, sent: Sequence[Seen], upstream: Recorder) -> None:
    """Assert that the client got this answer, and the upstream received the request as the case says."""
    assert answer.status == case.status, answer.body
    if case.status != 200:
        error = json.loads(answer.body)["error"]
        assert error["message"].startswith("mitm-gateway: ")
        assert case.status != 400 or error["type"] == "invalid_request_error"
        assert answer.header("x-should-retry") == "false"
    if case.answer is not None:
        assert answer.body == case.answer
        assert answer.header("content-type") == ("application/json" if case.answer else None)
    assert [asked.target for asked in sent] == ([] if case.sent_target is None else [case.sent_target])
    for asked in sent:
        assert {name: asked.header(name) for name in case.sent_headers} == case.sent_headers
        assert asked.body == (case.plain_body if case.sent_body is None else case.sent_body)
        assert asked.header("host") == f"127.0.0.1:{upstream.port}"


# One test, as these engines start slowly.
@table(("number", "case"), enumerate(CASES))
def test_the_engine_handles_the_case_over_http1_and_http2(
    all_cases: Started, over_http2: list[OverHttp2], number: int, case: Case
) -> None:
    proxy, upstream = all_cases
    ways: list[Callable[[], Response]] = [lambda: ask(proxy, case, number)]
    if all(name not in ("Host", "Upgrade") for name, _ in case.headers):
        ways += [partial(connection.ask, case, number) for connection in over_http2]
    for ask_once in ways:
        before = len(upstream.requests)
        assert_handled(case, ask_once(), upstream.requests[before:], upstream)


def test_every_name_that_the_views_mask_is_stripped(mapping: Started) -> None:
    proxy, upstream = mapping
    upstream.script = json_reply(message())
    names = sorted({*KEY_NAMES, *KEY_ENDINGS, *(f"X-{ending}" for ending in KEY_ENDINGS)})
    assert all(MASK in masked_header(name, "hunter2") for name in names)
    for at in range(0, len(names), 40):  # Envoy takes a hundred fields
        some = names[at : at + 40]
        target = f"/plain/messages?{'&'.join(f'{name}=hunter2' for name in some)}&a=1"
        case = Case("", target=target, headers=tuple((name, "hunter2") for name in some))
        assert ask(proxy, case).status == 200
        assert upstream.requests[-1].target == "/plain/messages?a=1"
    assert b"hunter2" not in upstream.raw


def test_a_client_key_counts_in_every_slot_and_is_removed(engine: Engine, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    clients.write_text(f"other-key\n{CK}\n")
    clients.chmod(0o600)
    proxy, upstream = engine(Case("", auth="{scheme: keep}"), clients=str(clients))
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


@table("size", [1, 7, 64, 4096])
def test_a_stream_gets_the_clients_model_name_across_any_cut(mapping: Started, size: int) -> None:
    proxy, upstream = mapping
    whole = (
        b"".join(message_events("gw-large")).replace(b'"model"', b'"mod\\u0065l"', 1) + b'data: {"model":"gw'
    )
    upstream.script = Stream(tuple(whole[at : at + size] for at in range(0, len(whole), size)), gated=False)
    answer = ask(proxy, Case("", body=b'{"model":"claude-opus-4"}'))
    assert answer.body == whole.replace(b'"gw-large"', b'"claude-opus-4"')


@table(("target", "restored"), [("/plain/messages", b"gw-large"), ("/v1/messages", b"claude-opus-4")])
def test_each_event_arrives_before_the_next_is_sent(mapping: Started, target: str, restored: bytes) -> None:
    proxy, upstream = mapping
    events = message_events("gw-large")
    upstream.script = Stream(events)
    with Wire(proxy.port) as client:
        client.send_request("POST", target, [("Host", "localhost")], b'{"model":"claude-opus-4"}')
        client.read_head()
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk() == expected.replace(b"gw-large", restored)
        assert client.read_chunk() == b""


@table("chunked", [False, True])
def test_a_json_answer_is_restored_and_the_connection_stays_usable(mapping: Started, chunked: bool) -> None:
    proxy, upstream = mapping
    body, headers = json.dumps(message("gw-s", "x" * 5000)).encode(), (JSON, ("X-Odd", "a,b"))
    whole, pieces = Reply(200, body, headers), Stream((body[:40], body[40:]), gated=False, headers=headers)
    upstream.script = pieces if chunked else whole
    with Wire(proxy.port) as client:
        for name in (b"claude-opus-longer", b"claude-opus-" + b"m" * 300):  # which logs cut
            got = client.request("POST", "/v1/messages", [("Host", "localhost")], b'{"model":"%s"}' % name)
            assert got.body == body.replace(b"gw-s", name)
            assert got.header("x-odd") == "a,b"


def test_a_body_over_the_limit_is_413(engine: Engine) -> None:
    proxy, upstream = engine(Case("", MODELS, more=PLAIN), body_limit=65536)
    body = b'{"model":"a","x":"' + b"a" * 200_000 + b'"}'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for target, framing, sent in (
        ("/v1/messages", (), body),
        ("/v1/messages", (("Transfer-Encoding", "chunked"),), chunked),
        ("/plain/messages", (), body),
    ):
        with Wire(proxy.port) as client:
            answer = client.request("POST", target, [("Host", "localhost"), *framing], sent)
        assert answer.status == 413, target
        assert json.loads(answer.body)["error"]["type"] == "request_too_large"
    assert upstream.raw == b""


def test_a_body_small_as_text_and_large_as_data_is_413(mapping: Started) -> None:
    proxy, upstream = mapping
    before = len(upstream.raw)
    with Wire(proxy.port) as client:
        answer = client.request("POST", "/v1/messages", [("Host", "localhost")], overgrown(b"[]," * 200_000))
    assert answer.status == 413
    assert "too many arrays, objects" in json.loads(answer.body)["error"]["message"]
    assert len(upstream.raw) == before


@pytest.mark.parametrize("body", [b"RIFF\0\xff", '{"a":1}'.encode("utf-16"), b'{"a":1]\xc0', b'{"model":1}'])
def test_the_reason_names_bytes_that_are_no_text_first(mapping: Started, body: bytes) -> None:
    proxy, _ = mapping
    answer = ask(proxy, Case("", body=body))
    assert answer.status == 400
    assert ("is not UTF-8" in json.loads(answer.body)["error"]["message"]) == (b"model" not in body)


def test_claude_code_gets_its_answer(mapping: Started, run_claude: RunClaude) -> None:
    proxy, upstream = mapping
    upstream.script = insist_on_bearer(GW)
    before = len(upstream.requests)
    done = run_claude({"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": CK})
    assert (done.returncode, done.stdout) == (0, "hello there\n"), (done, proxy.output())
    asked = [each for each in upstream.requests[before:] if each.path == "/base/v1/messages"]
    assert {each.json["model"] for each in asked} <= {"gw-small", "gw-large"}
    assert asked
    assert CK.encode() not in upstream.raw


def test_names_are_restored_between_events_without_one(mapping: Started) -> None:
    proxy, upstream = mapping
    quiet = b'event: x\ndata: {"text":"a \\"model\\" of it"}\n\n'
    named = b'data: {"model":"gw-large","text":"\\u00e9"}\n\n'
    # The name is alone on its line, which looks harmless by itself.
    split = b'data: {"model":\ndata: "gw-large"}\n\n'
    whole = named + quiet * 50 + split + quiet + named.replace(b"\n", b"\r\n") + quiet + named
    upstream.script = Stream((whole, quiet + named), gated=False)
    answer = ask(proxy, Case("", body=b'{"model":"claude-opus-4"}'))
    assert answer.body == (whole + quiet + named).replace(b'"gw-large"', b'"claude-opus-4"')


RESTORED = (
    ("POST /v1/messages", "application/octet-stream", b'data: {"model":"gw-large"}\n\n'),
    ("POST /v1/messages", "text/event-stream", b'{"x":1,"model":"gw-large"}'),
    ("POST /api/chat", "application/x-ndjson", b'{"model":"gw-large"}\n{"x":1,"model":"gw-large"}\n'),
    ("GET /v1beta/models/claude-opus-4", "application/json", b'{"name":"models/gw-large","version":"1"}'),
    ("POST /v1beta/models/claude-opus-4:generateContent", "application/json", b'{"modelVersion":"gw-large","model":1}'),
    ("POST /v1beta/models/claude-opus-4:streamGenerateContent", "application/json", b'[{"modelVersion":"gw-large"}]'),
)  # fmt: skip


@table(("endpoint", "kind", "body"), RESTORED)
def test_names_are_restored_where_the_api_has_them_under_any_type(
    mapping: Started, endpoint: str, kind: str, body: bytes
) -> None:
    proxy, upstream = mapping
    upstream.script = Reply(200, body, (("Content-Type", kind),))
    method, target = endpoint.split()
    sent = b'{"model":"claude-opus-4"}' if method == "POST" else b""
    answer = ask(proxy, Case("", method=method, target=target, body=sent))
    assert answer.body == body.replace(b"gw-large", b"claude-opus-4")


def test_results_of_a_batch_show_the_clients_names_if_only_one_is_possible(engine: Engine) -> None:
    line = b'{"custom_id":"a","result":{"type":"succeeded","message":{"model":"%s"}}}\n'
    names = {
        b"gw-exact": b"claude-exact",
        b"vendor/claude-opus-4.8": b"claude-opus-4-8",
        b"gw-small": b"gw-small",
        b"gw-large": b"gw-large",
        b"other": b"other",
    }
    body, expected = (b"".join(map(line.__mod__, each)) for each in (names.keys(), names.values()))
    entries = "claude-exact: gw-exact, claude-haiku-*: gw-small, 'claude-*-4-*': 'vendor/claude-{1}-4.{2}'"
    proxy, upstream = engine(Case("", f"models: {{map: {{{entries}}}, default: gw-large}}"))
    upstream.script = Reply(200, body, (("Content-Type", "application/x-jsonl"),))
    answer = ask(proxy, Case("", method="GET", target="/v1/messages/batches/b_1/results", body=b""))
    assert answer.body == expected


TWO_MODELS = Case("", body=b'{"fallbacks":[{"model":"claude-exact"}],"model":"claude-opus-4"}')
EARLIER = Case("", method="GET", target="/v1/responses/resp_1", body=b"")
UNCHANGED = Case("", body=b'{"model":"gw-large"}')


@table(
    ("case", "sent", "received"),
    [
        # The model that answers for another gets its own name back.
        (TWO_MODELS, "gw-large", "claude-opus-4"),
        (TWO_MODELS, "gw-exact", "claude-exact"),
        (TWO_MODELS, "dated", "dated"),
        # An earlier response shows the client's name if only one is possible.
        (EARLIER, "gw-exact", "claude-exact"),
        (EARLIER, "gw-large", "gw-large"),
        # A name that the rule did not change stays.
        (UNCHANGED, "gw-large-2026", "gw-large-2026"),
    ],
)
def test_a_response_shows_the_name_that_the_client_knows(
    mapping: Started, case: Case, sent: str, received: str
) -> None:
    proxy, upstream = mapping
    upstream.script = json_reply(message(sent))
    assert json.loads(ask(proxy, case).body)["model"] == received
