"""The work on text of peers grows with its length, not with the square of it; counted in steps, never in seconds."""

import ast
import gzip
import json
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mitm_gateway.exchange import (
    body_edits,
    client_keys,
    form_body,
    guard,
    headers,
    json_body,
    masked_head,
    plan,
)
from mitm_gateway.exchange.guard import Policy
from mitm_gateway.exchange.restore_model import JsonRestorer, SseRestorer, always
from mitm_gateway.llm import hints
from mitm_gateway.llm.calls import identify
from mitm_gateway.rules import patterns
from mitm_gateway.rules.ruleset import Asked
from mitm_gateway.rules.schema import Auth
from mitm_gateway.text import bounded_json, echoes, printable, redact
from mitm_gateway.wire import addresses, aws_eventstream, content_encoding
from mitm_gateway.wire.request import Arrival, RequestHead
from mitm_gateway.wire.sigv4 import AwsKeys
from mitm_gateway.wire.sse import EventReader
from support.builders import make_head, make_rule, make_ruleset
from support.constants import PACKAGE
from support.counted_work import MAX_RATIO, ratio
from support.regex_steps import CountingPattern

pytestmark = pytest.mark.exhaustive


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def fields(text: str) -> tuple[tuple[bytes, bytes], ...]:
    """Header fields with the text as name, as value, and once for each of its characters."""
    data = raw(text)
    return (
        (data, b"x"),
        (b"x", data),
        (b"connection", data),
        (b"x-api-key", data),
        (b"anthropic-beta", data),
        (b"sec-websocket-protocol", b"api-key.a,token," + data),
        *[(data[:1], b"")] * len(data),
    )


def head(text: str) -> RequestHead:
    return RequestHead("GET", "https", text, 443, text, fields(text), text)


def body(text: str) -> bytes:
    return json.dumps(
        {
            "model": text,
            "tools": [{"name": each} for each in text],
            "a": [text[:1]] * len(text),
            "b": text,
            "anthropic_beta": list(text),
            "metadata": {"user_id": text},
        }
    ).encode()


FORM = "multipart/form-data; boundary=b"


def form(text: str) -> bytes:
    """A form with a part for each character, and one with the text in its headers."""
    parts = [
        f'--b\r\nx: {part}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        for part in (*text[:500], text)
    ]
    return raw("x\r\n".join([*parts, "x\r\n--b--"]))


def token_betas(text: str) -> bytes:
    return json.dumps({"anthropic_beta": ["oauth-2025-04-20", *text]}).encode()


def frame(text: str) -> bytes:
    """Frames of an AWS event stream, one for each character."""
    headers = b"\x01a\x07\x00\x01b"
    payload = raw(text[:1])
    total = 16 + len(headers) + len(payload)
    return (struct.pack(">IIi", total, len(headers), 0) + headers + payload + b"\0" * 4) * len(text)


