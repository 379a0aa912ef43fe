"""The gateway in a real mitmdump: credentials, rules files, listeners, and requests that no rule takes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.answers import Close, Reply, Stream, event, insist_on_bearer, json_reply, message, message_events
from support.certificates import Authority
from support.constants import API, CK, ENV, GW, HEADERS, REVERSE, ROOT
from support.one_gateway import MODELS, StartGateway, post, recorded_flow, rules
from support.starters import StartMitmdump, StartRecorder
from support.waiting import wait_until
from support.wire import Wire

pytestmark = pytest.mark.e2e


# ---- credentials, failing closed ----


def test_without_a_credential_the_request_is_refused(gateway: StartGateway) -> None:
    upstream, proxy = gateway(env={})
    answer = post(proxy)
    assert answer.status == 424
    assert answer.header("x-should-retry") == "false"
    assert json.loads(answer.body)["error"]["message"] == (
        'mitm-gateway: credential "gw": the environment variable GW_KEY is not set (rule "gw")'
    )
    assert upstream.raw == b""


def test_a_key_file_is_read_again_when_it_changes(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("first\n")
    upstream = recorder(json_reply(message()))
    text = rules(upstream).replace("{env: GW_KEY}", f"{{file: {key}}}")
    proxy = mitmdump(rules=text, modes=REVERSE)
    post(proxy)
    key.write_text("second-key\n")
    post(proxy)
    assert [request.header("authorization") for request in upstream.requests] == [
        "Bearer first",
        "Bearer second-key",
    ]


def test_unmatched_requests_pass_untouched_when_intercepting(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    gateway = recorder(json_reply(message()))
    original = recorder(Reply(200, b"original"), tls=authority, names=[API])
    proxy = mitmdump(rules=rules(gateway), names={API: original.port}, trust=authority.ca_file, env=ENV)
    headers = [("Host", API), ("x-api-key", CK), ("X-Odd", "1")]
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as client:
        assert client.request("POST", "/api/event_logging", headers, b"{}").body == b"original"
    assert list(original.requests[0].headers)[:3] == headers
    assert gateway.raw == b""


def test_unmatched_requests_that_pass_a_reverse_listener_name_the_target(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    target = recorder(Reply(200, b"target"))
    text = rules(target) + "unmatched: pass\n"
    proxy = mitmdump(rules=text, modes=[f"reverse:{target.url}"], env=ENV)
    with Wire(proxy.port) as client:
        assert client.request("GET", "/other", [("Host", "localhost"), ("X-A", "1")]).body == b"target"
    assert list(target.requests[0].headers) == [("Host", f"127.0.0.1:{target.port}"), ("X-A", "1")]


def test_a_whole_url_at_a_reverse_listener_is_a_path_for_the_upstream(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    target, upstream = recorder(Reply(200, b"target")), recorder(json_reply(message()))
    text = rules(upstream) + "unmatched: pass\n"
    proxy = mitmdump(rules=text, modes=[f"reverse:{target.url}", *REVERSE], env=ENV)
    for port, path in [(proxy.ports[0], "/other"), (proxy.ports[1], "/v1/messages")]:
        place = f"localhost:{port}"
        with Wire(port) as client:
            client.request("POST", f"http://{place}{path}", [("Host", place), ("X-A", "1")], b"{}")
    for received, path in [(target, "/other"), (upstream, "/base/v1/messages")]:
        assert received.raw.startswith(f"POST {path} HTTP/1.1\r\n".encode())
        assert list(received.requests[0].headers)[:2] == [
            ("Host", f"127.0.0.1:{received.port}"),
            ("X-A", "1"),
        ]


def test_hosts_without_rules_may_stay_undecrypted(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    gateway = recorder(json_reply(message()))
    other = recorder(Reply(200, b"other"), tls=authority, names=["other.test"])
    proxy = mitmdump(
        *("--set", "gateway_intercept=rules"),
        rules=rules(gateway),
        names={"other.test": other.port},
        trust=authority.ca_file,
        env=ENV,
    )
    # The other host's own certificate comes through; the proxy's stands for the rule's host only.
    with Wire.through(proxy.port, "other.test:443", authority.ca_file) as client:
        assert client.request("GET", "/", [("Host", "other.test")]).body == b"other"
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as client:
        headers = [("Host", API), ("x-api-key", CK)]
        assert client.request("POST", "/v1/messages", headers, b"{}").status == 200
    assert gateway.requests[0].header("authorization") == f"Bearer {GW}"
    assert CK.encode() not in gateway.raw


def test_the_demo_gateway_needs_no_account(mitmdump: StartMitmdump) -> None:
    shipped = ROOT / "rules.yaml"
    proxy = mitmdump(rules=shipped.read_text(), modes=REVERSE)
    answer = post(proxy, b'{"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"ping"}]}')
    assert answer.status == 200, proxy.output()
    assert "You said: ping" in json.loads(answer.body)["content"][0]["text"]


def test_the_shipped_rules_take_a_real_gateway_from_two_variables(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    shipped = ROOT / "rules.yaml"
    upstream = recorder(insist_on_bearer(GW, then=lambda request: json_reply(message())))
    env = {"GATEWAY_URL": f"{upstream.url}/anthropic", "GATEWAY_API_KEY": GW}
    proxy = mitmdump(rules=shipped.read_text(), modes=REVERSE, env=env)
    assert post(proxy).status == 200
    assert upstream.requests[0].path == "/anthropic/v1/messages"


def test_a_dead_upstream_is_502_in_json(gateway: StartGateway) -> None:
    _, proxy = gateway(Close())
    answer = post(proxy)
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["type"] == "api_error"


# ---- rules files ----

WRONG = """
rules:
  - name: a
    match: {hots: x.test}
    upstraem: https://h.test
