"""Recordings of mitmproxy, made without a proxy."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mitmproxy import flow, http
from mitmproxy.addons.savehar import SaveHar
from mitmproxy.io import FlowWriter
from mitmproxy.test import taddons, tflow

from support.answers import message_events
from support.constants import API, CK

URL = f"https://{API}/v1/messages"
SYSTEM = "You are a careful engineer."
TOOL: dict[str, Any] = {
    "name": "Read",
    "description": "Read a file.",
    "input_schema": {"type": "object", "properties": {}},
}
SESSION = "3f2a91c0-0000-4000-8000-000000000001"


def turn(*said: str, session: str = SESSION, model: str = "claude-opus-4-8", **more: Any) -> bytes:
    """The body of a request: what the user and the assistant have said in turns so far."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
    return json.dumps(
        {"model": model, "system": SYSTEM, "tools": [TOOL], "messages": messages, **more}
    ).encode()


def talked(
    body: bytes,
    response: bytes | None = None,
    *,
    url: str = URL,
    headers: Sequence[tuple[str, str]] = (("x-api-key", CK), ("x-claude-code-session-id", SESSION)),
    status: int = 200,
    kind: str = "text/event-stream",
) -> http.HTTPFlow:
    """A flow as mitmproxy records it without the gateway."""
    made = tflow.tflow(resp=True, live=False)
    made.request = http.Request.make("POST", url, body, http.Headers(content_type="application/json"))
    for name, value in headers:
        made.request.headers.add(name, value)
    content = b"".join(message_events()) if response is None else response
    made.response = http.Response.make(status, content, http.Headers(content_type=kind))
    began = 1_780_000_000.0
    made.request.timestamp_start = began
    made.response.timestamp_start, made.response.timestamp_end = began + 0.2, began + 1.5
    return made


def write(path: Path, flows: Iterable[flow.Flow]) -> Path:
    """Write a recording as `mitmdump -w` does."""
    with path.open("wb") as file:
        writer = FlowWriter(file)
        for each in flows:
            writer.add(each)
    return path


def write_har(path: Path, flows: Sequence[flow.Flow]) -> Path:
    """Write a HAR file as `--set hardump` does."""
    with taddons.context(saver := SaveHar()):
        path.write_text(json.dumps(saver.make_har(flows)))
    return path
