"""The access log: one JSON line per request with the keys of `gateway_log`."""

from __future__ import annotations

from typing import Any

from ..llm.session import AGENT_HEADERS, SESSION_HEADERS
from ..text.redact import KEY_MARKS, MASK
from .lua_constants import LOGGED_TOKENS, LUA
from .options import Listener, Options

_API = "type.googleapis.com/envoy.extensions."
_KEPT = "mitm_gateway."
_NAME = "^[A-Za-z0-9_.:-]+$"
_MAX_NAME = 128


def kept_for_log() -> dict[str, Any]:
    """Keep the path, session and agent that the client named: the rule may edit them."""
    path = f'({_has_key("request.url_path")}) ? "{MASK}" : request.url_path'
    kept = [
        _kept("path", path),
        _kept("session", _first(SESSION_HEADERS)),
        _kept("agent", _first(AGENT_HEADERS)),
    ]
    config = {"@type": f"{_API}filters.http.set_filter_state.v3.Config", "on_request_headers": kept}
    return {"name": "kept", "typed_config": config}


def _kept(name: str, expression: str) -> dict[str, Any]:
    text = {"text_format_source": {"inline_string": f"%CEL({expression})%"}, "omit_empty_values": True}
    return {
        "object_key": _KEPT + name,
        "factory_key": "envoy.string",
        "format_string": text,
        "skip_if_empty": True,
    }


def _has_key(value: str) -> str:
    """Return an expression for whether a text may contain a key."""
    return " || ".join(f'{value}.contains("{mark}")' for mark in KEY_MARKS)


def _first(headers: tuple[str, ...]) -> str:
    """Return an expression for the first of these headers; a value that may be a key is not kept."""
    expression = '""'
    for name in reversed(headers):
        value = f'request.headers["{name}"]'
        is_kept = f'size({value}) <= {_MAX_NAME} && {value}.matches("{_NAME}") && !({_has_key(value)})'
        expression = f'"{name}" in request.headers && {is_kept} ? {value} : ({expression})'
    return expression


def access_log(listener: Listener, options: Options) -> dict[str, Any]:
    """Return the access log of a listener."""
    noted, of_route = f"%DYNAMIC_METADATA({LUA}:{{}})%", f"%METADATA(ROUTE:{LUA}:{{}})%"
    kept = f"%FILTER_STATE({_KEPT}{{}}:PLAIN)%"
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3f+00:00)%",
        "rule": of_route.format("name"),
        "method": "%REQ(:METHOD)%",
        "host": listener.host,
        "path": kept.format("path"),
        "upstream": of_route.format("upstream"),
        "model": noted.format("model"),
        "model_sent": noted.format("model_sent"),
        "status": "%RESPONSE_CODE%",
        "first_event_ms": "%RESPONSE_DURATION%",
        "total_ms": "%DURATION%",
        **{name: noted.format(name) for name in (LOGGED_TOKENS if options.tokens else ())},
        "bytes_out": "%BYTES_RECEIVED%",
        "bytes_in": "%BYTES_SENT%",
        "refusal": noted.format("refusal"),
        "outcome": f"%CEL({_outcome()})%",
        "session": kept.format("session"),
        "agent": kept.format("agent"),
    }
    return {
        "name": "log",
        "typed_config": {
            "@type": f"{_API}access_loggers.file.v3.FileAccessLog",
            "path": options.log,
            "log_format": {"json_format": fields, "omit_empty_values": True},
        },
    }


# How Envoy details a response that it did not give itself, and its own answers that say how the upstream failed.
_FROM_UPSTREAM = (
    "^(via_upstream|upstream_reset|response_payload|upstream_max|no_healthy|cluster_not|upstream_per)"
)


def _outcome() -> str:
    """Return an expression for how a request ended, in the order of `Record.outcome`."""
    details = "response.code_details"
    note = f'metadata.filter_metadata["{LUA}"]'
    has_note = f'"{LUA}" in metadata.filter_metadata && "{{0}}" in {note}'
    late_error = f"{has_note.format('refusal')}"
    cases = {
        f'{details}.startsWith("downstream_remote_disconnect")': "client_left",
        f'{details}.matches("idle_timeout|response_timeout|duration_timeout")': "timed_out",
        f'{details}.startsWith("upstream_reset_after_response_started")': "upstream_broke_off",
        f'!{details}.matches("{_FROM_UPSTREAM}") && response.code >= 400': "refused",
        f"response.code >= 400 || ({late_error})": "upstream_error",
        f'{has_note.format("is_open")} && {note}["is_open"] == true': "upstream_broke_off",
    }
    expression = '"ok"'
    for condition, outcome in reversed(cases.items()):
        expression = f'({condition}) ? "{outcome}" : ({expression})'
    return expression
