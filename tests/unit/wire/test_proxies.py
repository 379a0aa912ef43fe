"""Which proxy a connection uses: the environment as curl reads it."""

import pytest

from mitm_gateway.wire.addresses import UrlScheme
from mitm_gateway.wire.proxies import Proxies, Proxy, bytes_of, is_excepted
from support.table import table


def used(scheme: UrlScheme = "https", host: str = "gw.test", **environ: str) -> str | None:
    proxy = Proxies.of("env", environ).route(scheme, host)
    return None if proxy is None else str(proxy)


@table(
    ("environ", "https", "http"),
    [
        ({"HTTPS_PROXY": "a:1"}, "a:1", None),
        ({"https_proxy": "b:1", "HTTPS_PROXY": "a:1"}, "b:1", None),
        ({"https_proxy": "", "HTTPS_PROXY": "a:1"}, "a:1", None),
        ({"HTTP_PROXY": "a:1"}, None, None),
        ({"http_proxy": "a:1"}, None, "a:1"),
        ({"ALL_PROXY": "a:1"}, "a:1", "a:1"),
        ({"all_proxy": "b:1", "ALL_PROXY": "a:1", "http_proxy": "c:1"}, "b:1", "c:1"),
    ],
)
def test_variables_are_read_as_curl_reads_them(
    environ: dict[str, str], https: str | None, http: str | None
) -> None:
    assert (used("https", **environ), used("http", **environ)) == (https, http)


@table(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "0.0.0.0"]
)
def test_this_machine_is_reached_directly(host: str) -> None:
    assert used(host=host, ALL_PROXY="a:1") is None


@table(
    ("entry", "host", "covers"),
    [
        ("gw.test", "gw.test", True),
        ("gw.test", "a.gw.test", True),
        (".gw.test", "gw.test", True),
        (".gw.test", "b.a.gw.test", True),
        ("GW.test.", "gw.TEST.", True),
        ("gw.test", "notgw.test", False),
        ("*.gw.test", "a.gw.test", False),
        ("*", "anything", True),
        ("a b,gw.test\tc", "gw.test", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/8", "10.200.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/99", "10.0.0.1", False),
        ("0.1", "10.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("gw.test:443", "gw.test", False),
        ("", "gw.test", False),
        (".", "gw.test", False),
    ],
)
def test_no_proxy_has_the_forms_of_curl(entry: str, host: str, covers: bool) -> None:
    assert is_excepted(host.lower().removesuffix("."), entry) is covers
    assert (used(host=host, HTTPS_PROXY="a:1", NO_PROXY=entry) is None) is covers
    assert (used(host=host, HTTPS_PROXY="a:1", no_proxy=entry, NO_PROXY="") is None) is covers


@table(
    ("text", "proxy", "user", "password"),
    [
        ("proxy.test:3128", "proxy.test:3128", None, ""),
        ("http://proxy.test", "proxy.test:1080", None, ""),
        ("HTTPS://proxy.test/", "proxy.test:443", None, ""),
        ("http://u:p%40ss@proxy.test:1/x?y", "proxy.test:1", "u", "p@ss"),
        ("http://u:p@ss@proxy.test:1", "proxy.test:1", "u", "p@ss"),
        ("http://u%3A@[fd00::1]:1", "[fd00::1]:1", "u:", ""),
        ("socks5h://proxy.test", "proxy.test:1080", None, ""),
    ],
)
def test_a_url_is_read_as_curl_reads_it(text: str, proxy: str, user: str | None, password: str) -> None:
    found = Proxy.parse(text, "x")
    assert (str(found), found.user, found.password.reveal()) == (proxy, user, password)


@table(
    "text",
    [
        "http://", "u:secret-1@", "http://a b:1", "http://a:0", "http://a:99999", "http://a:1\n",
        "secret-1://a", "a:b:c",
    ],
)  # fmt: skip
def test_anything_else_is_refused_without_quoting_it(text: str) -> None:
    for setting, environ in (("env", {"all_proxy": text}), (text, {})):
        with pytest.raises(ValueError, match=r"^(all_proxy|gateway_proxy) ") as fault:
            Proxies.of(setting, environ)
        assert "expected" in str(fault.value)
        assert "u:secret" not in str(fault.value)


def test_the_option_names_a_proxy_or_none() -> None:
    environ = {"ALL_PROXY": "a:1", "NO_PROXY": "direct.test"}
    assert Proxies.of("none", environ) == Proxies()
    given = Proxies.of("http://b:1", environ)
    assert (str(given.route("https", "x")), given.route("http", "direct.test")) == ("b:1", None)


def test_a_login_need_not_be_utf_8() -> None:
    for text in ("http://u:%ff@a:1", "http://u:\udcff@a:1"):
        proxy = Proxy.parse(text, "x")
        assert bytes_of(proxy.password.reveal()) == b"\xff"
        assert proxy.url.reveal() == "http://%75:%FF@a:1"


def test_a_password_is_never_shown() -> None:
    proxies = Proxies.of("http://user:pass-word@a:1", {})
    assert proxies.https
    assert "pass-word" not in f"{proxies!r}{proxies.describe()}{proxies.https}{proxies.https.url}"
    assert proxies.https.url.reveal() == "http://%75%73%65%72:%70%61%73%73%2D%77%6F%72%64@a:1"
