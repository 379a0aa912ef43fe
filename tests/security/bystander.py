"""Attacks on the gateway and on Envoy while another client asks: how long it waits, and whether memory returns.

`make bystander` prints the measured figures; ARGS names attacks, all by default. Each attack is sent for 5 s, one request
after the other. It ends with 1 if the gateway worked for more than 0.5 s before it answered the other client, or if
memory stayed.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import multiprocessing
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from support.answers import message
from support.constants import API, ENV
from support.envoy import Envoy, find_envoy
from support.http_client import Wire
from support.mitmdump import Mitmdump
from support.one_rule import MAPPING, one_rule
from support.process_figures import memory_mb

LASTING_S, PAUSE_S = 5.0, 0.05
MAX_WAIT_S = 0.5
# glibc keeps up to twice the largest block that was freed; Envoy's Lua collects its garbage with later requests.
MAX_LEFT_MB = {"mitmproxy": 32, "Envoy": 128}
BODY = b'{"model":"claude-x","messages":[]}'
LETTERS, ANSWER = b"a" * (64 << 10), json.dumps(message()).encode()
HOST = b"Host: localhost\r\nConnection: close\r\n"


class Gateway(Protocol):
    """mitmdump or Envoy."""

    port: int


def request(method: bytes, target: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, HOST, fields, length, body)


def json_request(path: bytes, body: bytes, fields: bytes = b"") -> bytes:
    return request(b"POST", path, b"x-api-key: k\r\nContent-Type: application/json\r\n" + fields, body)


def packed(body: bytes) -> bytes:
    return json_request(b"/v1/messages", gzip.compress(body), b"Content-Encoding: gzip\r\n")


@dataclass(frozen=True)
class Attack:
    """Requests that are sent again and again; unfinished ones hold this many connections open."""

    requests: Callable[[], tuple[bytes, ...]]
    held: int = 0


def _large_names() -> tuple[bytes, ...]:
    model = b"x" * (20 << 20)
    return (
        request(b"GET", b"/v1/models", b"%b: x\r\n" % (b"n" * (1 << 20))),
        request(b"GET", b"http://127.0.0.1:9/" + b"p" * (1 << 20)),
        json_request(b"/v1/messages", b'{"model":"%b"}' % model),
    )


def _deep() -> tuple[bytes, ...]:
    size = 60 << 20
    texts = (b'{"a":' + b"[" * size, b'{"a":[' + b"[]," * (size // 3) + b"0]}")
    paths = (b"/v1/messages", b"/v1/messages/count_tokens")
    return tuple(
        json_request(path, gzip.compress(text), b"Content-Encoding: gzip\r\n")
        for text in texts
        for path in paths
    )


def _forms() -> tuple[bytes, ...]:
    size = 60 << 20
    forms = (
        (b"application/x-www-form-urlencoded", b"a=b&" * (size // 4)),
        (b"application/x-www-form-urlencoded", b"model" + b"[]" * (size // 2) + b"=1"),
        (b"multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n" * (size // 9)),
    )
    return tuple(
        request(
            b"POST",
            b"/v1/messages",
            b"x-api-key: k\r\nContent-Encoding: gzip\r\nContent-Type: %b\r\n" % kind,
            gzip.compress(form),
        )
        for kind, form in forms
    )


def _allowed() -> tuple[bytes, ...]:
    """Return bodies that nearly reach the bounds."""
    texts = (
        b'{"a":"' + b'\\"' * (30 << 20) + b'"}',
        b'{"messages":[' + b'{"aaaaaaaaaaaaaaaaaa":"bbbbbbbbbbbbbbbbb","a":0},' * 390_000 + b"0]}",
        b'{"messages":[' + b'[["%b"]],' % (b"a" * 80) * 660_000 + b"0]}",
    )
    return tuple(
        json_request(b"/v1/messages/count_tokens", gzip.compress(text), b"Content-Encoding: gzip\r\n")
        for text in texts
    )


# By the number of docs/security-cases.md.
ATTACKS = {
    "long-heads": Attack(
        lambda: (
            request(b"GET", b"/" + b"eyJ" * 50_000),
            request(b"GET", b"/" + b"eyJ" * 40_000),
            request(b"GET", b"/models/" + b"@" * 60_000),
            request(b"GET", b"/", b"a:\r\n" * 30_000),
            request(b"GET", b"/", b"a:\r\n" * 100_000),
        )
    ),
    "long-names": Attack(
        lambda: (
            request(b"GET", b"/models/" + b"a" * 57_000),
            request(b"GET", b"/", b"x-api-key: a" + b" " * 57_000 + b"a\r\n"),
        )
    ),
    "large-names": Attack(_large_names),
    "failing-upstream": Attack(lambda: (json_request(b"/fails/v1/messages", BODY),)),
    "deep-bodies": Attack(_deep),
    "many-fields": Attack(_forms),
    "nearly-too-many": Attack(_allowed),
    "unfinished-heads": Attack(lambda: (request(b"GET", b"/", b"x: " + b"a" * (127 << 10))[:-4],), held=600),
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request of a connection: 400 with many letters where the path asks for it."""
    with contextlib.suppress(OSError, EOFError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int((re.search(rb"content-length: *(\d+)", head, re.IGNORECASE) or [0, 0])[1])
            while length > 0:
                length -= len(await reader.read(min(length, 1 << 16)) or b" " * length)
            status, body = (b"400 Bad Request", LETTERS) if b" /fails" in head else (b"200 OK", ANSWER)
            fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
            writer.write(b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, fields, body))
            await writer.drain()
    writer.close()


