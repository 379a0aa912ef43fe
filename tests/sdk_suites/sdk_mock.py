"""A pytest plugin for the vendors' SDK suites: a mock that answers each call by the type that the SDK expects.

It runs in the environment of the suite, so it needs nothing but the SDK. The plugin notes the type of each call in a
header, through which the mock, a thread of the same process, finds it again. `SDK_MOCK_PORT` is the mock's port; requests
and the bodies that the SDK received are written to `SDK_MOCK_LOG`.
"""

import email
import functools
import importlib
import inspect
import json
import os
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote

import pytest
from pydantic import BaseModel

MARK = "x-mock-call"
calls: list[tuple[Any, bool]] = []
requests: list[list[str]] = []
received: list[str] = []


# ---- values by type ----


def example(kind: Any, model: str | None) -> Any:
    """Return JSON of a type, with this model's name where the type has one."""
    kind = getattr(kind, "__value__", kind)  # a type alias
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        return example(args[0], model)
    if origin is Literal:
        return args[0]
    if origin in (Union, types.UnionType):
        return None if type(None) in args else example(args[0], model)
    if isinstance(origin, TypeVar):
        return None
    if inspect.isclass(origin) and issubclass(origin, BaseModel):
        return _object(kind if hasattr(kind, "model_fields") else origin, model)
    return _SIMPLE.get(getattr(origin, "__name__", ""))


_SIMPLE: dict[str, Any] = {
    "str": "text", "int": 1, "float": 1.5, "bool": True, "list": [], "List": [], "Sequence": [], "dict": {}, "Dict": {},
    "datetime": "2026-01-01T00:00:00Z", "date": "2026-01-01", "bytes": "AA==",
}  # fmt: skip


def _object(kind: Any, model: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name == "model" and model is not None and _takes_text(field.annotation):
            found[field.alias or name] = model
        elif field.is_required():
            found[field.alias or name] = example(field.annotation, model)
        if (
            name == "model"
            and model is not None
            and isinstance(found.get(name), dict)
            and "id" in found[name]
        ):
            found[name]["id"] = model
    return found


def _takes_text(kind: Any) -> bool:
    kind = getattr(kind, "__value__", kind)
    return kind is str or any(map(_takes_text, get_args(kind)))


# ---- the mock ----


class Handler(BaseHTTPRequestHandler):
    """Answers every call by its type."""

    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        body, content_type = self._body(), self.headers.get("content-type", "")
        is_json = "json" in content_type
        model = _model_in(body) if is_json else _model_in_form(body, content_type)
        # The boundary of a form differs in each run.
        requests.append([self.command, self.path, body.decode() if is_json else model or ""])
        kind, is_stream = calls[int(self.headers[MARK])]
        content_type, content = self._content(kind, model, is_stream)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _content(self, kind: Any, model: str | None, is_stream: bool) -> tuple[str, bytes]:
        if is_stream:
            return "text/event-stream", f"data: {json.dumps({'model': model})}\n\ndata: [DONE]\n\n".encode()
        if "JSONL" in str(kind):
            return "application/x-jsonl", b""
        if kind is str:
            return "text/plain", b"text"
        value = example(kind, model)
        if "/models/" in self.path and isinstance(value, dict) and "id" in value:
            value["id"] = unquote(self.path.partition("?")[0].rpartition("/")[2])
        return "application/json", json.dumps(value).encode()

    def log_message(self, *args: object) -> None:
        """Log nothing."""


def _model_in(body: bytes) -> str | None:
    value = json.loads(body) if body else None
    found = value.get("model") if isinstance(value, dict) else None
    found = found.get("id") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


def _model_in_form(body: bytes, content_type: str) -> str | None:
    form = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    for part in form.walk():
        if part.get_param("name", header="content-disposition") == "model" and part.get_filename() is None:
            payload = part.get_payload(decode=True)
            return payload.decode() if isinstance(payload, bytes) else None
    return None


# ---- the plugin ----


def _noted(client: Any, method: Any) -> Any:
    """Return the method that sends a request, with the call's type in a header."""

    @functools.wraps(method)
    def send(self: Any, cast_to: Any, options: Any, *, stream: bool = False, **more: Any) -> Any:
        calls.append((cast_to, stream))
        options.headers = {**(options.headers or {}), MARK: str(len(calls) - 1)}
        return method(self, cast_to, options, stream=stream, **more)

    return send


def _watched(method: Any) -> Any:
    """Return the method that reads a response, noting the body."""

    def note(response: Any) -> None:
        if response.is_closed and MARK in response.request.headers and not response.headers.get("x-stream"):
            received.append(response.text)

    @functools.wraps(method)
    def read(self: Any, *, response: Any, **more: Any) -> Any:
        note(response)
        return method(self, response=response, **more)

    return read


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the mock, and note the types of the SDK's calls."""
    base = importlib.import_module(f"{os.environ['SDK_MOCK_PACKAGE']}._base_client")
    for client in (base.SyncAPIClient, base.AsyncAPIClient):
        client.request = _noted(client, client.request)
        client._process_response = _watched(client._process_response)
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["SDK_MOCK_PORT"])), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Write everything that was seen."""
    seen = json.dumps({"requests": requests, "received": received})
    Path(os.environ["SDK_MOCK_LOG"]).write_text(seen, encoding="utf-8")
    yield
