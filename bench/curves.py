"""Growth curves: how time and memory grow with body size, rules, streams and requests, as table and drawing."""

from __future__ import annotations

import contestants
from contestants import HERE
from measuring import Bench, Running, body, cell, table

SIZES = (1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20, 50 << 20)
RULES = (1, 10, 100, 1000, 10_000)
STREAMS = (1, 20, 50, 100, 200, 500)
REQUESTS = (0, 1000, 5000, 10_000, 20_000)
PICTURES = HERE.parent / "docs" / "performance"
COLOURS = {"gateway": "#2563eb", "mitmdump": "#6b7280"}
Curve = dict[str, list[tuple[float, float]]]


def draw(bench: Bench) -> str:
    """Measures all curves; the tables in Markdown, the pictures into docs/performance."""
    pair = {"gateway": contestants.gateway(1), "mitmdump": contestants.stock}
    bench.start(pair)
    parts = ["### Time by body size", _by_size(bench), "### Delay by streams", _by_streams(bench)]
    bench.stop()
    parts += ["### CPU by rules", _by_rules(bench), "### Memory by requests", _by_requests(bench)]
    return "\n\n".join(parts)


def _by_size(bench: Bench) -> str:
    def measure(running: Running, note: object) -> None:
        for size in SIZES:
            seconds = 0.8 if size < 1 << 20 else 2.5
            found = running.load(body(size, running.start.model), 1, seconds, 1000)
            _keep(bench, running.name, f"size {size}", found.get("request_p50"))

    bench.rounds(2, measure)
    points = {name: _points(bench, name, "size", SIZES) for name in COLOURS}
    _picture("size", "body, bytes", "ms per request", points)
    return _table(bench, "size", SIZES, "ms, {:,} bytes")


def _by_streams(bench: Bench) -> str:
    def measure(running: Running, note: object) -> None:
        if running.name != "gateway":
            return  # mitmdump alone holds a stream back until its end
        for count in STREAMS:
            found = running.load(body(1500, running.start.model, "events=50,every=20"), count, 20, count)
            for key in ("first_p50", "delay_p50", "delay_p99"):
                _keep(bench, running.name, f"{key} {count}", found.get(key))

    bench.rounds(2, measure)
    keys = ("first_p50", "delay_p50", "delay_p99")
    rows = [[str(n), *(cell(bench.values["gateway"][f"{key} {n}"]) for key in keys)] for n in STREAMS]
    curves = {"gateway": _points(bench, "gateway", "delay_p50", STREAMS)}
    _picture("streams", "streams of 50 events/s", "added delay per event, ms (median)", curves)
    return table(["streams", "first event, ms", "delay p50, ms", "delay p99, ms"], rows)


def _by_rules(bench: Bench) -> str:
    bench.start({str(count): contestants.gateway(count) for count in RULES})

    def measure(running: Running, note: object) -> None:
        found = running.load(body(1024, running.start.model), 4, 2, 500)
        _keep(bench, running.name, "cpu", found.get("cpu"))

    bench.rounds(4, measure)
    bench.stop()
    columns = ["rules", "CPU s / 1000 requests", "start, s"]
    values = bench.values
    rows = [[f"{n:,}", *(cell(values[str(n)][key]) for key in ("cpu", "start s"))] for n in RULES]
    _picture(
        "rules",
        "rules",
        "CPU ms per request",
        {"gateway": [(n, _middle(values[str(n)]["cpu"])) for n in RULES]},
    )
    return table(columns, rows)


def _by_requests(bench: Bench) -> str:
    bench.start({"gateway": contestants.gateway(1), "mitmdump": contestants.stock})
    for running in bench.running:
        done = 0
        for count in REQUESTS:
            if count > done:
                running.load(body(1024, running.start.model), 8, 120, count - done)
            done = count
            _keep(bench, running.name, f"memory {count}", running.memory_mb("VmRSS"))
    bench.stop()
    points = {name: _points(bench, name, "memory", REQUESTS) for name in COLOURS}
    _picture("memory", "requests", "MB resident", points, logarithmic=False)
    return _table(bench, "memory", REQUESTS, "MB, {:,} requests")


def _keep(bench: Bench, name: str, key: str, value: float | None) -> None:
    if value is not None:
        bench.values[name][key].append(value)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _points(bench: Bench, name: str, kind: str, places: tuple[int, ...]) -> list[tuple[float, float]]:
    found = ((place, bench.values[name][f"{kind} {place}"]) for place in places)
    return [(place, _middle(values)) for place, values in found if values]


def _table(bench: Bench, kind: str, places: tuple[int, ...], title: str) -> str:
    rows = [[name, *(cell(bench.values[name][f"{kind} {place}"]) for place in places)] for name in COLOURS]
    return table(["", *(title.format(place) for place in places)], rows)


# ---- drawing ----


def _picture(name: str, across: str, upward: str, curves: Curve, *, logarithmic: bool = True) -> None:
    """Writes a line chart as SVG."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(svg(across, upward, curves, logarithmic=logarithmic))


def svg(across: str, upward: str, curves: Curve, *, logarithmic: bool = True) -> str:
    """A line chart; both axes by powers of ten where `logarithmic`."""
    from math import log10

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
