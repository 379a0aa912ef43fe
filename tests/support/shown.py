"""Bodies as the LLM view shows them."""

import json
from typing import Any

from mitm_gateway.llm.conversation import render
from support.constants import STREAMS

JSON, SSE = "application/json", "text/event-stream; charset=utf-8"


def shown(body: Any) -> str:
    """Return the text of a value, sent as JSON."""
    return render(json.dumps(body).encode(), JSON)


def stream(name: str) -> bytes:
    """Return a recorded event stream."""
    return (STREAMS / f"{name}.sse").read_bytes()
