"""Tests of mitmproxy that expect the behaviour a safety patch changes, by patch.

`run.py` runs each of them again with all other patches: it must then pass.
"""

_HTTP = "test/mitmproxy/proxy/layers/http"

# Error pages are JSON that quotes nothing; these tests look for HTML, or for the quoted message. mitmproxy makes the page
# in the connection, which knows no flow: a malformed request has none, and a page that quotes its bytes may quote a key.
# So the host's own page cannot be kept for the flows that no rule takes.
_PAGES = (
    "test_http.py::test_body_size_limit", "test_http.py::test_drop_stream_with_paused_events",
    "test_http.py::test_http_proxy_relative_request_no_host_header", "test_http.py::test_http_server_aborts",
    "test_http.py::test_invalid_content_length", "test_http.py::test_memory_usage_errored_flows",
    "test_http.py::test_proxy_chain", "test_http.py::test_request_smuggling",
    "test_http.py::test_request_smuggling_response", "test_http.py::test_request_smuggling_te_te",
    "test_http.py::test_request_smuggling_whitespace", "test_http.py::test_reuse_error",
    "test_http.py::test_server_unreachable", "test_http2.py::test_upstream_error",
    "test_http3.py::test_upstream_error",
)  # fmt: skip
# A 101 that the request did not ask for, or without WebSocket support on both sides, opens no raw pipe. Whatever the
# client sends through the pipe is forwarded unread, also where no rule took the first request: the next one may name a
# host with rules, and its key would reach another upstream.
_UPGRADES = ("test_http.py::test_upgrade", "test_http1.py::TestClient::test_upgrade")
# A streamed HTTP/2 request without a length is sent to an HTTP/1 upstream in chunks. mitmproxy announces no body and
# sends one, which the upstream reads as the next request: smuggling, whether a rule took the request or not. When the head
# is sent nobody knows yet that, as in this test, no body follows.
_FRAMING = ("test_http2.py::test_http2_client_aborts",)

INTENDED = {
    "json-error-pages": tuple(f"{_HTTP}/{name}" for name in _PAGES),
    "interim-responses": tuple(f"{_HTTP}/{name}" for name in _UPGRADES),
    "outgoing-head": tuple(f"{_HTTP}/{name}" for name in _FRAMING),
}


def patch_of(test: str) -> str | None:
    """Return the patch that changes the outcome of this test on purpose."""
    function = test.partition("[")[0]
    return next((patch for patch, tests in INTENDED.items() if function in tests), None)
