"""One normal form of hosts, authorities and upstream URLs."""

import contextlib

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.wire.addresses import (
    AmbiguousHost,
    Upstream,
    has_odd_segments,
    is_loopback,
    is_metadata_address,
    normal_host,
    normal_path,
    parse_authority,
)
from support.table import table


@table(
    ("text", "ascii_form"),
    [
        ("gateway.straße.example", "gateway.xn--strae-oqa.example"),
        ("FAẞ.example", None),
        ("ΣΑΣ.faß.example", "xn--mxa9ab.xn--fa-hia.example"),
        ("λόγος.example", "xn--oxapnm1c.example"),
        ("a\u200cb.example", None),
        ("a\xadb.example", None),
        ("a\u2024b.example", None),
        ("a\u115fb.example", None),
    ],
)
def test_a_host_with_two_readings_is_refused_with_the_clients_one(text: str, ascii_form: str | None) -> None:
    with pytest.raises(AmbiguousHost) as raised:
        normal_host(text)
    spelling = f'"{ascii_form}"' if ascii_form else "its ASCII form (xn--…)"
    assert str(raised.value).endswith(f"; expected {spelling}")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4))
def test_an_accepted_host_is_the_one_that_clients_read(label: str) -> None:
    text = f"a{label}b.example"
    try:
        found = normal_host(text)
    except ValueError:
        return
    with contextlib.suppress(idna.IDNAError):  # a name that clients cannot ask for
        assert found == idna.encode(text, uts46=True).decode()


@table(
    "text",
    ["169.254.169.254", "fe80::a9fe:a9fe%eth0", "::ffff:169.254.169.254", "fd00:ec2::254", "fd20:ce::254",
     "100.100.100.200", "168.63.129.16", "192.0.0.192"],
)  # fmt: skip
def test_metadata_addresses_of_clouds_are_known(text: str) -> None:
    assert is_metadata_address(text)


@table("text", ["8.8.8.8", "127.0.0.1", "100.100.100.201", "fd00::1"])
def test_other_addresses_are_not_metadata(text: str) -> None:
    assert not is_metadata_address(text)


@table(
    ("text", "expected"),
    [
        ("API.Anthropic.COM", "api.anthropic.com"),
        ("api.anthropic.com.", "api.anthropic.com"),
        ("ａpi.anthropic.com", "api.anthropic.com"),
        ("münchen.test", "xn--mnchen-3ya.test"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0::1]", "::1"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
    ],
)
def test_hosts_have_one_normal_form(text: str, expected: str) -> None:
    assert normal_host(text) == expected


@table(
    "text",
    ["", ".", "a..b", "a b", "a/b", "a:b", "a@b", "a#b", "a%00b", "-a", "a-", "a\n", "127.1", "1", "0x7f.1", "a" * 254],
)  # fmt: skip
def test_invalid_hosts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        normal_host(text)


@table(
    ("text", "expected"),
    [
        ("a.test", ("a.test", None)),
        ("a.test:443", ("a.test", 443)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::1]", ("::1", None)),
    ],
)
def test_authorities_are_parsed(text: str, expected: tuple[str, int | None]) -> None:
    authority = parse_authority(text)
    assert (authority.host, authority.port) == expected


@table("text", ["a.test:", "a.test:99999", "a.test:-1", "::1", "a:b:c", "a.test:443@evil.test", " a.test"])
def test_invalid_authorities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_authority(text)


@table(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
     ("localhost", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_only_literal_addresses_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@table(
    ("text", "expected"),
    [
        ("https://h.test", "https://h.test"),
        ("https://H.test:443/", "https://h.test"),
        ("https://h.test:8443/a/b/", "https://h.test:8443/a/b"),
        ("http://[::1]:80/x", "http://[::1]/x"),
    ],
)
def test_upstreams_are_parsed(text: str, expected: str) -> None:
    assert str(Upstream.parse(text)) == expected


@table(
    "text",
    ["h.test", "ftp://h.test", "https://", "https://u:p@h.test", "https://h.test?x", "https://h.test#x", "https://h.test/../x",
     "https://h.test/a//b", "https://h .test", "https://h.test\n", "https://h.test:0"],
)  # fmt: skip
def test_invalid_upstreams_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Upstream.parse(text)


@table(
    "path",
    ["/v1//x", "//x", "/a/../b", "/a/.", "/a/%2e%2E/b", "/a/%252e%252e/b", "/a%2f%2fb", "/a%2f..%2fb", "/a\\..\\b",
     "/a/..;x/b"],
)  # fmt: skip
def test_dot_and_empty_segments_are_recognised(path: str) -> None:
    assert has_odd_segments(path)


@table(
    "path", ["/v1/messages", "/v1/", "/", "/a.b/..c/...", "/model/arn%3Aaws%3Abedrock%3A%2Fprofile/invoke"]
)
def test_other_segments_with_dots_are_usual(path: str) -> None:
    assert not has_odd_segments(path)


def test_needless_escapes_are_decoded_for_matching() -> None:
    assert normal_path("/%761/%6d%2F%2e%7E%20%3aa%40") == "/v1/m%2F.~%20:a@"


SEGMENTS = st.lists(st.sampled_from(["v1", "v2", "a", "messages", "v1beta"]), min_size=1, max_size=4)


@given(SEGMENTS, st.lists(st.sampled_from(["v1", "a", "b", "v2"]), max_size=3), st.booleans())
def test_joining_never_doubles_a_slash_or_a_version(path: list[str], base: list[str], slash: bool) -> None:
    upstream = Upstream.parse("https://h.test/" + "/".join(base) + ("/" if slash and base else ""))
    joined = upstream.join("/" + "/".join(path))
    assert "//" not in joined
    same_version = bool(base) and base[-1] == path[0] and base[-1] in ("v1", "v2")
    assert joined == "/" + "/".join([*base, *(path[1:] if same_version else path)])
