"""The share of each speed patch: the CPU time of a request with all of them, and with all but one.

One mitmdump serves everything. A script in it takes single patches away between short rounds, which are interleaved.
Other work on the machine only ever adds to the CPU time of a round, so the lowest decile of the rounds is compared.
The request is small and the program mitmdump, unless `--size` and `--web` say otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
RULES = """
rules:
  - name: gw
    match: {host: 127.0.0.1, path: /v1/messages}
    auth: {scheme: bearer, credential: gw}
    models: {map: {mine: theirs}}
credentials: {gw: {env: GW, default: gateway-key-0123456789}}
"""
SWITCH = """
import gc
from mitm_gateway.patches.table import PATCHES
from mitmproxy import ctx, http
class Switch:
    def requestheaders(self, flow):
        if flow.request.path.startswith("/without/"):
            patches = ctx.master.addons.get("gateway")._lifecycle.patches
            patches.undo("speed")
            for patch in PATCHES:
                if patch.kind == "speed" and patch.name != flow.request.path.removeprefix("/without/"):
                    patches.apply(patch)
            gc.collect()
            flow.response = http.Response.make(200, b"")
addons = [Switch()]
"""
HEAD = (
    "%s HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: client-key-0123456789\r\nContent-Type: application/json\r\n"
)
ANSWER = b'{"id":"m","model":"theirs","usage":{"input_tokens":1,"output_tokens":2},"content":[]}'


class Client:
    """A connection that sends one request after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")

    def ask(self, line: str, body: bytes = b"") -> bytes:
        head = (HEAD % line).encode() + b"Content-Length: %d\r\n\r\n" % len(body)
        self._socket.sendall(head + body)
        return read_message(self._file)[1]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def body_of(size: int) -> bytes:
    """Return a request's body of about this many bytes."""
    return json.dumps({"model": "mine", "messages": [{"role": "user", "content": "x" * size}]}).encode()


def read_message(file: BinaryIO) -> tuple[bytes, bytes]:
    """Read a head and a body, with a Content-Length or in chunks."""
    head = b""
    while (line := file.readline()) not in (b"", b"\r\n"):
        head += line
    if b"chunked" not in head.lower():
        found = re.search(rb"(?i)content-length: (\d+)", head)
        return head, file.read(int(found[1]) if found else 0)
    body = b""
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    file.readline()
    return head, body


def serve_upstream() -> int:
    """Answer every request with the same JSON, in threads; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(ANSWER),
        ANSWER,
    )

    def serve(connection: socket.socket) -> None:
        file = connection.makefile("rb")
        while read_message(file)[0]:
            connection.sendall(answer)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def start(tool: str, folder: Path, upstream: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start mitmdump or mitmweb with the gateway and the switch; return it and its port."""
    (folder / "rules.yaml").write_text(RULES)
    (folder / "rules.yaml").chmod(0o600)
    (folder / "switch.py").write_text(SWITCH)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    arguments = ["-q", "--mode", f"reverse:http://127.0.0.1:{upstream}", "--listen-host", "127.0.0.1"]
    arguments += [
        "-p",
        str(port),
        "--set",
        f"confdir={folder}",
        "--set",
        f"gateway_rules={folder}/rules.yaml",
    ]
    arguments += ["--no-web-open-browser", "--web-port", "0"] if tool == "mitmweb" else []
    arguments += ["-s", str(folder / "switch.py"), "-s", str(ROOT / "addon" / "gateway.py")]
    process = subprocess.Popen(
        [sys.executable, "-c", f"from mitmproxy.tools.main import {tool}; {tool}()", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "addon")},
    )
    while True:
        try:
            client = Client(port)
            client.ask("GET /without/")
            client.close()
            return process, port
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{tool} did not start")


def cpu_us(pid: int) -> float:
    """Return the microseconds of CPU that a process has used."""
    return (
        sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e3
    )


def measure(process: subprocess.Popen[bytes], port: int, without: str, requests: int, body: bytes) -> float:
    """Return the CPU time of a request in microseconds, without one patch."""
    client = Client(port)
    client.ask(f"GET /without/{without}")
    client.close()
    client = Client(port)
    for _ in range(20):
        client.ask("POST /v1/messages", body)
    before = cpu_us(process.pid)
    for _ in range(requests):
        if b'"mine"' not in (answer := client.ask("POST /v1/messages", body)):
            sys.exit(f"not served: {answer!r}")
    used = cpu_us(process.pid) - before
    client.close()
    return used / requests


def main() -> None:
    """Print a line for each patch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--size", type=int, default=900, help="bytes of the request's body")
    parser.add_argument("--web", action="store_true", help="in mitmweb, to which no browser is connected")
    parser.add_argument("patches", nargs="*", help="names of speed patches (default: all)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "addon"))
    from mitm_gateway.patches.table import PATCHES

    names = arguments.patches or [patch.name for patch in PATCHES if patch.kind == "speed"]
    with tempfile.TemporaryDirectory() as folder:
        tool, body = "mitmweb" if arguments.web else "mitmdump", body_of(arguments.size)
        process, port = start(tool, Path(folder), serve_upstream())
        times: dict[str, list[float]] = {name: [] for name in ("", *names)}
        try:
            for _ in range(arguments.rounds):
                for name, values in times.items():
                    values.append(measure(process, port, name, arguments.requests, body))
        finally:
            process.terminate()
    low = {name: statistics.quantiles(values, n=10)[0] for name, values in times.items()}
    whole = low.pop("")
    print(f"a request with all patches: {whole:.0f} µs of CPU")
    for name, value in low.items():
        print(f"without {name:18} {value:5.0f} µs, {value / whole - 1:+.1%}")


if __name__ == "__main__":
    main()
