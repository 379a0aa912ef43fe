"""No model leaves unmapped, and none is overlooked, in any place that the table of APIs lists."""

import gzip
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.exchange.comment import comment_of
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.plan import Pass
from mitm_gateway.exchange.report import Report
from mitm_gateway.exchange.response_plan import ResponseHead
from mitm_gateway.exchange.steps import Forward, Step
from mitm_gateway.llm.apis import APIS, OTHER, Api, Place
from mitm_gateway.rules.schema import Rule
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival
from support.builders import make_head, make_rule, make_ruleset, sent_by, steps_of
from support.endpoints import endpoints
from support.table import table

HOST = "api.example.com"
MAP = {"client-a": "up-a", "vendor/client-b": "up/b", "client-*": "up-star"}
NAMES = ("client-a", "vendor/client-b", "client-é", "client-a b")
SENT = ("up-a", "up/b", "up-star", "up-star")
MAPS = make_rule("maps", HOST, upstream="https://up.test", models={"map": MAP})
MATCHES = make_rule("matches", HOST, upstream="https://up.test", match={"model": ["client-*", "vendor/*"]})
JSON = {"Content-Type": "application/json"}


def run(
    rule: Rule, method: str, target: str, body: bytes, headers: Mapping[str, str] = JSON
) -> tuple[Step, bytes, Exchange]:
    """Return the last step of a request, the body that leaves, and the exchange."""
    exchange = Exchange(Config(make_ruleset(rule)), Arrival(tls=True, sni=HOST))
    *before, last = steps_of(exchange, make_head(target, dict(headers), method=method, host=HOST), body)
    if not isinstance(last, Forward):
        return last, body, exchange
    head, left = sent_by([*before, last], body)
    return Forward(head), left, exchange


CASES = [(api, method, path) for api in (*APIS, OTHER) if api.request for method, path in endpoints(api)]


def written(place: Place, name: str, text: str = "") -> Any:
    """Return a document with this name at the place."""
    if not place:
        return name
    inner = written(place[1:], name, text)
    return [inner, inner] if place[0] is None else {"text": text, place[0]: inner, "max_tokens": 5}


def is_ambiguous(path: str, name: str) -> bool:
    """Report whether a server that decodes slashes reads a shorter name, as any segment may follow it."""
    return "/" in name and path.endswith("{model}/rest/of/it")


@given(st.sampled_from(CASES), st.data())
def test_no_request_leaves_with_a_name_that_the_map_covers(
    case: tuple[Api, str, str], data: st.DataObject
) -> None:
    api, method, path = case
    number = data.draw(st.integers(0, len(NAMES) - 1))
    name, sent = NAMES[number], SENT[number]
    target = path.replace("{model}", quote(name, safe=data.draw(st.sampled_from(["", ":@"]))))
    if parameter := data.draw(st.sampled_from(["", *api.query])):
        target += f"?x=1&{parameter}={quote(name, safe='')}"
    place = data.draw(st.sampled_from(api.request))
    prefix = data.draw(st.sampled_from(["", "models/"])) if api.has_resource_names else ""
    body = json.dumps(written(place, prefix + name, f"{name} in a text"), ensure_ascii=False).encode()
    step, left, _ = run(MAPS, method, target, body)
    if is_ambiguous(path, name):
        assert isinstance(step, Refusal)
        return
    assert isinstance(step, Forward), step
    assert step.head
    if "{model}" in path or "?" in target:
        assert name not in unquote(step.head.target)
        assert sent in unquote(step.head.target)
    assert json.loads(left) == written(place, prefix + sent, f"{name} in a text")


