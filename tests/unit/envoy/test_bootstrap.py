"""The files of an export: problems with their places, no secrets, and expressions that cover what rules cover."""

import re

import pytest
import yaml

from mitm_gateway.envoy import Listener, Options, files, find_unsupported
from mitm_gateway.envoy.bootstrap import bootstrap
from mitm_gateway.envoy.header_edits import path_edit, removals
from mitm_gateway.envoy.lua_filter import literal
from mitm_gateway.envoy.re2 import header_regex, model_regex, path_regex
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.patterns import Glob, PathGlob
from mitm_gateway.wire.addresses import Upstream
from support.table import table

TOP = """credentials: {gw: {env: GW_KEY}, w: {aws: default}}
rules:
  - name: a
    match: {host: api.anthropic.com}
"""


def problems(rule: str, top: str = TOP) -> list[str]:
    ruleset = parse_rules((top + rule).encode(), "rules.yaml", {"GW_KEY": "secret-of-the-gateway"})
    return [str(problem) for problem in find_unsupported(ruleset, Options())]


@table(
    ("rule", "expected"),
    [
        ("    upstream: demo", 'rules.yaml:5:15: rule "a" has the upstream "demo", which runs in mitmproxy alone; expected "https://…"'),
        (
            "    auth: {scheme: sigv4, service: s, region: r, credential: w}",
            'rules.yaml:5:20: rule "a" has scheme "sigv4", which this export cannot sign with',
        ),
        (
            '    headers: {set: {x-k: "${credential:gw} tail"}}',
            'rules.yaml:5:26: rule "a" puts a credential into "x-k" in a form that Envoy cannot write; '
            'expected it under "set", once, at the end of the value',
        ),
        (
            "    headers: {set: {x-envoy-retry-on: x}}",
            'rules.yaml:5:39: rule "a" sets "x-envoy-retry-on", which Envoy obeys itself',
        ),
        (
            '    headers: {remove: [x-a, "c*"]}',
            'rules.yaml:5:29: rule "a" removes "content-length" by a pattern, which must stay; '
            "expected a narrower pattern",
        ),
        (
            '    beta: {add: [b]}\n    headers: {remove: ["anthropic-*"]}',
            'rules.yaml:5:11: rule "a" edits "anthropic-beta" both here and in "headers"; expected it here only',
        ),
        (
            "  - {name: b, match: {host: other.test}}",
            'rules.yaml:5:29: rule "b" matches a host that no listener serves; expected "--listen PORT=HOST"',
        ),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_exported_is_an_error_with_its_place(rule: str, expected: str) -> None:
    assert problems(rule) == [expected]


def test_no_secret_is_in_any_file() -> None:
    text = TOP + "    upstream: https://h.test\n    auth: {scheme: bearer, credential: gw}\n"
    ruleset = parse_rules(text.encode(), "rules.yaml", {"GW_KEY": "secret-of-the-gateway"})
    exported = files(ruleset, Options())
    assert set(exported) == {"envoy.yaml", "sds/gw.yaml"}
    assert not any("secret-of-the-gateway" in text for text in exported.values())


@table("path", ["/v1/a", "/v1/a/b", "/v1/", "/v1", "/v2/a", "/v1/a.b"])
@table("glob", ["/v1/*", "/v1/**", "/v1/a*", "/**/b", "/v1/a.b"])
def test_a_path_glob_and_its_expression_cover_the_same_paths(glob: str, path: str) -> None:
    assert bool(re.fullmatch(path_regex([PathGlob(glob)]), path)) == PathGlob(glob).covers(path)


def test_model_names_are_compared_in_their_encoded_form() -> None:
    assert re.fullmatch(model_regex([Glob("é-*"), Glob("b%")]), "=%C3%A9-x")
    assert re.fullmatch(model_regex([Glob("é-*"), Glob("b%")]), "=b%25")


def test_a_listener_is_parsed_from_text() -> None:
    assert Listener.parse("8080") == Listener("127.0.0.1", 8080)
    assert Listener.parse("0.0.0.0:80=api.openai.com") == Listener("0.0.0.0", 80, "api.openai.com")
    with pytest.raises(ValueError, match="is not a listener"):
        Listener.parse("here")


def test_a_lua_literal_can_hold_any_character() -> None:
    assert (
        literal({"a": ['q"\\', "\n\x7f", None, True]})
        == '{ ["a"] = { "q\\"\\\\", "\\010\\127", nil, true } }'
    )


def test_a_rule_removes_every_spelling_of_a_key_and_no_pseudo_header() -> None:
    assert not re.fullmatch(header_regex("*path"), ":path")
    assert re.fullmatch(header_regex("x-*"), "x-stainless-os")
    ruleset = parse_rules((TOP + "    auth: {scheme: none}\n").encode(), "rules.yaml", {})
    mutations = removals(ruleset.rules[0], Listener("127.0.0.1", 1), is_page=False)["header_mutation"][
        "mutations"
    ]
    (removal,) = mutations["request_mutations"]
    regex = removal["remove_on_match"]["key_matcher"]["safe_regex"]["regex"]
    assert all(
        re.fullmatch(regex, name) for name in ("x-api-key", "x_api_key", "xapikey", "-api--key", "cookie")
    )
    assert not any(
        re.fullmatch(regex, name) for name in (":path", "x-api-keys", "content-type", "x-keyboard")
    )


@table("path", ["/v1/messages", "/v1", "/v1x/a", "/messages", "/v2/v1", "/v1/"])
@table("base", ["", "/a", "/a/v1", "/v1", "/a.b\\1"])
def test_a_path_is_joined_to_the_base_as_in_the_addon(base: str, path: str) -> None:
    place = Upstream("https", "h.test", 443, base)
    edit = path_edit(place)
    if rewrite := edit.get("regex_rewrite"):
        # RE2 has \\1 and \\\\ as Python has.
        sent = re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], path)
    else:
        sent = edit.get("prefix_rewrite", "/") + path[1:]
    assert sent == place.join(path)


def test_any_reader_of_yaml_reads_the_exported_values() -> None:
    # The filter knows blanks that YAML 1.1, which Kubernetes' tools read, takes for line breaks even in a block.
    ruleset = parse_rules((TOP + '    models: {map: {"é 😀": b}}\n').encode(), "rules.yaml", {})
    text = files(ruleset, Options())["envoy.yaml"]
    assert yaml.safe_load(text) == bootstrap(ruleset, Options())
    assert "inline_string: |\n" in text


def test_silent_connections_to_upstreams_are_kept_alive() -> None:
    ruleset = parse_rules((TOP + "    upstream: https://h.test\n").encode(), "rules.yaml", {})
    for cluster in bootstrap(ruleset, Options())["static_resources"]["clusters"]:
        probes = cluster["upstream_connection_options"]["tcp_keepalive"]
        assert probes == {"keepalive_time": 60, "keepalive_interval": 60, "keepalive_probes": 5}