def upstream(listening: socket.socket) -> None:
    """Serve as the upstream, in a separate process, so that it delays no other part."""

    async def run() -> None:
        server = await asyncio.start_server(serve, sock=listening, limit=1 << 18)
        await server.serve_forever()

    asyncio.run(run())


def attack(port: int, requests: tuple[bytes, ...], held: int, until: float) -> None:
    """Send the requests until then, in a process for itself."""
    with contextlib.ExitStack() as opened:
        for count, data in enumerate(itertools.cycle(requests)):
            if time.monotonic() > until:
                return
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", port), 30)
                if held:
                    opened.callback(client.close)
                client.sendall(data)
                if held:
                    if count >= held:
                        time.sleep(max(0.0, until - time.monotonic()))
                    continue
                while client.recv(1 << 16):
                    pass
                client.close()


def ask(port: int) -> float:
    """Return the seconds that a small request takes, on a separate connection."""
    begin = time.monotonic()
    with Wire(port) as client:
        fields = [("Host", "localhost"), ("x-api-key", "k"), ("Content-Type", "application/json")]
        assert client.request("POST", "/v1/messages", fields, BODY).status == 200
    return time.monotonic() - begin


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used: on a busy machine a wait says little."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(title: str, gateway: Mitmdump | Envoy, name: str) -> bool:
    """Run one attack and print its figures; return whether the bystander was answered in time and memory returned."""
    pid = gateway.process.pid
    found = ATTACKS[name]
    requests = found.requests()
    ask(gateway.port)
    before, highest = memory_mb(pid), 0.0
    until = time.monotonic() + LASTING_S
    attacker = multiprocessing.Process(target=attack, args=(gateway.port, requests, found.held, until))
    attacker.start()
    waits, works = [], []
    while time.monotonic() < until:
        worked = cpu_s(pid)
        waits.append(ask(gateway.port))
        works.append(cpu_s(pid) - worked)
        highest = max(highest, memory_mb(pid))
        time.sleep(PAUSE_S)
    attacker.join(30)
    ended = time.monotonic()
    while (after := memory_mb(pid)) > before + MAX_LEFT_MB[title] and time.monotonic() < ended + 10:
        time.sleep(0.2)
    median = sorted(waits)[len(waits) // 2]
    print(
        f"{title:9} {name:16} {len(waits):3} requests, median {median * 1000:4.0f} ms,"
        f" longest {max(waits) * 1000:4.0f} ms with {max(works) * 1000:4.0f} ms of work,"
        f" memory {before:.0f} MB, at most {highest:.0f}, then {after:.0f} in {time.monotonic() - ended:.1f} s",
        flush=True,
    )
    return max(works) <= MAX_WAIT_S and after <= before + MAX_LEFT_MB[title]


def main(names: list[str]) -> int:
    """Run the attacks on mitmproxy and, where it is installed, on Envoy."""
    names = names or list(ATTACKS)
    passed = []
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listening:
        answering = multiprocessing.Process(target=upstream, args=(listening,), daemon=True)
        answering.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        rules = one_rule(url, f"{MAPPING}\nrespond: {{count_tokens: estimate}}", match="path: /**")
        proxy = Mitmdump(
            Path(folder), "--set", "flow_detail=0", rules=rules, modes=[f"reverse:https://{API}"], env=ENV
        )
        try:
            passed += [watch("mitmproxy", proxy, name) for name in names]
        finally:
            proxy.kill()
        if program := find_envoy():
            (Path(folder) / "envoy").mkdir()
            envoy = Envoy(program, Path(folder) / "envoy", rules, ENV, API)
            try:
                passed += [watch("Envoy", envoy, name) for name in names]
            finally:
                envoy.kill()
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
