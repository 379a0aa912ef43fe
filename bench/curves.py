"""Growth curves: how time and memory grow with what arrives, as tables and drawings."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Callable
from math import log10

import contestants
from contestants import HERE, Maker
from measuring import Bench, Note, Running, body, cell, measure_cpu, measure_streams, table

SIZES = (1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20, 50 << 20)
RULES = (1, 10, 100, 1000, 10_000)
STREAMS = (1, 20, 50, 100, 200, 500)
COUNTS = (0, 1000, 5000, 10_000, 20_000)
PICTURES = HERE.parent / "docs" / "performance"
COLOURS = {"gateway": "#2563eb", "mitmdump": "#6b7280"}
Send = Callable[[int], object]
Curve = dict[str, list[tuple[float, float]]]


def draw(bench: Bench) -> str:
    """Measure all curves; return the tables in Markdown, and write the pictures into docs/performance."""
    parts = ["### Time by body size", _by_size(bench), "### Delay by streams", _by_streams(bench)]
    parts += ["### CPU by rules", _by_rules(bench)]
    parts += ["### Memory by requests", _by_count(bench, contestants.gateway(), "requests", _requests)]
    # The body of a rule with a model map is read, so it answers WebSockets with 426.
    parts += ["### Memory by WebSocket messages"]
    parts += [_by_count(bench, contestants.gateway(models=""), "messages", _messages)]
    return "\n\n".join([*parts, *bench.notes])


def _by_size(bench: Bench) -> str:
    def measure(running: Running, note: Note) -> None:
        for size in SIZES:
            seconds = 0.8 if size < 1 << 20 else 2.5
            found = running.load(body(size, running.start.model), 1, seconds, 1000)
            note(f"size {size}", found.get("request_p50"))

    for _ in range(2):
        bench.group({"gateway": contestants.gateway(), "mitmdump": contestants.stock}, measure)
        bench.settle()
    points = {name: _points(bench, name, "size", SIZES) for name in COLOURS}
    picture = _picture("size", "body, bytes", "ms per request", points)
    return picture + _table(bench, "size", SIZES, "ms, {:,} bytes")


def _by_streams(bench: Bench) -> str:
    # Of the gateway alone: mitmdump holds a stream back until its end.
    for _ in range(2):
        bench.group(
            {"gateway": contestants.gateway()}, *(measure_streams(count, f"{count} ") for count in STREAMS)
        )
        bench.settle()
    keys = ("first_p50", "delay_p50", "delay_p99")
    rows = [[str(n), *(cell(bench.values["gateway"][f"{n} {key}"]) for key in keys)] for n in STREAMS]
    values = bench.values["gateway"]
    curve = [(n, statistics.median(values[f"{n} delay_p50"])) for n in STREAMS]
    upward = "added delay per event, ms (median)"
    picture = _picture("streams", "streams of 50 events/s", upward, {"gateway": curve})
    return picture + table(["streams", "first event, ms", "delay p50, ms", "delay p99, ms"], rows)


def _by_rules(bench: Bench) -> str:
    bench.start({str(count): contestants.gateway(count) for count in RULES})
    bench.rounds(4, measure_cpu("1 KB"))
    bench.stop()
    values, key = bench.values, "cpu 1 KB of 4"
    rows = [[f"{n:,}", *(cell(values[str(n)][each]) for each in (key, "start s"))] for n in RULES]
    curve = [(n, statistics.median(values[str(n)][key])) for n in RULES]
    picture = _picture("rules", "rules", "CPU ms per request", {"gateway": curve})
    return picture + table(["rules", "CPU s / 1000 requests", "start, s"], rows)


def _by_count(bench: Bench, gateway: Maker, what: str, begin: Callable[[Running], Send]) -> str:
    def measure(running: Running, note: Note) -> None:
        send = begin(running)
        for before, count in zip((0, *COUNTS), COUNTS, strict=False):
            send(count - before)
            note(f"{what} {count}", running.memory_mb("VmRSS"))

    bench.group({"gateway": gateway, "mitmdump": contestants.stock}, measure)
    bench.settle()
    points = {name: _points(bench, name, what, COUNTS) for name in COLOURS}
    picture = _picture(what, what, "MB resident", points, logarithmic=False)
    return picture + _table(bench, what, COUNTS, f"MB, {{:,}} {what}")


def _requests(running: Running) -> Send:
    data = body(1024, running.start.model)
    return lambda count: running.load(data, 8, 120, count)


def _messages(running: Running) -> Send:
    """Messages of 100 bytes on one socket, each after the answer to the one before."""
    client = socket.create_connection(("127.0.0.1", running.port))
    head = ["GET /v1/realtime HTTP/1.1", f"Host: 127.0.0.1:{running.port}", *running.start.headers]
    head += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    # The key is the one that the upstream knows the answer to.
    head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
    client.sendall("\r\n".join(head).encode())
    answer = client.recv(65536)
    if b" 101 " not in answer:
        raise RuntimeError(answer)

    def send(count: int) -> None:
        for _ in range(count):
            client.sendall(b"\x81\xe4" + bytes(4) + b"x" * 100)
            if len(client.recv(102, socket.MSG_WAITALL)) < 102:
                raise RuntimeError("the socket ended")

    return send


def _points(bench: Bench, name: str, kind: str, places: tuple[int, ...]) -> list[tuple[float, float]]:
    found = ((place, bench.values[name][f"{kind} {place}"]) for place in places)
    return [(place, statistics.median(values)) for place, values in found if values]


def _table(bench: Bench, kind: str, places: tuple[int, ...], title: str) -> str:
    rows = [[name, *(cell(bench.values[name][f"{kind} {place}"]) for place in places)] for name in COLOURS]
    return table(["", *(title.format(place) for place in places)], rows)


# ---- drawing ----


def _picture(name: str, across: str, upward: str, curves: Curve, *, logarithmic: bool = True) -> str:
    """Write a line chart as SVG, and return the Markdown that shows it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(svg(across, upward, curves, logarithmic=logarithmic))
    return f"![](performance/{name}.svg)\n\n"


def svg(across: str, upward: str, curves: Curve, *, logarithmic: bool = True) -> str:
    """A line chart; both axes by powers of ten where `logarithmic`."""

    def scaled(value: float) -> float:
        return log10(max(value, 1e-3)) if logarithmic else value

    points = [point for curve in curves.values() for point in curve]
    xs, ys = [scaled(x) for x, _ in points], [scaled(y) for _, y in points]
    low, high = (min(ys), max(ys)) if logarithmic else (0.0, max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        wide = (scaled(x) - min(xs)) / ((max(xs) - min(xs)) or 1)
        tall = (scaled(y) - low) / ((high - low) or 1)
        return 70 + 540 * wide, 300 - 250 * tall

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="360" fill="white"/>',
        '<path d="M70 40V300H620" fill="none" stroke="#111"/>',
        f'<text x="340" y="345" text-anchor="middle">{across}</text><text x="70" y="25">{upward}</text>',
    ]
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS.get(name, "#b45309")
        placed = [place(*point) for point in curve]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="480" y="{60 + 18 * number}" fill="{colour}">{name}</text>')
        for (x, y), (px, py) in zip(curve, placed, strict=True):
            parts.append(f'<circle cx="{px:.0f}" cy="{py:.0f}" r="3" fill="{colour}"/>')
            parts.append(
                f'<text x="{px:.0f}" y="{py - 8:.0f}" text-anchor="middle" fill="{colour}">{y:.3g}</text>'
            )
            if number == 0:
                parts.append(f'<text x="{px:.0f}" y="318" text-anchor="middle">{x:,.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])
