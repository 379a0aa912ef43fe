"""The exported Envoy beside a hand-written one, one without Lua, and nginx: `make bench ARGS=--envoy`.

Clients, proxy and upstream share the machine's cores, so requests a second tell about all three; CPU is the proxy's
alone. Added time is a request's median by one client, less that of asking the upstream without a proxy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import ASKED, HERE, KEY, RIGHT, SENT, Start, _envoy, envoy_config, exported, nginx
from measuring import Bench, Running, Values, body, cell, shown, table

_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
_GROWTH = 100_000


def by_hand(workers: int) -> Callable[[Path, int, int], Start]:
    """Envoy with a hand-written Lua filter and an access log."""

    def start(home: Path, port: int, upstream: int) -> Start:
        config = envoy_config(port, upstream)
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
        del route["request_headers_to_remove"], route["request_headers_to_add"]
        code = (HERE / "by_hand.lua").read_text()
        for name, value in {"ASKED": ASKED, "SENT": SENT, "KEY": KEY}.items():
            code = code.replace(name, value)
        lua = {"@type": _LUA, "default_source_code": {"inline_string": code}}
        manager["http_filters"].insert(0, {"name": "lua", "typed_config": lua})
        fields = {"time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%"}
        fields |= {"status": "%RESPONSE_CODE%", "total_ms": "%DURATION%", "bytes_in": "%BYTES_SENT%"}
        log = {"@type": _LOG, "path": str(home / "access.log"), "log_format": {"json_format": fields}}
        manager["access_log"] = [{"name": "log", "typed_config": log}]
        return _envoy(home, config, workers, ASKED)

    return start


def bare(workers: int) -> Callable[[Path, int, int], Start]:
    """Envoy without Lua and log, which edits headers only."""
    return lambda home, port, upstream: _envoy(home, envoy_config(port, upstream), workers)


FILTERS = {"Envoy, exported": exported(), "Envoy, by hand": by_hand(1)}


def _all() -> dict[str, Callable[[Path, int, int], Start]]:
    makers: dict[str, Callable[[Path, int, int], Start]] = {}
    for workers in (1, 2):
        makers[f"exported, {workers}"] = exported(workers)
        makers[f"exported, key only, {workers}"] = exported(workers, models="")
        makers[f"by hand, {workers}"] = by_hand(workers)
        makers[f"without Lua, {workers}"] = bare(workers)
    return makers | {"nginx, 1": nginx}


def _measure(running: Running, note: Any) -> None:
    model = running.start.model
    for name, size in {"1 KB": 1 << 10, "100 KB": 100 << 10}.items():
        data = body(size, model)
        note(f"ms {name}", running.load(data, 1, 0.6, 4000).get("request_p50"))
        found = running.load(data, 16, 1.0, 100_000)
        note(f"requests/s {name}", found["per_second"])
        note(f"CPU ms {name}", found.get("cpu"))
    note("first event, ms", running.load(body(1500, model, "events=50,every=20"), 20, 5, 20).get("first_p50"))
    found = running.load(body(1500, model, "events=50,every=0"), 16, 1.0, 100_000)
    note("streams/s", found["per_second"])


def _grown_mb(bench: Bench) -> float:
    bench.start({"growth": exported(2)})
    running = bench.running[0]
    data = body(1024, running.start.model)
    running.load(data, 16, 60, _GROWTH // 5)
    before = running.memory_mb("VmRSS")
    running.load(data, 16, 120, _GROWTH)
    grown = running.memory_mb("VmRSS") - before
    bench.stop()
    return grown


def _added(values: Values, key: str, name: str) -> list[float]:
    return [a - b for a, b in zip(values[name][key], values["no proxy"][key], strict=True)]


def _bars(values: Values, grown_mb: float) -> list[list[str]]:
    ours, hand = "exported, 2", "by hand, 2"
    median = {key: statistics.median(found) for key, found in values[ours].items()}
    bars: list[tuple[str, float, float | None, bool]] = [
        ("requests/s, 1 KB", 10_000, median["requests/s 1 KB"], False),
        ("requests/s, 100 KB", 5_000, median["requests/s 100 KB"], False),
        ("first event of 20 streams, ms", 1, median["first event, ms"], True),
        (f"grown over {_GROWTH:,} requests, MB", 5, grown_mb, True),
    ]
    for size in ("1 KB", "100 KB"):
        key = f"CPU ms {size}"
        added = {
            name: statistics.median(_added(values, f"ms {size}", name)) for name in (ours, hand, "nginx, 1")
        }
        bars += [
            (f"added time by hand's, {size}", 1.3, added[ours] / added[hand], True),
            (f"added time by nginx's, {size}", 4, added[ours] / added["nginx, 1"], True),
            (f"CPU by hand's, {size}", 1.3, median[key] / statistics.median(values[hand][key]), True),
        ]
    rows = []
    for name, bar, found, is_lower in bars:
        met = found is not None and (found <= bar if is_lower else found >= bar)
        rows.append(
            [name, f"{'≤' if is_lower else '≥'} {bar:,}", shown(found or 0), "met" if met else "**not met**"]
        )
    return rows


def tell(bench: Bench, rounds: int) -> str:
    """Measure all, and return the tables in Markdown."""
    bench.start(_all())
    home = bench.folder / "none"
    home.mkdir()
    bench.running.append(
        Running("no proxy", Start([], RIGHT, SENT), bench.upstream, home, bench.upstream_process)
    )
    bench.rounds(rounds, _measure)
    bench.running.pop()
    bench.stop()
    values = dict(bench.values)
    keys = [key for key in values["no proxy"] if key != "start s"]
    rows = [[name, *(cell(found[key]) for key in keys)] for name, found in values.items()]
    grown = _grown_mb(bench)
    return "\n".join(
        [table(["", *keys], rows), "", table(["bar", "", "measured", ""], _bars(values, grown)), *bench.notes]
    )
