"""mitmproxy's connection log never contains a peer's bytes, however a line is cut."""

import logging
from typing import Any

import pytest
from mitmproxy.proxy import server
from mitmproxy.proxy.layers.http import _http_h2

from mitm_gateway.mitm.log_filter import Unquoted, unquote_peers
from support.constants import GW
from support.table import table


def logged(message: str) -> str:
    record = logging.LogRecord("mitmproxy.proxy.server", logging.DEBUG, "", 0, message, None, None)
    assert Unquoted().filter(record)
    return record.getMessage()


def test_an_exception_is_logged_without_the_bytes_that_it_names(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test.of.logs")
    log.addFilter(Unquoted())
    log.error("crashed", exc_info=AssertionError(f"unexpected event: RequestData({GW.encode()!r})"))
    assert "unexpected event: RequestData(b'…')" in caplog.text
    assert "gateway-key" not in caplog.text


@pytest.mark.parametrize("module", [server, _http_h2])
def test_everything_that_mitmproxy_logs_about_a_connection_is_unquoted(
    module: Any, caplog: pytest.LogCaptureFixture
) -> None:
    unquote_peers(True)
    module.logger.error("received %r", GW.encode())
    unquote_peers(False)
    assert "received b'…'" in caplog.text


@table("quote", ["", "'"])
def test_a_line_that_mitmproxy_cut_inside_a_literal_contains_no_key(quote: str) -> None:
    # With proxy_debug a line ends after 256 or 2048 characters, wherever that is: a length such as a port's
    # digits decides whether that is inside the quoted head.
    head = f"POST /{quote} HTTP/1.1\r\nauthorization: Bearer {GW}\r\nx: \\{quote}\r\n\r\n".encode()
    whole = f">> SendData(Server({{'address': ('gw.test', 443)}}), {head!r})"
    for length in range(len(whole)):
        assert "gateway-key" not in logged(whole[:length] + "…"), length
    assert "gateway-key" not in logged(whole)


def test_the_text_around_the_bytes_is_still_logged() -> None:
    assert logged(r"a b'x\'y' c b\"z\" d") == "a b'…' c b\\\"z\\\" d"
    assert logged("error: b'a' and \"c\" of the client's") == "error: b'…' and \"c\" of the client's"


def test_a_log_line_acts_on_no_terminal() -> None:
    assert logged("closed: \x1b]0;title\x07\x9b\u202e").isprintable()


def test_a_log_line_keeps_only_the_names_of_a_query() -> None:
    line = "Request(POST api.anthropic.com:443/v1/messages?api_key=plain-word&alt=sse) …"
    assert logged(line) == "Request(POST api.anthropic.com:443/v1/messages?api_key=****&alt=sse) …"
