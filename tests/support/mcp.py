"""An MCP server with the transport "sse": replies reach the client as events of one response that does not end."""

import contextlib
import http.server
import json
import queue
import threading
from typing import Any, Self

from support.certificates import Authority

RESULT = "echo of the MCP server"
_TOOL = {"name": "echo", "description": "Echo.", "inputSchema": {"type": "object", "properties": {}}}


class McpServer:
    """A server over https on a loopback address; `methods` lists what was asked of it."""

    def __init__(self, authority: Authority, address: str) -> None:
        self.methods: list[str] = []
        outer = self

        class Handler(_Handler):
            server_of_test = outer

        self.replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        context = authority.server_context(address)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"https://{address}:{self._server.server_port}/sse"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.replies.put(None)
        self._server.shutdown()
        self._server.server_close()

    @property
    def config(self) -> str:
        """The value of Claude Code's option `--mcp-config`."""
        return json.dumps({"mcpServers": {"events": {"type": "sse", "url": self.url}}})

    def result_of(self, call: dict[str, Any]) -> dict[str, Any]:
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


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_test: McpServer

    def do_GET(self) -> None:
        if self.path != "/sse":
            self._end(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self._event("endpoint", "/messages")
            while (reply := self.server_of_test.replies.get()) is not None:
                self._event("message", json.dumps(reply))

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._end(202)
        self.server_of_test.methods.append(call["method"])
        if "id" in call:
            result = self.server_of_test.result_of(call)
            self.server_of_test.replies.put({"jsonrpc": "2.0", "id": call["id"], "result": result})

    def _event(self, kind: str, data: str) -> None:
        self.wfile.write(f"event: {kind}\ndata: {data}\n\n".encode())
        self.wfile.flush()

    def _end(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
