"""A verdict on every option of mitmproxy: which ones rules that send a secret cannot be used with."""

from typing import Any

import pytest
from mitmproxy import options
from mitmproxy.addonmanager import Loader
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.web.master import WebMaster

from mitm_gateway.mitm.judged_options import WATCHED
from mitm_gateway.mitm.option_conflicts import broken_promises
from mitm_gateway.mitm.options import add_options
from support.constants import API
from support.core import BEARER, make_rule, make_ruleset

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
# The reason why the option breaks no promise.
HARMLESS = {
    "add_upstream_certs_to_client_chain": "shows clients more certificates",
    "anticache": "removes conditional headers",
    "anticomp": "asks for responses without compression",
    "block_global": "the gateway decides on peers itself",
    "block_list": "answers locally",
    "block_private": "the gateway decides on peers itself",
    "body_size_limit": "refuses more",
    "cert_passphrase": "the user's own key",
    "certs": "the user's own certificates",
    "ciphers_client": "TLS stays verified",
    "ciphers_server": "TLS stays verified",
    "client_certs": "the user's own certificates",
    "client_replay": "rules run again from the original request",
    "client_replay_concurrency": "number of replays at once",
    "command_history": "console",
    "confdir": "folder of the CA",
    "connect_addr": "local address of connections",
    "connection_strategy": "dials early; no request is sent",
    "console_focus_follow": "console",
    "content_view_lines_cutoff": "display",
    "dns_name_servers": "resolver of dns mode",
    "dns_use_hosts_file": "resolver of dns mode",
    "dumper_default_contentview": "display of masked flows",
    "dumper_filter": "display of masked flows",
    "export_preserve_original_ip": "export of masked flows",
    "flow_detail": "display of masked flows",
    "hardump": "stores masked flows",
    "http2": "protocol of clients and upstreams",
    "http2_ping_keepalive": "keeps connections open",
    "http3": "protocol of clients and upstreams",
    "http_connect_send_host_header": "head of CONNECT to the user's own proxy",
    "intercept": "holds masked flows; the final check follows",
    "intercept_active": "holds masked flows; the final check follows",
    "keepserving": "when the program ends",
    "key_size": "size of generated keys",
    "listen_host": "other machines need gateway_clients",
    "listen_port": "port",
    "map_local": "answers locally",
    "normalize_outbound_headers": "case of header names",
    "onboarding": "serves the CA certificate",
    "onboarding_host": "serves the CA certificate",
    "protobuf_definitions": "display",
    "rawtcp": "the final check requires HTTP where rules decide",
    "readfile_filter": "loaded flows are not live",
    "request_client_cert": "asks clients for more",
    "rfile": "loaded flows are not live",
    "save_stream_file": "stores masked flows",
    "save_stream_filter": "stores masked flows",
    "scripts": "the user's own code; the final check follows",
    "server": "stops listening",
    "server_replay": "answers locally",
    "server_replay_extra": "answers locally or forwards by the rules",
    "server_replay_ignore_content": "answers locally",
    "server_replay_ignore_host": "answers locally",
    "server_replay_ignore_params": "answers locally",
    "server_replay_ignore_payload_params": "answers locally",
    "server_replay_ignore_port": "answers locally",
    "server_replay_kill_extra": "answers locally",
    "server_replay_nopop": "answers locally",
    "server_replay_refresh": "answers locally",
    "server_replay_reuse": "answers locally",
    "server_replay_use_headers": "answers locally",
    "show_ignored_hosts": "display",
    "showhost": "display",
    "ssl_verify_upstream_trusted_ca": "the user's own trust",
    "ssl_verify_upstream_trusted_confdir": "the user's own trust",
    "strip_ech": "hides no destination: CONNECT and Host name it",
    "tcp_timeout": "ends connections",
    "termlog_verbosity": "connections are logged without their bytes",
    "tls_ecdh_curve_client": "TLS stays verified",
    "tls_ecdh_curve_server": "TLS stays verified",
    "tls_version_client_max": "TLS stays verified",
    "tls_version_client_min": "TLS stays verified",
    "tls_version_server_max": "TLS stays verified",
    "tls_version_server_min": "TLS stays verified",
    "upstream_cert": "TLS of clients",
    "view_filter": "display",
    "view_order": "display",
    "view_order_reversed": "display",
    "web_columns": "display",
    "web_debug": "mitmweb's own code",
    "web_host": "shows masked flows; mitmweb has a login",
    "web_open_browser": "mitmweb",
    "web_password": "mitmweb's login",
    "web_port": "mitmweb",
    "web_static_viewer": "stores masked flows",
    "web_theme": "display",
    "websocket": "the head of an upgrade is a request like others",
}
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
    assert names - REFUSED.keys() - HARMLESS.keys() == set()
    assert not REFUSED.keys() & HARMLESS.keys()


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
    ("name", "value"),
    [
        ("modify_headers", ["/~q/x-team/blue"]),
        ("block_list", ["|~d evil|403"]),
        ("map_local", ["|evil|/tmp"]),
    ],
)
async def test_an_option_that_leaves_keys_and_destinations_alone_may_be_used(
    given: options.Options, name: str, value: list[str]
) -> None:
    given.update(**{name: value})
    assert list(broken_promises(given, RULESET)) == []


@pytest.mark.parametrize(
    "header",
    ["Authorization", "x-goog-api-key", "Cookie", "Host", "Transfer-Encoding", "Access-Control-Allow-Origin"],
)
async def test_modify_headers_cannot_change_what_a_rule_decides(given: options.Options, header: str) -> None:
    given.update(modify_headers=[f"/~q/{header}/value"])
    [problem] = broken_promises(given, RULESET)
    assert header.lower() in problem


async def test_proxy_debug_may_be_used_where_keys_are_shown_anyway(given: options.Options) -> None:
    given.update(proxy_debug=True, gateway_reveal=True)
    assert list(broken_promises(given, RULESET)) == []


async def test_upstream_auth_may_be_used_for_the_users_own_proxy(given: options.Options) -> None:
    given.update(mode=["upstream:http://proxy.test"], upstream_auth="user:word")
    assert list(broken_promises(given, RULESET)) == []
