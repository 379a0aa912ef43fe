"""Properties that hold for any bytes: the body editor, the readers of event streams, the rules loader.

Each target takes bytes and raises where a promise is broken. `run.py` lets a coverage-guided fuzzer look for
such bytes; the suite runs the targets over the seeds and over what Hypothesis makes up.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.json_edits import edit
from mitm_gateway.exchange.restore_model import AutoRestorer, JsonRestorer, SseRestorer, always
from mitm_gateway.llm.apis import OTHER
from mitm_gateway.llm.usage import Usage, reader_for
from mitm_gateway.rules.field_paths import parse_path
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.text.redact import looks_like_key
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE as AWS_STREAM
from mitm_gateway.wire.sse import EventReader
from support.bodies import assert_same_both_ways, to
from support.constants import TESTS

_DATA = TESTS / "data"
_CORPUS = Path(__file__).parent / "corpus"
_CUTS = (1, 2, 3, 7, 40)
_PATHS = (parse_path("metadata.user_id"), parse_path("tools[*].defer_loading"))


def body(data: bytes) -> None:
    """A body is refused with a reason, or its model changes and nothing else does; with simdjson and without."""
    assert_same_both_ways(data, model=to("m"))
    assert_same_both_ways(data, model=to("m"), remove=_PATHS, set_=((parse_path("a.b"), "1"),))
    try:
        found = scan(data)
    except BodyError:
        return
    before = json.loads(data.decode("utf-8-sig"))
    assert isinstance(before, dict)
    named = before.get("model")
    assert found.model == (named["id"] if isinstance(named, dict) else named)
    assert edit(found, model=lambda name: name) is found.raw
    if found.model is not None:
        renamed = edit(found, model=lambda name: f"{name}x")
        sent = {**named, "id": f"{found.model}x"} if isinstance(named, dict) else f"{found.model}x"
        assert json.loads(renamed.decode("utf-8-sig")) == {**before, "model": sent}
        assert edit(scan(renamed), model=to(found.model)).startswith(data[: data.find(b"{")])
    try:
        scan(edit(found, model=to("m"), remove=_PATHS, set_=((parse_path("a.b"), "1"),)))
    except BodyError:
        return


def events(data: bytes) -> None:
    """Events, edited bytes and usage of a stream do not depend on how it is cut."""
    cut, data = (_CUTS[data[0] % len(_CUTS)], data[1:]) if data else (1, data)
    equal = [data[place : place + cut] for place in range(0, len(data), cut)]
    for pieces in (equal, re.split(rb"(?<=\n\n)", data)):
        assert _read(pieces) == _read([data])
        for restorer in (SseRestorer, JsonRestorer):
            assert _restored(restorer(always("client")), pieces) == _restored(
                restorer(always("client")), [data]
            )
        for kind in ("text/event-stream", "application/json", AWS_STREAM, ""):
            assert _usage(kind, pieces) == _usage(kind, [data])
            whole, cut_up = (AutoRestorer(always("client"), OTHER, kind) for _ in range(2))
            assert _restored(cut_up, pieces) == _restored(whole, [data])


def _read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader(limit=64)
    return [event for piece in pieces for event in reader.feed(piece)] + reader.finish()


def _restored(restorer: SseRestorer | JsonRestorer | AutoRestorer, pieces: list[bytes]) -> bytes:
    return b"".join(map(restorer.feed, pieces)) + restorer.flush()


def _usage(kind: str, pieces: list[bytes]) -> Usage:
    reader = reader_for(kind)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


def rules(data: bytes) -> None:
    """A file gives rules or problems; no problem quotes what has the shape of a key."""
    told: list[str] = []
    try:
        assert parse_rules(data, "rules.yaml", {"NAME": "value"}).rules
    except RulesError as fault:
        told = [str(problem) for problem in fault.problems] or [""]
    assert all(text and not looks_like_key(text) for text in told)


TARGETS: dict[str, Callable[[bytes], None]] = {"body": body, "events": events, "rules": rules}
SEEDS: dict[str, list[Path]] = {
    "body": sorted((_CORPUS / "body").iterdir()),
    "events": sorted((_DATA / "streams").iterdir()),
    "rules": sorted((_DATA / "rules").rglob("*.yaml")),
}
