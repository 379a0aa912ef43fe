"""Bodies as the LLM view shows them, and the tokens that they report."""

import json
from typing import Any

from mitm_gateway.llm.conversation import render
from mitm_gateway.llm.usage import Usage, reader_for
from support.constants import STREAMS

JSON, SSE = "application/json", "text/event-stream; charset=utf-8"


def shown(body: Any) -> str:
    """Return the text of a value, sent as JSON."""
    return render(json.dumps(body).encode(), JSON)


def usage_of(content_type: str, *chunks: bytes) -> Usage:
    """Return the usage that a response in these chunks reports."""
    reader = reader_for(content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def stream(name: str) -> bytes:
    """Return a recorded event stream."""
    return (STREAMS / f"{name}.sse").read_bytes()
