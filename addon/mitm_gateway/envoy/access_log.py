"""The access log: one JSON line per request with the keys of `gateway_log`."""

import re
from typing import Any

from ..llm.calls import ENDPOINTS, interleaved
from ..text.redact import KEY_MARKS
from .export_options import Listener, Options
from .extension import extension
from .lua_constants import LOGGED_NAMES, LOGGED_TOKENS, LUA, MAX_LOGGED_NAME

KEPT = "kept"
# A plain name without anything like a key, as the first group; RE2 prefers the alternative before.
_NAME = f"(?s)^(?:.*(?:{'|'.join(KEY_MARKS)}).*|([A-Za-z0-9_.:-]{{1,{MAX_LOGGED_NAME}}})|.*)$"


def kept_for_log() -> dict[str, Any]:
    """Return the filter that notes path, session and agent of requests that skip the Lua filter."""
    rules = [_kept(":path", "path", r"\?.*", "")]
    # The last one that has a value counts.
    rules += [
        _kept(header, key, _NAME, r"\1")
        for key, headers in LOGGED_NAMES.items()
        for header in reversed(headers)
    ]
    kind = "filters.http.header_to_metadata.v3.Config"
    return extension(KEPT, kind, request_rules=rules) | {"disabled": True}


def _kept(header: str, key: str, pattern: str, substitution: str) -> dict[str, Any]:
    rewrite = {"pattern": {"regex": pattern}, "substitution": substitution}
    noted = {"metadata_namespace": LUA, "key": key, "type": "STRING", "regex_value_rewrite": rewrite}
    return {"header": header, "on_header_present": noted}


def access_log(listener: Listener, options: Options) -> dict[str, Any]:
    """Return the access log of a listener."""
    noted = f"%DYNAMIC_METADATA({LUA}:{{}})%"
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3f+00:00)%",
        "rule": "%ROUTE_NAME%",
        "method": "%REQ(:METHOD)%",
        "host": listener.host,
        "path": noted.format("path"),
        "upstream": f"%METADATA(ROUTE:{LUA}:upstream)%",
        "model": noted.format("model"),
        "model_sent": noted.format("model_sent"),
        "status": "%RESPONSE_CODE%",
        "first_event_ms": "%RESPONSE_DURATION%",
        "total_ms": "%DURATION%",
        **{name: noted.format(name) for name in (LOGGED_TOKENS if options.tokens else ())},
        "bytes_out": "%BYTES_RECEIVED%",
        "bytes_in": "%BYTES_SENT%",
        "refusal": noted.format("refusal"),
        "outcome": f"%CEL({_outcome(options)})%",
        "session": noted.format("session"),
        "agent": noted.format("agent"),
    }
    log_format = {"json_format": fields, "omit_empty_values": True}
    kind = "access_loggers.file.v3.FileAccessLog"
    return extension("log", kind, path=options.log, log_format=log_format)


# How Envoy details a response that it did not give itself, and its own answers that say how the upstream failed.
_FROM_UPSTREAM = (
    "^(via_upstream|upstream_reset|response_payload|upstream_max|no_healthy|cluster_not|upstream_per)"
)

# An empty response to a call of a model makes clients try again.
_EMPTY = 'response.size == 0 && response.code == 200 && request.method == "POST"'


def _is_call() -> str:
    """Return an expression for a path that calls a model. RE2 bounds each pattern's size, so there are several."""
    ends = {
        interleaved(map(re.escape, endpoint.literals), endpoint.wildcards)
        for endpoint in ENDPOINTS
        if endpoint.api.operation
    }
    # One that ends like a shorter one adds nothing.
    least = sorted(end for end in ends if not any(end != other and end.endswith(other) for other in ends))
    return "(" + " || ".join(f'request.url_path.matches(r"(?i){end}/?$")' for end in least) + ")"


def _outcome(options: Options) -> str:
    """Return an expression for how a request ended, in the order of `Report.outcome`."""
    details = "response.code_details"
    failed_late, is_open = _noted("refusal"), _noted("is_open", " == true")
    cases = {
        f'{details} == "lua_response"': "refused",
        f'{details}.startsWith("downstream_remote_disconnect")': "client_left",
        f'{details}.matches("idle_timeout|response_timeout|duration_timeout")': "timed_out",
        f'{details}.startsWith("upstream_reset_after_response_started")': "upstream_broke_off",
        f'!{details}.matches("{_FROM_UPSTREAM}") && response.code >= 400': "refused",
        f"response.code >= 400 || ({failed_late}) || ({_EMPTY} && {_is_call()})": "upstream_error",
        is_open: "upstream_broke_off",
    }
    expression = '"ok"'
    for condition, outcome in reversed(cases.items()):
        expression = f'({condition}) ? "{outcome}" : ({expression})'
    # Most requests end well, and each search for a pattern compiles it again. Only a filter that reads responses notes
    # a late failure.
    ended_well = f"response.code < 400 && response.flags == 0 && !({_EMPTY})"
    if options.tokens:
        ended_well += f" && !({failed_late}) && !({is_open})"
    return f'({ended_well}) ? "ok" : ({expression})'


def _noted(key: str, condition: str = "") -> str:
    note = f'metadata.filter_metadata["{LUA}"]'
    value = f' && {note}["{key}"]{condition}' if condition else ""
    return f'"{LUA}" in metadata.filter_metadata && "{key}" in {note}{value}'
