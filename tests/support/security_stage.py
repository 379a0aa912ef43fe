"""A gateway between clients and recording upstreams, with the four invariants checked after every case.

I1  No upstream byte contains the client's key when a rule fired or the request was refused.
I2  The gateway's key appears at the rule's upstream only, under the name in its verified certificate.
I3  Neither key is in a byte to the client, nor afterwards in anything that is shown or kept.
I4  What was refused sent no byte upstream, and the next request on a new connection works.
"""

import base64
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from support.answers import Answer, Header, Seen, Stream, json_reply, message, message_events
from support.certificates import Authority
from support.constants import API, CK_MARK, CLIENT_KEY, GW, GW_MARK, JSON
from support.http_client import Http2Client, Response, Wire
from support.mitmdump import Mitmdump
from support.recorder import Recorder

# A client's key for hosts without a rule; the invariants do not cover it.
OWN = "sk-ant-own-business-0123456789"
RULES = f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: gw
    match: {{host: {API}}}
    upstream: https://gw.test
    auth: {{scheme: bearer, credential: gw}}
    models: {{map: {{claude-x: gw-model}}}}
  - name: path
    match: {{host: path.test, path: /v1/**}}
    upstream: https://gw.test/base
    auth: {{scheme: bearer, credential: gw}}
"""
# An address of the attacker's, of a range for documentation (RFC 5737).
ELSEWHERE = "203.0.113.7"
MODES = ("regular", f"reverse:https://{API}")
# The headers of a request through the intercepting listener.
API_HEADERS: tuple[Header, ...] = (("Host", API), CLIENT_KEY, JSON)
BODY = b'{"model":"claude-x","messages":[]}'


def answers(request: Seen) -> Answer:
    """200 to everything, as events where the body asks for a stream."""
    if b'"stream":true' in request.body:
        return Stream(message_events("gw-model"), gated=False)
    return json_reply(message("gw-model"))


class Client(Wire):
    """A client that keeps every received byte."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.tape = bytearray()
        super().__init__(port, host)

    def receive(self, timeout: float = 20.0) -> bytes:
        data = super().receive(timeout)
        self.tape += data
        return data


class Stage:
    """The upstreams, a gateway and its clients. Each case runs inside `case()`."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        *args: str,
        rules: str = RULES,
        modes: Sequence[str] = MODES,
        host: str = API,
        ready: bytes = BODY.replace(b"claude-x", b"gw-model"),
        names: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        http2: bool = True,
        **options: Any,
    ) -> None:
        self.host = host
        self._shown: dict[Path, int] = {}
        self._ready = ready  # what the upstream gets in the request after a case
        self.ends_refusing = False
        self.is_transparent = list(modes) == ["transparent"]

        def upstream(*hosts: str) -> Recorder:
            return Recorder(answers, tls=authority, names=hosts, http2=http2)

        self.gw = upstream("gw.test")
        self.evil = upstream("evil.test", f"{API}.evil.test")
        self.api = upstream(API)
        self.evil_plain = Recorder(answers)
        self.folder = folder
        self.flows, self.har, self.log = (folder / name for name in ("flows", "flows.har", "log.jsonl"))
        self._clients: list[Client] = []
        self._http2: list[Http2Client] = []
        kept = {"hardump": self.har, "gateway_log": self.log, "flow_detail": 4}
        sets = [part for name, value in kept.items() for part in ("--set", f"{name}={value}")]
        self._start = partial(
            Mitmdump,
            folder,
            *("-w", str(self.flows), *sets),
            rules=rules,
            modes=modes,
            names={**self._names(), **(names or {})},
            trust=authority.ca_file,
            env={"GW_KEY": GW, **(env or {})},
            **options,
        )
        self.proxy = self._start(*args)

    def _names(self) -> dict[str, int]:
        """The port of each host that the gateway may dial."""
        tls = {"gw.test": self.gw, f"{API}.evil.test": self.evil, API: self.api}
        tls |= {"evil.test": self.evil, ELSEWHERE: self.evil}
        ports = {f"{host}:443": upstream.port for host, upstream in tls.items()}
        return ports | {f"{host}:80": self.evil_plain.port for host in ("evil.test", ELSEWHERE, API)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def restart(self, *args: str) -> None:
        """Start the gateway again with other arguments."""
        self.proxy.stop()
        self._check_shown()
        self._shown = {}
        self.proxy = self._start(*args)

    # ---- clients ----

    def plain(self) -> Client:
        """An unencrypted connection to the intercepting listener."""
        self._clients.append(Client(self.proxy.ports[0]))
        return self._clients[-1]

    def reverse(self) -> Client:
        """A connection to the reverse listener."""
        self._clients.append(Client(self.proxy.ports[-1]))
        return self._clients[-1]

    def tunnel(
        self, host: str = "", *, sni: str | None = "", alpn: Sequence[str] = ("http/1.1",), port: int = 443
    ) -> Client:
        """TLS in a CONNECT tunnel, or without one to a transparent listener.

        The server name is the host's unless given, `None` sends none.
        """
        host = host or self.host
        client = self.plain()
        if not self.is_transparent:
            answer = client.connect(f"{host}:{port}")
            assert answer.status == 200, answer.body
        client.start_tls(host if sni == "" else sni, self.proxy.ca_cert, alpn)
        return client

    def client(self, way: str) -> Client:
        """A connection by its way: `plain`, `reverse` or `tunnel`."""
        return {"plain": self.plain, "reverse": self.reverse, "tunnel": self.tunnel}[way]()

    def http2(self, host: str = "", **options: Any) -> Http2Client:
        """The same tunnel with HTTP/2."""
        self._http2.append(Http2Client(self.tunnel(host, alpn=["h2"], **options)))
        return self._http2[-1]

    def ask(
        self,
        target: str = "/v1/messages",
        headers: Sequence[Header] | None = None,
        body: bytes = BODY,
        method: str = "POST",
        client: Client | None = None,
    ) -> Response:
        """One request, through a tunnel to the API unless another client is given."""
        sent = [("Host", self.host), CLIENT_KEY, JSON] if headers is None else headers
        return (client or self.tunnel()).request(method, target, sent, body)

    def ask_anyway(self, target: str = "/v1/messages") -> Response:
        """One plain request through the intercepting listener, which needs no tunnel first."""
        with self.plain() as client:
            return self.ask(f"http://{self.host}{target}", client=client)

    @property
    def asked(self) -> Seen:
        """The last request that the rule's upstream got."""
        return self.gw.requests[-1]

    # ---- expectations ----

    def assert_refused(self, answer: Response, status: int) -> None:
        """Assert that the gateway answered in the API's error form and the upstreams received nothing."""
        assert answer.status == status, (answer, self.proxy.output()[-3000:])
        error = json.loads(answer.body)
        assert error["error"]["message"].startswith("mitm-gateway: ")
        assert not any(name.lower().startswith("access-control-") for name, _ in answer.headers)
        self.assert_silence()

    def assert_silence(self) -> None:
        """Assert that no upstream has received a byte since the case began."""
        assert self.arrived() == self._before, "a refused request left something upstream"

    def assert_ends(self, client: Client) -> bytes:
        """Assert that the gateway answers or closes in time; return its answer."""
        deadline, said = time.monotonic() + 5, b""
        with contextlib.suppress(ConnectionError):
            while data := client.receive(max(0.01, deadline - time.monotonic())):
                said += data
        return said

    @contextlib.contextmanager
    def case(self) -> Iterator[Self]:
        """One acceptance case; the invariants are checked at its end."""
        self.warmed_up()
        self._shown = {file: file.stat().st_size for file in self._kept if file.exists()}
        self._hang_up()
        try:
            yield self
            self.gw.script = self.evil.script = answers
            self._check_clients()
            self._check_upstreams()
            self._check_shown()
            self._check_next_request()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for client in self._clients:
            client.close()
        del self._clients[:], self._http2[:]

    def warmed_up(self) -> None:
        """Ignore what upstreams received before now."""
        self._before = self.arrived()

    @property
    def _upstreams(self) -> tuple[Recorder, ...]:
        return self.gw, self.evil, self.api, self.evil_plain

    def arrived(self) -> list[int]:
        """Number of bytes that each upstream has received so far."""
        return [len(upstream.raw) for upstream in self._upstreams]

    def _check_clients(self) -> None:
        for client in self._clients:
            assert_absent(bytes(client.tape), "the client got it")
        for http2 in self._http2:
            assert_absent(repr((http2._heads, http2._chunks)).encode(), "the client got it")

    def _check_upstreams(self) -> None:
        for upstream in self._upstreams:
            assert_absent(_everything_at(upstream), "it went upstream", CK_MARK)
        for upstream in (self.evil, self.api, self.evil_plain):
            assert_absent(_everything_at(upstream), "it went elsewhere", GW_MARK)
        for connection in self.gw.connections:
            assert connection.sni == "gw.test" or not connection.raw

    def _check_shown(self) -> None:
        """Assert that nothing printed or written since the case began contains a key."""
        for file in self._kept:
            if file.exists():
                with file.open("rb") as opened:
                    opened.seek(self._shown.get(file, 0))
                    data = opened.read()
                assert_absent(data, f"{file.name} contains it")
                assert b"Addon error" not in data, data[-3000:].decode(errors="replace")
                assert b"mitmproxy has crashed" not in data

    @property
    def _kept(self) -> list[Path]:
        return [self.flows, self.har, self.log, self.folder / "output.txt"]

    def _check_next_request(self) -> None:
        if self.proxy.process.poll() is not None or self.ends_refusing:
            return
        answer = self.ask()
        assert answer.status == 200, (answer, self.proxy.output()[-3000:])
        assert self.asked.values("authorization") == [f"Bearer {GW}"]
        assert self.asked.body == self._ready

    def close(self) -> None:
        """End the gateway and check everything that it has kept."""
        try:
            self.proxy.stop()
            self._shown = {}
            self._check_shown()
        finally:
            self.proxy.kill()
            for upstream in self._upstreams:
                upstream.close()


def _everything_at(upstream: Recorder) -> bytes:
    """All received bytes, and HTTP/2's headers decoded."""
    return upstream.raw + repr([(seen.target, seen.headers) for seen in upstream.requests]).encode()


def assert_absent(data: bytes, what: str, *marks: str) -> None:
    """Assert that the data contains neither key (or none of these marks), plain or in base64."""
    for mark in marks or (CK_MARK, GW_MARK):
        for form in (mark.encode(), *_in_base64(mark)):
            place = data.find(form)
            assert place < 0, (what, data[max(0, place - 60) : place + 60])


def _in_base64(mark: str) -> Iterator[bytes]:
    """The core of a text's base64 form, for each of the three places where it can begin."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + mark.encode())
        yield encoded[4 if shift else 0 : -4]