@given(st.sampled_from(CASES), st.data())
def test_no_request_that_names_a_model_is_matched_as_if_it_named_none(
    case: tuple[Api, str, str], data: st.DataObject
) -> None:
    api, method, path = case
    name = data.draw(st.sampled_from([name for name in NAMES if not is_ambiguous(path, name)]))
    place = data.draw(st.sampled_from(api.request))
    step, _, exchange = run(
        MATCHES,
        method,
        path.replace("{model}", quote(name, safe="")),
        json.dumps(written(place, name)).encode(),
    )
    assert isinstance(step, Forward), step
    assert exchange.plan
    assert exchange.plan.rule is MATCHES
    other, _, _ = run(
        MATCHES, method, path.replace("{model}", "other"), json.dumps(written(place, "other")).encode()
    )
    assert isinstance(other, Pass)


def field_of(place: Place, name: str) -> tuple[str, str]:
    """Return name and value of the form field that has this place, the value as JSON below its first key."""
    key, *below = place
    assert key is not None
    return key, written(tuple(below), name) if not below else json.dumps(written(tuple(below), name))


FORMS = {
    "multipart/form-data; boundary=b": '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n--b--\r\n',
    "application/x-www-form-urlencoded": "a=b&{}={}&c",
}


@given(st.sampled_from(CASES), st.sampled_from(list(FORMS)), st.booleans(), st.data())
def test_no_form_leaves_or_is_matched_without_its_model(
    case: tuple[Api, str, str], kind: str, is_packed: bool, data: st.DataObject
) -> None:
    api, method, path = case
    number = data.draw(st.sampled_from([0, 2]))
    is_urlencoded = "urlencoded" in kind
    places = [
        place for place in api.request if not api.has_resource_names and place[0] == str(place[0]).lower()
    ]
    places = [
        place for place in places if len(place) == 1 or (not is_urlencoded and place != ("model", "id"))
    ]
    if not places or "{model}" in path:
        return
    place = data.draw(st.sampled_from(places))

    def form(name: str) -> bytes:
        key, value = field_of(place, name)
        return FORMS[kind].format(key, quote(value) if is_urlencoded else value).encode()

    raw, sent = form(NAMES[number]), form(SENT[number])
    headers = {"Content-Type": kind, **({"Content-Encoding": "gzip"} if is_packed else {})}
    packed = gzip.compress(raw) if is_packed else raw
    step, left, _ = run(MAPS, method, path, packed, headers)
    assert isinstance(step, Forward), step
    assert json_free(left) == json_free(sent)
    _, _, exchange = run(MATCHES, method, path, packed, headers)
    assert exchange.plan
    assert exchange.plan.rule is MATCHES


def json_free(form: bytes) -> bytes:
    """Return a form in which letters are written alike in JSON and outside."""
    return form.replace("é".encode(), b"\\u00e9")


def way_back(target: str, request: bytes, response: bytes, method: str = "POST") -> bytes:
    rule = make_rule("r", HOST, upstream="https://up.test", models={"map": MAP})
    _, _, exchange = run(rule, method, target, request)
    plan = exchange.on_response_head(ResponseHead(200, ()))
    assert plan
    assert plan.tee
    passed = [plan.tee.feed(response), plan.tee.feed(b"")]
    return b"".join(part for part in passed if isinstance(part, bytes))


def test_of_several_models_each_gets_its_own_name_back() -> None:
    request = b'{"model":"client-a","fallbacks":[{"model":"vendor/client-b"},{"model":"other"}]}'
    names = {b"up-a": b"client-a", b"up/b": b"vendor/client-b", b"other": b"other", b"dated": b"dated"}
    for sent, asked in names.items():
        response = way_back("/v1/messages", request, b'{"model":"%s"}' % sent)
        assert response == b'{"model":"%s"}' % asked


def test_of_names_with_the_same_target_the_first_is_restored() -> None:
    request = b'{"tools":[{"model":"client-b"}],"model":"client-c","models":["client-d"]}'
    assert way_back("/v1/messages", request, b'{"model":"up-star"}') == b'{"model":"client-c"}'


