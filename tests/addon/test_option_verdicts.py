"""A verdict on every option of mitmproxy: which ones rules that send a secret cannot be used with."""

from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.addonmanager import Loader
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.web.master import WebMaster

from mitm_gateway.mitm.option_conflicts import WATCHED, broken_promises
from mitm_gateway.mitm.options import add_options
from support.builders import BEARER, make_rule, make_ruleset
from support.constants import API

# A value with which the option is refused.
REFUSED: dict[str, Any] = {
    "allow_hosts": ["evil"],
    "emudhra": True,
    "emudhra_old": True,
    "ignore_hosts": [API],
    "keep_alt_svc_header": True,
    "keep_host_header": False,
    "map_remote": [f"|https://{API}|https://evil.test"],
    "mode": ["reverse:http://203.0.113.7"],
    "modify_body": ["/a/b"],
    "modify_headers": ["/~q/X_Api-Key/other"],
    "proxy_debug": True,
    "proxyauth": "user:word",
    "ssl_insecure": True,
    "stickyauth": ".",
    "stickycookie": ".",
    "store_streamed_bodies": True,
    "stream_large_bodies": "1m",
    "tcp_hosts": [API],
    "udp_hosts": [API],
    "upstream_auth": "user:word",
    "validate_inbound_headers": False,
}
# Options that break no promise, by the reason.
HARMLESS = {
    "answers locally":
        "block_list map_local server_replay server_replay_ignore_content server_replay_ignore_host "
        "server_replay_ignore_params server_replay_ignore_payload_params server_replay_ignore_port "
        "server_replay_kill_extra server_replay_nopop server_replay_refresh server_replay_reuse "
        "server_replay_use_headers",
    "answers locally, or forwards by the rules": "server_replay_extra",
    "asks clients or upstreams for more or for less, and refuses more":
        "add_upstream_certs_to_client_chain anticache anticomp body_size_limit request_client_cert",
    "concerns the user's own certificates, keys and trust":
        "cert_passphrase certs client_certs confdir key_size ssl_verify_upstream_trusted_ca "
        "ssl_verify_upstream_trusted_confdir",
    "connects from or to elsewhere, or sooner; no request is sent":
        "connect_addr connection_strategy dns_name_servers dns_use_hosts_file",
    "display of masked flows":
        "command_history console_focus_follow content_view_lines_cutoff dumper_default_contentview dumper_filter "
        "flow_detail protobuf_definitions show_ignored_hosts showhost view_filter view_order view_order_reversed "
        "web_columns web_theme",
    "ends or keeps open connections or the program": "http2_ping_keepalive keepserving server tcp_timeout",
    "hides no destination: CONNECT and Host name it": "strip_ech",
    "is followed by the final check": "intercept intercept_active rawtcp scripts",
    "leaves peers to the gateway": "block_global block_private listen_host listen_port",
    "loads flows that are not live": "readfile_filter rfile",
    "logs connections without their bytes": "termlog_verbosity",
    "mitmweb, which has a login": "web_debug web_host web_open_browser web_password web_port",
    "runs the rules again, from the original request": "client_replay client_replay_concurrency",
    "selects protocols and the case of headers; every request has a head":
        "http2 http3 http_connect_send_host_header normalize_outbound_headers websocket",
    "serves the CA certificate": "onboarding onboarding_host",
    "stores or exports masked flows":
        "export_preserve_original_ip hardump save_stream_file save_stream_filter web_static_viewer",
    "TLS of upstreams stays verified":
        "ciphers_client ciphers_server tls_ecdh_curve_client tls_ecdh_curve_server tls_version_client_max "
        "tls_version_client_min tls_version_server_max tls_version_server_min upstream_cert",
}  # fmt: skip
RULESET = make_ruleset(
    make_rule(auth=BEARER, upstream="https://gw.test", body={"remove": ["a"]}),
    make_rule("plain", "203.0.113.7", auth=BEARER),
    credentials={"gw": {"env": "GW"}},
)
KEEPING = make_ruleset(make_rule(auth={"scheme": "keep"}))


@pytest.fixture
async def given() -> options.Options:
    """All options of mitmdump and mitmweb, with the gateway's."""
    made = options.Options()
    master = DumpMaster(made, with_termlog=False, with_dumper=False)
    add_options(Loader(master))
    made.update(keep_host_header=True, mode=[f"reverse:https://{API}"])
    return made


async def test_every_option_of_this_mitmproxy_has_a_verdict(given: options.Options) -> None:
    web = options.Options()
    WebMaster(web, with_termlog=False)
    names = {name for name in (*given.keys(), *web.keys()) if not name.startswith("gateway_")}
    harmless = {name for of_a_reason in HARMLESS.values() for name in of_a_reason.split()}
    assert names - REFUSED.keys() - harmless == set()
    assert not REFUSED.keys() & harmless


@pytest.mark.parametrize("name", REFUSED)
async def test_an_option_that_undoes_a_promise_is_refused_and_watched(
    given: options.Options, name: str
) -> None:
    if name not in given:
        pytest.skip("this mitmproxy does not have the option")
    assert list(broken_promises(given, RULESET)) == []
    given.update(**{name: REFUSED[name]})
    problems = list(broken_promises(given, RULESET))
    assert problems
    assert all(name in problem or name == "mode" for problem in problems)
    assert name in WATCHED


@pytest.mark.parametrize("name", ["stickyauth", "stickycookie", "proxyauth", "modify_body", "proxy_debug"])
async def test_without_a_secret_in_the_rules_the_option_may_be_used(
    given: options.Options, name: str
) -> None:
    given.update(**{name: REFUSED[name]})
    assert list(broken_promises(given, KEEPING)) == []


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param({"modify_headers": ["/~q/x-team/blue"]}, id="no rule decides about the header"),
        pytest.param({"block_list": ["|~d evil|403"]}, id="nothing is sent"),
        pytest.param({"map_local": ["|evil|/tmp"]}, id="a local answer"),
        pytest.param({"proxy_debug": True, "gateway_reveal": True}, id="keys are shown anyway"),
        pytest.param({"mode": ["upstream:http://proxy.test"], "upstream_auth": "user:word"}, id="the user's proxy"),
    ],
)  # fmt: skip
async def test_an_option_that_leaves_keys_and_destinations_alone_may_be_used(
    given: options.Options, allowed: dict[str, Any]
) -> None:
    given.update(**allowed)
    assert list(broken_promises(given, RULESET)) == []


@pytest.mark.parametrize(
    "header",
    ["Authorization", "x-goog-api-key", "Cookie", "Host", "Transfer-Encoding", "Access-Control-Allow-Origin"],
)
async def test_modify_headers_cannot_change_what_a_rule_decides(given: options.Options, header: str) -> None:
    given.update(modify_headers=[f"/~q/{header}/value"])
    [problem] = broken_promises(given, RULESET)
    assert header.lower() in problem