"""


def test_a_wrong_file_at_start_ends_the_program_with_every_problem(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(rules=WRONG, modes=REVERSE, wait=False)
    assert proxy.wait_for_exit() == 1
    assert 'rules.yaml:4:13: unknown key "hots"' in proxy.output()
    assert 'rules.yaml:5:5: unknown key "upstraem" in rule "a" (did you mean "upstream"?)' in proxy.output()


def test_a_missing_file_at_start_ends_the_program(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    option = ("--set", f"gateway_rules={tmp_path / 'nowhere.yaml'}")
    proxy = mitmdump(*option, modes=REVERSE, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "nowhere.yaml" in proxy.output()


def test_an_edit_takes_effect_without_a_restart(gateway: StartGateway) -> None:
    upstream, proxy = gateway()
    post(proxy)
    proxy.write_rules(rules(upstream, auth="{scheme: x-api-key, credential: gw}"))
    proxy.wait_for_output("(?s)rules? in force.*rules? in force")
    post(proxy)
    assert [request.header("x-api-key") for request in upstream.requests] == [None, GW]


def test_a_bad_edit_keeps_the_rules_in_force_and_the_next_good_one_applies(gateway: StartGateway) -> None:
    upstream, proxy = gateway()
    file, good = proxy.rules_file, rules(upstream)

    def become_a_folder() -> None:
        file.unlink()
        file.mkdir()

    bad_edits: dict[str, Callable[[], object]] = {
        "wrong": lambda: proxy.write_rules(WRONG),
        "half": lambda: file.write_text(good[: len(good) // 2] + "{"),
        "empty": lambda: file.write_text(""),
        "deleted": file.unlink,
        "a folder": become_a_folder,
    }

    def applies(scheme: str) -> bool:
        return post(proxy).status == 200 and bool(upstream.requests[-1].values(scheme))

    for number, (name, edit) in enumerate(bad_edits.items(), start=1):
        edit()
        proxy.wait_for_output(rf"(?s)(the rules in force stay.*){{{number}}}")
        assert post(proxy).status == 200, name
        if file.is_dir():
            file.rmdir()
        scheme, header = ("x-api-key", "x-api-key") if number % 2 else ("bearer", "authorization")
        proxy.write_rules(rules(upstream, auth=f"{{scheme: {scheme}, credential: gw}}"))
        wait_until(partial(applies, header), proxy.output)


def test_a_request_under_way_keeps_the_rules_it_began_with(gateway: StartGateway) -> None:
    events = message_events("gw-large")
    upstream, proxy = gateway(Stream(events), MODELS)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b'{"model":"claude-opus-4"}')
        upstream.wait_for_request()
        proxy.write_rules(rules(upstream))
        proxy.wait_for_output("(?s)rules? in force.*rules? in force")
        upstream.release(len(events))
        answer = client.read_response("POST")
    assert answer.body == b"".join(events).replace(b"gw-large", b"claude-opus-4")


# ---- listeners, loaded flows ----


def test_the_listener_is_on_loopback_by_default(gateway: StartGateway) -> None:
    _, proxy = gateway(listen_host=None)
    # From Python 3.12 on, mitmproxy binds before the addon can say where; the listener is then narrowed while it is open.
    proxy.wait_for_output(r"listening at 127\.0\.0\.1:\d+\.|reachable at 127\.0\.0\.1 only")
    assert post(proxy).status == 200


def test_loaded_flows_are_not_touched(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(json_reply(message()))
    file, again = tmp_path / "flows", tmp_path / "again"
    plain = mitmdump("-w", str(file), script=None, modes=[f"reverse:{upstream.url}"])
    post(plain, b'{"model":"claude-opus-4"}')
    plain.stop()
    text = rules(upstream).replace(API, "127.0.0.1")
    proxy = mitmdump("-n", "-r", str(file), "-w", str(again), rules=text, env=ENV, wait=False)
    proxy.wait_for_exit()
    before, after = recorded_flow(file), recorded_flow(again)
    assert after.request.headers.fields == before.request.headers.fields
    assert after.comment == before.comment == ""
    assert GW.encode() not in again.read_bytes()


def test_another_addons_response_is_left_alone(gateway: StartGateway, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from mitmproxy import http\n"
        "def requestheaders(flow):\n    flow.response = http.Response.make(418, b'teapot')\n"
    )
    upstream, proxy = gateway(None, "", "-s", str(other))
    answer = post(proxy)
    assert (answer.status, answer.body) == (418, b"teapot")
    assert upstream.raw == b""


def test_a_stream_without_a_model_passes_through_unchanged(gateway: StartGateway) -> None:
    events = (event("ping"), b": comment\n\n", b"data: not json\n\n")
    _, proxy = gateway(Stream(events, gated=False), MODELS)
    assert post(proxy, b'{"model":"claude-opus-4"}').body == b"".join(events)
