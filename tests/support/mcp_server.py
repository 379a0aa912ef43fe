"""An MCP server with the transport "sse": replies reach the client as events of one response that does not end."""

import json
import queue
from collections.abc import Iterator
from typing import Any

from support.answers import Answer, Reply, Seen, Stream
from support.certificates import Authority
from support.recorder import Recorder

RESULT = "echo of the MCP server"
_TOOL = {"name": "echo", "description": "Echo.", "inputSchema": {"type": "object", "properties": {}}}


class McpServer(Recorder):
    """A server over https on a loopback address."""

    def __init__(self, authority: Authority, address: str) -> None:
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        super().__init__(self._take, tls=authority, names=[address], address=address)

    @property
    def config(self) -> str:
        """The value of Claude Code's option `--mcp-config`."""
        return json.dumps({"mcpServers": {"events": {"type": "sse", "url": f"{self.url}/sse"}}})

    @property
    def methods(self) -> list[str]:
        """The methods that have been called."""
        return [request.json["method"] for request in self.requests if request.method == "POST"]

    def close(self) -> None:
        self._replies.put(None)
        super().close()

    def _take(self, request: Seen) -> Answer:
        if request.method == "POST":
            call = request.json
            if "id" in call:
                self._replies.put({"jsonrpc": "2.0", "id": call["id"], "result": _result_of(call)})
            return Reply(202)
        return Stream(self._events(), gated=False) if request.path == "/sse" else Reply(404)

    def _events(self) -> Iterator[bytes]:
        yield b"event: endpoint\ndata: /messages\n\n"
        while (reply := self._replies.get()) is not None:
            yield f"event: message\ndata: {json.dumps(reply)}\n\n".encode()


def _result_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a JSON-RPC call."""
    match call["method"]:
        case "initialize":
            return {
                "protocolVersion": call["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "events", "version": "1"},
            }
        case "tools/list":
            return {"tools": [_TOOL]}
        case "tools/call":
            return {"content": [{"type": "text", "text": RESULT}]}
        case _:
            return {}