def form_field(name: str, value: str) -> bytes:
    """A form with one field."""
    return raw(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n--b--')


def renamed_form(data: bytes, content_type: str) -> None:
    """Rename the models of a form."""
    if found := form_body.read_form(data, content_type, MESSAGES):
        assert found.models
        found.renamed(str.upper)


def quietly(function: Callable[..., object], *arguments: Any) -> object:
    """Call a function that may refuse its input."""
    try:
        return function(*arguments)
    except ValueError:
        return None


def feed(reader: Any, data: bytes) -> object:
    """Feed the text at once and in small pieces."""
    reader.feed(data)
    for start in range(0, len(data), 29):
        reader.feed(data[start : start + 29])
    return reader


RULE = make_rule(
    match={"model": "a*b*c", "path": "/**/a*/**", "header": {"x": "*a*"}},
    headers={"set": {"x-a": "1"}, "remove": ["a*b*"]},
    beta={"keep": ["a*"], "add": ["b"]},
    body={"remove": ["a[*].b", "b"], "set": {"c.d": 1}},
    models={"map": {"a*b*c": "d"}},
)
MESSAGES = identify("a.test", "POST", "/v1/messages").api
RULES = make_ruleset(RULE, unmatched="pass")
BY_MODEL = make_ruleset(make_rule(match={"host": "*", "model": "a*b", "header": {"x": "*"}}))
BLOCKED = make_ruleset(RULE, unmatched="block")
KEPT = make_ruleset(make_rule(host="*", auth={"scheme": "keep"}))
CLIENT = Auth.model_validate({"scheme": "bearer", "credential": "client"})
PLAN = plan.Plan(RULE, addresses.Upstream("https", "a.test", 443), False, "/", CLIENT)
AWS_KEYS = AwsKeys("id", redact.Secret("secret"))
POLICY = Policy(origins=frozenset({"https://a.test"}), client_keys=(b"key",))
# For each module, calls that do everything that the module does with a peer's text.
CALLS: dict[str, Callable[[str], object]] = {
    "text.redact": lambda text: (
        redact.masked_fields(fields(text), ["secret", text[:8]]),
        redact.fields_masked_exactly(fields(text), ["secret", text[:8]]),
        redact.masked_target(f"/{text}?{text};{text}&key={text}", ["secret"]),
        redact.without_query_keys(f"/{text}?{text};{text}&{text}=1"),
        redact.masked_header("sec-websocket-protocol", text),
        redact.looks_like_key(text), redact.without_echoes(text, ["secret", text[:8]]),
    ),
    "text.echoes": lambda text: (
        echoes.may_contain_encoded([text], ["a secret"]), echoes.contains_encoded(text, ["a secret", text[:8]]),
        echoes.contains_encoded(text[:40], [text]),
    ),
    "text.printable": lambda text: (
        printable.visible(text), printable.folded(text, 100), printable.indented(text), printable.wrapped(text, 40),
        printable.listed({text: text})
    ),
    "text.bounded_json": lambda text: (bounded_json.readable_part(raw(text)), bounded_json.parsed(body(text)),
                                       bounded_json.is_overgrown(b"[" * (1 << 18) + raw(text))),
    "wire.addresses": lambda text: (
        quietly(addresses.normal_host, text), quietly(addresses.normal_host, f"{text}ß"),
        quietly(addresses.parse_authority, text),
        quietly(addresses.Upstream.parse, f"https://a.test/{text}"), addresses.has_odd_segments(f"/{text}"),
        addresses.lenient_path(f"/{text}"),
        addresses.normal_path(text), quietly(addresses.parse_origin, text), addresses.is_loopback(text),
        addresses.Upstream("https", "a.test", 443, "/v1").join(text),
    ),
    "wire.request": lambda text: (head(text).get(text), head(text).get("x"), head(text).has_odd_path),
    "wire.sse": lambda text: feed(EventReader(), raw(text)),
    "wire.aws_eventstream": lambda text: aws_eventstream.frames(frame(text) + raw(text)),
    "wire.content_encoding": lambda text: (
        quietly(content_encoding.decode, b"", text, 1 << 20),
        *(quietly(content_encoding.decode, raw(text), coding, 1 << 20) for coding in ("gzip", "deflate", "br", "zstd")),
        content_encoding.decode_prefix(gzip.compress(raw(text)), "gzip", 1 << 20),
    ),
    "exchange.guard": lambda text: (
        guard.check_admission(head(text), Arrival("reverse"), POLICY, lambda *_: True),
        guard.check_admission(head(text), Arrival(sni=text), POLICY, lambda *_: False),
        guard.check_client_key(head(text), Arrival(), POLICY), guard.without_proxy_keys(head(text), POLICY),
    ),
    "exchange.client_keys": lambda text: (
        client_keys.every_key_in(head(text)), client_keys.every_key_in(make_head(f"/?{text}&key={text};key=a")),
        client_keys.key_to_move(head(text)), client_keys.key_to_move(make_head(f"/?{text}&key={text};key=a")),
        client_keys.without_gateway_keys(make_head(f"/?{text}&key={text};key=a"), lambda key: key == text),
    ),
    "exchange.masked_head": lambda text: (
                masked_head.MaskedHead(None, f"/{text}", fields(text), ["a secret"]).with_secrets("/", fields(text)),
    ),
    "exchange.headers": lambda text: (
        headers.edited(fields(text), RULE.headers, RULE.beta, {}), headers.stripped(fields(text)),
        headers.without_nominations(fields(text), [text, "x"]),
        headers.outgoing_fields(PLAN, head(text), headers.Secrets()),
        headers.signed_fields(PLAN, head(text), "GET", f"/{text}", fields(text), raw(text), AWS_KEYS),
    ),
    "exchange.plan": lambda text: (
        plan.decide(RULES, head(text), Arrival(), (text,)), plan.decide(BLOCKED, head(text), Arrival()),
        plan.decide(KEPT, head(text), Arrival(replay=True)),
    ),
    "exchange.body_edits": lambda text: (
        body_edits.applied_edits(RULE, json_body.scan(body(text))),
        body_edits.body_bytes(RULE, json_body.scan(token_betas(text)), drops_token=True),
    ),
    "exchange.form_body": lambda text: (
        form_body.read_form(b"--b\r\n" + raw(text) + b"\r\n--b--", f"multipart/form-data; boundary=b{text}", MESSAGES),
        quietly(renamed_form, form(text), FORM),
        quietly(renamed_form, form_field("tools", json.dumps([{"model": each} for each in (*text[:500], text)])), FORM),
        quietly(renamed_form, raw(text), "application/x-www-form-urlencoded"),
    ),
    "exchange.json_body": lambda text: quietly(body_edits.body_bytes, RULE, json_body.scan(body(text), MESSAGES)),
    "exchange.json_scanner": lambda text: (
        feed(JsonRestorer(always(text[:9])), body(text)), feed(JsonRestorer(always("x")), raw(text))
    ),
    "exchange.restore_model": lambda text: (
        feed(SseRestorer(always("x")), b"data: " + json.dumps({"model": text, "a": [text]}).encode() + b"\n\n"),
        feed(SseRestorer(always("x")), raw(text)),
    ),
    "llm.hints": lambda text: [
        hints.hint(hints.Failure(status, "application/json", raw(error), text, text))
        for status in (302, 400, 401, 404)
        for error in (text, f"{text}: Extra inputs are not permitted", f"unknown parameter: {text}")
    ],
    "rules.ruleset": lambda text: (RULES.knows_host(text, 443), BY_MODEL.find(head(text), Asked(text))),
    "rules.patterns": lambda text: (
        patterns.Glob("a*b*c").covers(text), patterns.PathGlob("/**/a*/**").covers(text),
        patterns.HostPattern.parse("*.a.test").covers(text, 443),
    ),
}  # fmt: skip

# Functions with a loop that no text of a peer reaches, or that only some versions of a library need.
NOT_OF_PEERS = {
    "contains", "parse", "tail", "_split_port", "_steps", "described", "values",  # texts of rules
    "__init__",
    "_brotli_bounded", "_brotli_sliced",  # one of them runs
}  # fmt: skip
TEXTS = (
    "x", "a", "/", ";", "&", "=", ",", ".", "%41", " ", "\n", "eyJ", "sk-", '"', "\\\\", "{", "[", "[]", "a-", '"a":',
    "data: ", "model ", "a/", "/a", "\ud800",
)  # fmt: skip
SHORT = 32


def traced(call: Callable[[str], object], text: str) -> tuple[int, set[tuple[str, str]]]:
    """Return how many lines of the package and steps of expressions a call takes, and the functions it enters."""
    lines, entered = 0, set()

    def local(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return local

    def enter(frame: FrameType, _event: str, _arg: Any) -> Any:
        file = frame.f_code.co_filename
        if "/mitm_gateway/" not in file:
            return None
        entered.add((file.rpartition("/mitm_gateway/")[2], frame.f_code.co_name))
        return local

    CountingPattern.taken = 0
    before = sys.gettrace()
    sys.settrace(enter)
    try:
        quietly(call, text)
    finally:
        sys.settrace(before)
    return lines + CountingPattern.taken, entered


@pytest.fixture
def counted_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [one for name, one in sys.modules.items() if name.startswith("mitm_gateway.")]:
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, CountingPattern(value))
            elif isinstance(owner := getattr(value, "__self__", None), re.Pattern):
                monkeypatch.setattr(module, name, getattr(CountingPattern(owner), value.__name__))


@pytest.mark.parametrize("module", CALLS)
@pytest.mark.usefixtures("counted_expressions")
def test_functions_take_linear_work(module: str) -> None:
    def work(text: str) -> int:
        return traced(CALLS[module], text)[0]

    for text in TEXTS:
        assert ratio(work, "", text, SHORT) <= MAX_RATIO, text


def _loops(path: Path) -> Iterator[str]:
    """Yield the names of functions that contain a loop."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and any(
            isinstance(node, ast.For | ast.While | ast.comprehension) for node in ast.walk(function)
        ):
            yield function.name


def test_every_function_with_a_loop_is_measured() -> None:
    # A result in a cache, from any test before, would hide the function.
    modules = [module for name, module in sys.modules.items() if name.startswith("mitm_gateway.")]
    for cached in [
        value for module in modules for value in vars(module).values() if hasattr(value, "cache_clear")
    ]:
        cached.cache_clear()
    entered = set().union(*(traced(call, text * 40)[1] for call in CALLS.values() for text in TEXTS))
    missed = set()
    for name in CALLS:
        file = f"{name.replace('.', '/')}.py"
        measured = {function for where, function in entered if where == file}
        missed |= {(file, one) for one in _loops(PACKAGE / file) if one not in measured | set(NOT_OF_PEERS)}
    assert missed == set()