def test_restore_puts_back_only_what_the_rule_changed() -> None:
    answer = b'{"model":"dated-20260101"}'
    assert way_back("/v1/messages", b'{"model":"client-a"}', answer) == b'{"model":"client-a"}'
    assert way_back("/v1/messages", b'{"model":"other"}', answer) == answer
    assert way_back("/v1/messages", b'{"model":null}', answer) == answer


@table(
    ("method", "target", "request_body", "response", "expected"),
    [
        ("GET", "/v1/models/vendor%2Fclient-b", b"", b'{"id":"up/b"}', b'{"id":"vendor/client-b"}'),
        ("POST", "/v1beta/models/client-a:generateContent", b"{}",
         b'{"modelVersion":"up-a"}', b'{"modelVersion":"client-a"}'),
        ("GET", "/v1/responses/resp_1", b"", b'{"model":"up-a"}', b'{"model":"client-a"}'),
        ("GET", "/v1/responses/resp_1?stream=true", b"", b'data: {"response":{"model":"up/b"}}\n\n',
         b'data: {"response":{"model":"vendor/client-b"}}\n\n'),
        ("POST", "/v1/responses/resp_1/cancel", b"", b'{"model":"up-a"}', b'{"model":"client-a"}'),
        ("GET", "/v1/responses/resp_1", b"", b'{"model":"up-star"}', b'{"model":"up-star"}'),
        ("POST", "/v1/responses/compact", b'{"model":"client-x"}', b'{"model":"up-a"}', b'{"model":"client-x"}'),
        ("GET", "/v1/chat/completions", b"", b'{"data":[{"model":"up-a"}]}', b'{"data":[{"model":"client-a"}]}'),
        ("POST", "/v1internal:streamGenerateContent", b'{"model":"client-a","request":{"contents":[]}}',
         b'{"response":{"modelVersion":"up-a"}}', b'{"response":{"modelVersion":"client-a"}}'),
        ("GET", "/v1beta/interactions/i", b"", b'{"model":"up-a"}', b'{"model":"client-a"}'),
        ("GET", "/v1/messages/batches/b/results", b"",
         b'{"result":{"message":{"model":"up-a"}}}\n', b'{"result":{"message":{"model":"client-a"}}}\n'),
    ],
)  # fmt: skip
def test_responses_of_other_apis_get_the_clients_name_back(
    method: str, target: str, request_body: bytes, response: bytes, expected: bytes
) -> None:
    assert way_back(target, request_body, response, method) == expected


@table("case", CASES)
def test_a_name_without_an_entry_is_sent_as_it_is_and_the_comment_says_so(case: tuple[Api, str, str]) -> None:
    api, method, path = case
    for name, is_covered in {"other": False, "up-a": True, "client-a": True}.items():
        target = path.replace("{model}", name) + (f"?{api.query[0]}={name}" if api.query else "")
        body = json.dumps(written(api.request[0], name)).encode()
        step, left, exchange = run(MAPS, method, target, body)
        assert isinstance(step, Forward), step
        assert (left == body) is (name != "client-a")
        comment = comment_of(Report.of(exchange.progress("waiting", None)))
        assert ("no entry in models.map" in comment) is not is_covered


def test_one_name_of_a_batch_without_an_entry_is_mentioned() -> None:
    requests = [{"params": {"model": name}} for name in ("client-a", "other")]
    _, left, exchange = run(MAPS, "POST", "/v1/messages/batches", json.dumps({"requests": requests}).encode())
    assert [each["params"]["model"] for each in json.loads(left)["requests"]] == ["up-a", "other"]
    assert "no entry in models.map" in comment_of(Report.of(exchange.progress("waiting", None)))


@table("path", sorted({path.removeprefix("/base") for *_, path in CASES if "{model}" not in path}))
def test_the_model_of_a_deployment_is_mapped_before_any_path(path: str) -> None:
    step, _, _ = run(MAPS, "POST", f"/openai/deployments/client-a{path}", b"")
    assert isinstance(step, Forward), step
    assert step.head
    assert step.head.target == f"/openai/deployments/up-a{path}"
