"""A recorded request as one line of JSON, for jq and other programs."""

from typing import Any

from ..llm.read_body import read
from ..text.printable import json_text, size
from ..wire.request import as_text
from .recorded import Part, Recorded


def line(recorded: Recorded) -> str:
    """Return the entry of a `gateway_log`, with URL, header fields and bodies."""
    data: dict[str, Any] = {"number": recorded.number, "url": recorded.url, **recorded.entry}
    if recorded.session:
        data["session"] = recorded.session
    data["request"] = _part(recorded.request)
    if recorded.response is not None:
        data["response"] = {"status": recorded.status, **_part(recorded.response)}
    if recorded.messages:
        data["messages"] = [
            {"from": "client" if each.from_client else "server", "body": _body(Part((), each.content))}
            for each in recorded.messages
        ]
    if recorded.error:
        data["error"] = recorded.error
    # Only here are the escapes of the bodies undone, so a key that was written with some is masked now.
    return recorded.masks.text(json_text(data))


def _part(part: Part) -> dict[str, Any]:
    headers = [[as_text(name), as_text(value)] for name, value in part.fields]
    return {"headers": headers, "body": _body(part)}


def _body(part: Part) -> Any:
    """Return the data of a body; of a stream the message that its events assemble."""
    if not part.body:
        return None
    notes: list[str] = []
    found = read(part.body, part.content_type, notes, lambda: 0.0)
    return found if found is not None else f"({size(len(part.body))}: {'; '.join(notes)})"
