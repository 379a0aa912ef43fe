"""What the gateway costs: small requests straight, through mitmdump alone, and with the gateway.

The upstream is a thread of this process, so only the differences between the lines mean anything.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from support.answers import json_reply, message
from support.processes import GATEWAY, Mitmdump
from support.recorder import Recorder
from support.wire import Wire

WARM_UP = 50
REQUESTS = 500
BODY = b'{"model": "claude-opus-4-8", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
RULES = """
credentials: {bench: {env: BENCH_KEY}}
rules:
  - name: bench
    match: {host: 127.0.0.1, path: /v1/**}
    auth: {scheme: bearer, credential: bench}
    models: {map: {claude-opus-4-8: claude-opus-4.6}}
"""


def milliseconds(port: int) -> list[float]:
    """How long each request took, sorted."""
    host = [("Host", f"127.0.0.1:{port}"), ("x-api-key", "client-key"), ("content-type", "application/json")]
    taken = []
    with Wire(port) as client:
        for _ in range(WARM_UP + REQUESTS):
            start = time.perf_counter()
            answer = client.request("POST", "/v1/messages", host, BODY)
            taken.append((time.perf_counter() - start) * 1000)
            if answer.status != 200:
                raise SystemExit(f"{answer.status}: {answer.body.decode()}")
    return sorted(taken[WARM_UP:])


def report(name: str, port: int) -> None:
    """Measure and print one line."""
    taken = milliseconds(port)
    p95 = taken[int(len(taken) * 0.95)]
    print(f"{name:24}  median {statistics.median(taken):6.2f} ms   95 % below {p95:6.2f} ms", flush=True)


def main() -> None:
    """Measure the three ways one after the other."""
    with tempfile.TemporaryDirectory() as folder, Recorder(json_reply(message())) as upstream:
        report("straight", upstream.port)
        for name, script in (("mitmdump", None), ("mitmdump with gateway", GATEWAY)):
            home = Path(folder, name)
            home.mkdir()
            rules = RULES if script else None
            modes = [f"reverse:{upstream.url}"]
            proxy = Mitmdump(home, rules=rules, modes=modes, script=script, env={"BENCH_KEY": "bench-key"})
            try:
                report(name, proxy.port)
            finally:
                proxy.kill()


if __name__ == "__main__":
    main()
