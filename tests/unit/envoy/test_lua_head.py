"""Decisions about a request head in the exported filter: the same as the addon's."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, unquote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mitm_gateway.envoy.re2 import model_regex
from mitm_gateway.exchange import client_keys, plan
from mitm_gateway.exchange.headers import stripped, without_token_betas
from mitm_gateway.exchange.query import edited_target
from mitm_gateway.exchange.record import Record
from mitm_gateway.llm.calls import form_on, has_two_readings, identify
from mitm_gateway.llm.errors import error_body, error_headers
from mitm_gateway.rules.edits import Beta, Models
from mitm_gateway.rules.patterns import Glob
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text.printable import shown_name
from mitm_gateway.text.redact import (
    KEY_ENDINGS,
    KEY_NAMES,
    MASK,
    is_api_key_header,
    is_key_header,
    masked_text,
)
from mitm_gateway.wire import addresses
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival, Fields, as_bytes, as_text
from support.builders import make_head, make_rule, make_ruleset
from support.constants import API
from support.lua import Library, data_of
from support.table import table


def joined(*pieces: str, size: int = 8) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=size).map("".join)


PATHS = joined(
    "/", "/", "//", ".", "..", ";", ";x", "\\", "%2e", "%2F", "%25", "%41", "%zz", "%", "a", "é", ":m", "@1", ":",
    "/v1", "/messages", "/batches", "/results", "/count_tokens", "/model/", "/models/", "/tunedModels/", "/invoke",
    "/converse-stream", "/openai/deployments/", "/chat/completions", "/responses", "/realtime", "/operations/",
    ":generateContent", ":countTokens", ":rawPredict", "count-tokens", "/images", "/cachedContents", "M", "b",
)  # fmt: skip
METHODS = st.sampled_from(["GET", "POST"])
BLANKS = ("", " ", "\t", "\u00a0", "\u2003", "\u3000", "\x1c", "\x85")
VALUES = joined(
    *BLANKS, "Bearer ", "basic ", "Token ", "token", "Bearer", CK := "sk-ant-x", "key", "dummy", "NONE", "-", "dXNlcjpw",
    "dXNlcjpw4g==", "OmtleQ==", "=", "é", "\udcff", size=4,
)  # fmt: skip


ODD_PATHS = (
    PATHS
    | joined("/", "/models/", "messages", "%20", "%00", "%09", "%7f", "#", "%3F", "%252F", ";", "%5C", "m")
    | st.sampled_from(["%aa", "models/%C3%25A9:generateContent", "models/%FF:generateContent"])
).map("/".__add__)
ENCODED = joined(
    "%C3", "%A9", "%E2", "%82", "%AC", "%F0", "%9F", "%ED", "%A0", "%FF", "%00", "é", "a", "%zz", "%", "+"
) | st.just("claude%FF%C3")
PROTOCOLS = joined(
    *BLANKS, ",", ",", ".", "a", "realtime", "openai-insecure-api-key.", "OpenAI-Insecure-API-Key.x", "token", "é",
)  # fmt: skip
BETA_LISTS = joined(*BLANKS, ",", ",", "a", "oauth-2025-04-20", "OAuth-x", "b", "é")


def left_in(name: bytes, strip: Callable[[Fields], Fields]) -> Callable[[str], bytes | None]:
    """Return a function that returns what stripping leaves of this field."""
    return lambda value: dict(strip(((name, as_bytes(value)),))).get(name)


def query_value(model: str) -> str:
    """Return a model as the addon writes it into a query."""
    call = identify("api.openai.com", "GET", "/v1/realtime")
    return call.query_with("?model=x", model).removeprefix("?model=")


# Functions of the filter that take a text alone, the addon's, and texts.
TWINS: dict[str, tuple[Callable[[str], Any], st.SearchStrategy[str]]] = {
    "text.normal_path": (addresses.normal_path, PATHS),
    "text.unquoted_text": (unquote, ENCODED),
    "head.has_odd_segments": (addresses.has_odd_segments, PATHS),
    "head.lenient_path": (addresses.lenient_path, ODD_PATHS),
    "head.query_text": (unquote_plus, ENCODED),
    "head.quoted_value": (query_value, st.text(max_size=9) | st.just("a/b c:@é%")),
    "head.beta_names": (
        lambda value: [name.strip() for name in value.split(",") if name.strip()],
        BETA_LISTS,
    ),
    "head.without_token_betas": (left_in(b"anthropic-beta", without_token_betas), BETA_LISTS),
    "keys.bare_key": (client_keys.bare_key, VALUES),
    "keys.websocket_keys": (lambda value: list(client_keys.protocol_keys(value)), PROTOCOLS),
    "keys.without_websocket_key": (left_in(b"sec-websocket-protocol", stripped), PROTOCOLS),
}


@pytest.mark.parametrize("name", TWINS)
@given(data=st.data())
def test_a_text_is_read_alike(lua: Library, name: str, data: st.DataObject) -> None:
    twin, texts = TWINS[name]
    found, wanted = lua.call(name, text := data.draw(texts)), twin(text)
    if isinstance(wanted, list):
        assert list(found.values()) == list(map(as_bytes, wanted))
    else:
        assert found == (as_bytes(wanted) if isinstance(wanted, str) else wanted)


@given(ODD_PATHS, METHODS)
def test_paths_with_two_readings_are_known_alike(lua: Library, path: str, method: str) -> None:
    wanted = has_two_readings(make_head(path, method=method))
    assert bool(lua.call("head.has_two_readings", method, addresses.normal_path(path))) == wanted


@given(PATHS, METHODS, st.sampled_from(["gw", "a/b c", "é"]))
def test_requests_are_identified_alike(lua: Library, path: str, method: str, model: str) -> None:
    path = addresses.normal_path("/" + path)
    wanted, call = identify(API, method, path), lua.call("head.identify", method, path)
    assert (call[b"endpoint"][b"form"] or form_on(API).encode()) == wanted.form.encode()
    assert bool(call[b"endpoint"][b"counts_tokens"]) == (wanted.api.local == "count_tokens")
    if wanted.span is None:
        assert call[b"first"] is None
        return
    assert (call[b"first"] - 1, call[b"last"] - 1) == byte_span(path, *wanted.span)
    assert lua.call("head.path_with", path, call, model) == as_bytes(wanted.path_with(model))


def planned(rule: Rule) -> plan.Plan:
    found = plan.decide(make_ruleset(rule), make_head("/"), Arrival())
    assert isinstance(found, plan.Plan)
    return found


def byte_span(path: str, start: int, end: int) -> tuple[int, int]:
    return len(as_bytes(path[:start])), len(as_bytes(path[:end]))


@given(
    st.sampled_from(["anthropic", "openai", "gemini", "bedrock"]),
    st.text(max_size=9),
    st.none() | st.text(min_size=1, max_size=9),
)
@pytest.mark.parametrize("status", [400, 401, 403, 413, 502])
def test_errors_look_alike(lua: Library, status: int, form: Any, reason: str, rule: str | None) -> None:
    refusal = Refusal(status, reason, rule)
    body, headers = lua.call(
        "head.refusal", form, status, as_bytes(reason), None if rule is None else as_bytes(rule)
    )
    assert body == error_body(refusal, form)
    wanted = error_headers(refusal, form) | {":status": str(status)}
    assert dict(headers.items()) == {as_bytes(name): as_bytes(value) for name, value in wanted.items()}


@given(
    joined("/", "sk-ant-0123456789abcdef0123", f"AIza{'0123456789abcdef' * 2}ghi", "%2F", "desk-", "v1", "é")
)
def test_a_logged_path_shows_no_key_that_the_addon_masks(lua: Library, path: str) -> None:
    shown = as_text(lua.call("logged.masked", path))
    assert shown == MASK or (shown == path and masked_text(path) == path)


@given(
    joined("\x1b]0;t\x07", "\x9b", "\r\n", "\n", "\t", "\x7f", "\u061c\u200e\u2028\u202e\u2066", "\ud800", "\U000e0041",
           "é€🙂", "claude-x", "\xa0\xad\u2065", "m" * 100, "\x00" * 90)
)  # fmt: skip
@example("m" * 256)
@example("m" * 257)
@example("é" * 256)
def test_a_logged_name_is_printable_and_short_alike(lua: Library, name: str) -> None:
    shown: bytes = lua.call("logged.shown", name.encode("utf-8", "surrogatepass"))
    assert shown.decode() == shown_name(name)


def test_a_logged_name_shows_no_key(lua: Library) -> None:
    assert as_text(lua.call("logged.shown", "sk-ant-0123456789abcdef0123")) == MASK


@given(st.text(min_size=1, max_size=9).filter(lambda name: "*" not in name))
@example("é %b")
def test_a_models_name_is_a_value_that_its_route_matches(lua: Library, name: str) -> None:
    value = lua.call("text.as_value", name).decode("ascii")
    assert value.isprintable()
    assert re.fullmatch(model_regex([Glob(name)]), f"={value}")


@given(st.lists(VALUES, max_size=3))
def test_the_clients_key_is_chosen_alike(lua: Library, values: list[str]) -> None:
    wanted = client_keys.key_to_move(make_head(headers=[("x-api-key", value) for value in values]))
    found = lua.call("keys.real_key", [client_keys.bare_key(value) for value in values])
    assert found == (None if wanted is None else as_bytes(wanted))


@table("name", sorted({*KEY_NAMES, *KEY_ENDINGS, "X-Api-Key", "authorization", "a", "api-keys"}))
def test_slots_for_keys_have_the_same_names(lua: Library, name: str) -> None:
    found = [bool(lua.call(f"keys.{function}", name)) for function in ("is_key_name", "is_api_key_name")]
    assert found == [is_key_header(name), is_api_key_header(name)]


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_keys_are_equal_only_to_themselves(lua: Library, key: bytes, value: bytes) -> None:
    assert lua.call("keys.equals", key, value) == (key == value)


QUERIES = joined(
    "&", "&", ";", "=", "=x", "key", "KEY", "%6bey", "-", "_", "%5F", "%255f", "+", "%C2%A0", "api", "access_token", "a",
    "?", "%", "[]", "%5B0", "%00", "%2500x", "page", "sig", "\u212a",
)  # fmt: skip


@given(QUERIES)
@example("a=1;key=x&b;c")
@example("a;api-key=x;b")
def test_keys_in_the_query_are_stripped_alike(lua: Library, query: str) -> None:
    ruleset = make_ruleset(make_rule(auth={"scheme": "none"}))
    found = plan.decide(ruleset, make_head(f"/v1?{query}"), Arrival())
    assert isinstance(found, plan.Plan)
    assert lua.call("keys.sent_query", f"?{query}") == as_bytes(found.target.removeprefix("/v1"))
    moved = client_keys.key_to_move(make_head(f"/v1?{query}"))
    values = lua.execute(
        "return function(query) return keys.query_keys(query, keys.is_api_key_parameter) end"
    )(f"?{query}".encode())
    assert lua.call("keys.real_key", values) == (None if moved is None else as_bytes(moved))


MODEL_QUERIES = joined(
    "&", "&", "=", "model", "models", "deployment", "[]", "%5B%5D", "m%6fdel", "+", "a", "%C3%A9", "é"
)


@given(MODEL_QUERIES, st.sampled_from(["/v1/realtime", "/v1/organization/usage/x", "/v1/chat/completions"]))
@example("a=1&model=gpt&m%6fdel=x", "/v1/realtime")
@example("models%5B%5D=é&models=b", "/v1/organization/usage/x")
def test_models_in_the_query_are_found_alike(lua: Library, query: str, path: str) -> None:
    call = identify("api.openai.com", "GET", path)
    spans = call.query_spans(target := f"{path}?{query}")
    found = lua.call("head.query_places", f"?{query}", call.api.query)
    start = len(as_bytes(path))
    wanted = [byte_span(target, *span) for span in spans]
    assert [(place[1] + start - 1, place[2] + start) for place in found.values()] == wanted


PARAMETERS = joined("&", "=", "a", "ab", "%61", "+", "%C3%A9", "x=y", "b-1", size=10)
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "set": st.dictionaries(st.sampled_from(["a", "é", "b-1"]), st.sampled_from(["1", "a b&c", "é/:"]), min_size=1),
        "remove": st.lists(st.sampled_from(["a*", "x", "*"]), min_size=1, max_size=2),
    },
)  # fmt: skip


@given(PARAMETERS, QUERY.filter(bool))
def test_queries_are_edited_alike(lua: Library, query: str, keys: dict[str, Any]) -> None:
    rule = make_rule(query=keys)
    wanted = edited_target(f"/?{query}", rule.query, {}).removeprefix("/")
    assert lua.call("head.edited_query", f"?{query}", data_of(rule)["query"]) == as_bytes(wanted)


NAMES = ["a", "ab", "b-1", "a-2025", "context-1m", "1m"]
GLOBS = ["a*", "*", "*-*", "b-1", "*1*m", "a*b*", "c**1m"]
ENTRIES = [("a", "x"), ("ab", "b-1"), ("a-*", "x/{1}"), ("*-*", "{2}.{1}{9"), ("*1*m", "{1}{2}"), ("a*b*", "a"),
           ("c**1m", "c-{1}"), ("*", "y"), ("b-1", "ab"), ("*m]", "a-{1}")]  # fmt: skip
LISTS = st.lists(st.sampled_from([*NAMES, *GLOBS]), min_size=1, max_size=2)
BETAS = st.fixed_dictionaries(
    {},
    optional={
        "keep": LISTS, "drop": LISTS, "add": st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
        "rename": st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), min_size=1, max_size=2),
    },
)  # fmt: skip


@given(BETAS, st.lists(st.sampled_from(NAMES), max_size=5))
def test_betas_are_edited_alike(lua: Library, keys: dict[str, Any], names: list[str]) -> None:
    rule = make_rule(beta=keys)
    assert isinstance(rule.beta, Beta)
    kept, changed = lua.call("head.edited_betas", data_of(rule)["beta"], names)
    wanted = list(rule.beta.edited(tuple(names)))
    assert ([as_text(name) for name in kept.values()], changed) == (wanted, wanted != names)


@given(
    st.lists(st.sampled_from(ENTRIES), max_size=4).map(dict),
    st.sampled_from([None, "d"]),
    st.sampled_from(["", "[1m]", "[1M][1m]", "[1m"]),
)
@pytest.mark.parametrize("name", [*NAMES, "", "é"])
def test_models_are_mapped_alike(
    lua: Library, name: str, mapped: dict[str, str], default: str | None, ending: str
) -> None:
    name += ending
    models = Models(map=mapped, default=default)
    data = data_of(make_rule(models={"map": mapped, "default": default}))["models"]
    assert lua.call("model_map.sent_model", data, name) == as_bytes(models.sent_for(name))
    names, record = (name, *NAMES), Record(0.0)
    record.note_models(planned(make_rule(models={"map": mapped, "default": default})), names)
    asked_for = lua.call("model_map.names_by_sent", names, data)
    assert {as_text(sent): as_text(asked) for sent, asked in asked_for.items()} == record.asked_for


@given(
    st.lists(
        st.sampled_from([*ENTRIES, ("*-*", "{2}/{1}/{2}"), ("b-*", "x{1}"), ("a-*-*", "{1}-{2}")]), max_size=4
    ),
    st.sampled_from([None, "d"]),
    st.sampled_from(["d", "x", "x-b", "b/a/b", "b/a/c", "a-b-c", "xé", "é/é/é", ""]),
)
def test_the_names_that_were_asked_for_are_known_alike(
    lua: Library, entries: list[tuple[str, str]], default: str | None, sent: str
) -> None:
    models = Models(map=dict(entries), default=default)
    data = data_of(make_rule(models={"map": dict(entries), "default": default}))["models"]
    for name in (sent, models.sent_for("claude-opus-4-8"), models.sent_for("a")):
        asked = models.names.asked_for(name)
        assert lua.call("model_map.asked_for", data, name) == (None if asked is None else as_bytes(asked))
