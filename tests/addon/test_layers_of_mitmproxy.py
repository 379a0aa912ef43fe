"""The four invariants as properties: mutated requests and answers through mitmproxy's own layers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import HealthCheck, assume, currently_in_test_context, event, given, settings
from hypothesis import strategies as st
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.save import Save
from mitmproxy.test import taddons

from mitm_gateway.mitm.addon import GatewayAddon
from support.constants import API, CK, CK_MARK, GW, GW_MARK
from support.layers import Connection

UPSTREAM = ("127.0.0.1", 9)  # in clear, so that no TLS layer stands between; nothing is really connected
RULES = f"""
credentials: {{gw: {{env: TEST_GW_KEY}}}}
rules:
  - name: gw
    match: {{host: {API}}}
    upstream: http://127.0.0.1:9
    auth: {{scheme: bearer, credential: gw}}
    models: {{map: {{claude-x: gw-model}}}}
"""
BODY = b'{"model":"claude-x","messages":[]}'
LINE = b"POST /v1/messages HTTP/1.1"
KEY = f"x-api-key: {CK}".encode()
REST = f"Host: {API}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n".encode()
ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"model":"gw-model"}'
)
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3d\r\nevent: message_start\ndata: {"message":{"model":"gw-model"}}\n\n\r\n0\r\n\r\n'
)
WAYS: dict[str, dict[str, Any]] = {
    "tunnel": {"target": (API, 443), "sni": API},
    "reverse": {"target": (API, 443), "mode": f"reverse:https://{API}"},
    "transparent": {"target": ("203.0.113.7", 443), "sni": API, "mode": "transparent"},
    "plain": {},
}
TRICKS = [b"\r\n", b"\n", b"\0", b" ", b"\t", b":", b"@", b"//", b"/..", b"%2e", b"\r\n ", b"HTTP/1.0", b"CONNECT",
          b"Transfer-Encoding: chunked\r\n", b"Host: evil.test\r\n", b"Expect: 100-continue\r\n", b"?key=",
          b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"\\u006d", b'"model":"x",']  # fmt: skip
# Into a head only: what stands in a body is the client's own, and kept.
SECOND_KEY = f"\r\nAuthorization: Bearer {CK}\r\n".encode()
many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Gateway:
    """The addon among mitmproxy's own, with flows written to a file, and a loop to run it in."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self._run, self._save, self._addon = runner.run, Save(), GatewayAddon()
        self._flows, self._seen = folder / "flows", 0
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        self._run(self._start(str(rules)))

    async def _start(self, rules: str) -> None:
        self._context = taddons.context(Proxyserver(), self._addon, self._save, NextLayer())
        self._context.__enter__()
        self._context.configure(self._addon, gateway_rules=rules)
        self._context.options.update(save_stream_file=str(self._flows))
        self._addon.running()

    def close(self) -> None:
        async def stop() -> None:
            self._addon.done()

        self._run(stop())
        self._context.__exit__(None, None, None)

    def exchange(
        self, sent: bytes, answer: bytes, cut: int, answer_cut: int = 65536, **way: Any
    ) -> Connection:
        """A client sends this in pieces and hangs up; an upstream answers that, in pieces too."""

        async def run() -> Connection:
            connection = Connection(self._context, answer=answer, cut=answer_cut, **way)
            await connection.start()
            for place in range(0, len(sent), cut):
                await connection.receive(sent[place : place + cut])
            await connection.close()
            return connection

        return self._run(run())

    def check(self, connection: Connection, *, is_plain: bool = False, breaks_answer: bool = False) -> None:
        """I1 to I4, as far as one connection shows them."""
        elsewhere = {address for address in connection.sent if address != UPSTREAM}
        # A plain client may name any host: what it sends there is its own matter.
        assert not elsewhere or is_plain, elsewhere
        assert not any(host == API for host, _ in elsewhere)
        assert not any(GW_MARK.encode() in connection.sent[address] for address in elsewhere), "I2"
        assert CK_MARK.encode() not in connection.sent.get(UPSTREAM, b""), "I1"
        assert GW_MARK.encode() not in connection.got, "I3"
        # Over HTTP/2 mitmproxy tells a client in GOAWAY what of its own it did not like.
        assert CK_MARK.encode() not in connection.got or connection.client.alpn == b"h2", "I3"
        kept = self._kept()
        assert GW_MARK.encode() not in kept, "I3"
        # Where a plain client names another host, or none that can be read, no rule has anything to hide.
        assert CK_MARK.encode() not in kept or (is_plain and not connection.sent.get(UPSTREAM)), "I3"
        refused = connection.got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert not refused or breaks_answer or not any(connection.sent.values()), "I4"
        if currently_in_test_context():
            event("refused" if refused else "served" if connection.got else "silence")

    def _kept(self) -> bytes:
        assert self._save.stream is not None
        self._save.stream.fo.flush()
        with self._flows.open("rb") as file:
            file.seek(self._seen)
            kept = file.read()
        self._seen += len(kept)
        return kept

    def serves_the_next(self) -> None:
        """I4: whatever came before, the next request works."""
        sent = b"\r\n".join((LINE, KEY, REST, BODY))
        connection = self.exchange(sent, ANSWER, 4096, **WAYS["tunnel"])
        self.check(connection)
        assert b'{"model":"claude-x"}' in connection.got
        assert f"Authorization: Bearer {GW}\r\n".encode() in connection.sent[UPSTREAM]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setenv("TEST_GW_KEY", GW)
    with asyncio.Runner() as runner:
        gateway = Gateway(tmp_path, runner)
        yield gateway
        gateway.close()


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, *tricks: bytes) -> bytes:
    """Bytes with a few changed, put in, taken out or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        place, length = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(0, 6))
        doubled = st.just(bytes(data[place : place + 40]))
        data[place : place + length] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([*TRICKS, *tricks]), doubled)
        )
    return bytes(data)


@pytest.mark.parametrize("name", WAYS)
@many
@given(data=st.data(), cut=st.sampled_from([1, 7, 4096]))
def test_any_request_is_made_what_the_rule_says_or_goes_nowhere(
    gateway: Gateway, name: str, data: st.DataObject, cut: int
) -> None:
    plain = name == "plain"
    line = data.draw(mutated(LINE.replace(b"/v1", f"http://{API}/v1".encode()) if plain else LINE))
    # The key stays in its header: behind the end of a head it would be a part of the body, the client's own.
    assume(b"\n" not in line and b"\r" not in line)
    sent = (line, KEY, data.draw(mutated(REST, SECOND_KEY)), data.draw(mutated(BODY)))
    gateway.check(gateway.exchange(b"\r\n".join(sent), ANSWER, cut, **WAYS[name]), is_plain=plain)
    gateway.serves_the_next()


@many
@given(data=st.data(), whole=st.sampled_from([ANSWER, EVENTS]))
def test_any_answer_ends_without_a_trace_of_a_key(
    gateway: Gateway, data: st.DataObject, whole: bytes
) -> None:
    sent = b"\r\n".join((LINE, KEY, REST, BODY))
    connection = gateway.exchange(sent, data.draw(mutated(whole)), 4096, **WAYS["tunnel"])
    gateway.check(connection, breaks_answer=True)
    gateway.serves_the_next()


@many
@given(data=st.data())
def test_any_request_over_http2_is_made_what_the_rule_says_or_goes_nowhere(
    gateway: Gateway, data: st.DataObject
) -> None:
    head = [(":method", "POST"), (":scheme", "https"), (":path", "/v1/messages"), (":authority", API)]
    fields = [(name.encode(), data.draw(mutated(value.encode()))) for name, value in head]
    names = [b"host", b"te", b"connection", b"content-length", b"x-a", *(name for name, _ in fields)]
    values = [b"", b"evil.test", b"trailers", b"5", *(value for _, value in fields)]
    for _ in range(data.draw(st.integers(0, 2))):
        new = data.draw(st.sampled_from(names)), data.draw(mutated(data.draw(st.sampled_from(values))))
        fields.insert(data.draw(st.integers(0, len(fields))), new)
    key = (data.draw(st.sampled_from([b"x-api-key", b"authorization", b"cookie", b"api_key"])), CK.encode())
    h2 = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    h2.initiate_connection()
    in_trailer = data.draw(st.booleans())
    h2.send_headers(1, fields if in_trailer else [*fields, key])
    h2.send_data(1, data.draw(mutated(BODY)), end_stream=not in_trailer)
    if in_trailer:
        h2.send_headers(1, [key], end_stream=True)
    way = {**WAYS["tunnel"], "alpn": b"h2"}
    gateway.check(gateway.exchange(h2.data_to_send(), ANSWER, 4096, **way))
    gateway.serves_the_next()


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
INTERIM = {
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "continue without a reason": b"HTTP/1.1 100\r\n\r\n",
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "hints": HINTS,
    "unknown": b"HTTP/1.1 199 Odd\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
    "line feeds": HINTS.replace(b"\r\n", b"\n"),
    "blanks": b"HTTP/1.1  103\tHints\r\n\r\n",
    "many": HINTS * 50,
}


@pytest.mark.parametrize("answer", [ANSWER, EVENTS], ids=["json", "events"])
@pytest.mark.parametrize("cut", [1, 7, 65536])
@pytest.mark.parametrize("name", INTERIM)
def test_an_interim_answer_is_not_taken_for_the_answer(
    gateway: Gateway, name: str, cut: int, answer: bytes
) -> None:
    sent = b"\r\n".join((LINE, KEY, REST, BODY))
    connection = gateway.exchange(sent, INTERIM[name] + answer, 4096, answer_cut=cut, **WAYS["tunnel"])
    gateway.check(connection)
    alone = gateway.exchange(sent, answer, 4096, **WAYS["tunnel"])
    assert unchunked(connection.got) == unchunked(alone.got)
    assert alone.got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"claude-x" in alone.got


def unchunked(message: bytes) -> tuple[bytes, bytes]:
    """The head and the whole body of a chunked message."""
    head, _, rest = message.partition(b"\r\n\r\n")
    body = b""
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return head, body


def test_after_an_interim_answer_the_connection_serves_the_next(gateway: Gateway) -> None:
    sent = b"\r\n".join((LINE, KEY, REST, BODY)) * 3
    connection = gateway.exchange(sent, HINTS + ANSWER, 4096, **WAYS["tunnel"])
    assert connection.got.count(b"HTTP/1.1 200 OK") == connection.got.count(b"claude-x") == 3
    assert b"HTTP/1.1 1" not in connection.got


@pytest.mark.parametrize("cut", [1, 65536])
def test_an_unasked_switch_of_protocols_does_not_open_a_pipe(gateway: Gateway, cut: int) -> None:
    # What the client sends next would go upstream as it is, its key with it.
    sent = b"\r\n".join((LINE, KEY, REST, BODY)) * 2
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"
    connection = gateway.exchange(sent, switch, 4096, answer_cut=cut, **WAYS["tunnel"])
    gateway.check(connection, breaks_answer=True)
    assert connection.got.startswith(b"HTTP/1.1 502 ")
    gateway.serves_the_next()


def test_a_key_that_is_a_word_of_http_does_not_spoil_the_framing(gateway: Gateway) -> None:
    # It is masked before mitmproxy has looked whether the answer is chunked and must be ended.
    sent = b"\r\n".join((LINE, b"x-api-key: chunked", REST, BODY)) * 2
    connection = gateway.exchange(sent, EVENTS, 4096, **WAYS["tunnel"])
    assert connection.got.count(b"0\r\n\r\n") == connection.got.count(b"claude-x") == 2
