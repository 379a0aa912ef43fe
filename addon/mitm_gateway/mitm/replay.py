"""Replays: the rules run again on the request as the client made it, not on the request that was sent.

The original is kept in the flow's metadata as plain values, which survive `-w`. The client's key is masked there,
so a replay can only use credentials of the gateway.
"""

from collections.abc import Sequence
from typing import Any

from mitmproxy import http

from ..exchange.body_error import BodyError
from ..exchange.json_body import scan
from ..exchange.json_edits import edit
from ..text.redact import masked_fields, masked_target
from ..wire.request import Fields, RequestHead, as_bytes, as_text

ORIGINAL = "gateway_original"
# Shorter ones are placeholders, and occur inside other words.
_LEAST_KEY = 8
# These do not reveal an edit by the user: `host` follows the destination.
_IRRELEVANT = (b"host", b"content-length", b"transfer-encoding", b"content-encoding")


def is_replay(flow: http.HTTPFlow) -> bool:
    """Return whether the user sends the flow again, rather than a client."""
    return flow.is_replay == "request"


def remember(flow: http.HTTPFlow, head: RequestHead, keys: Sequence[str] = ()) -> None:
    """Keep the request as it arrived, with these keys masked everywhere.

    A replay keeps the model that the client had asked for, because its body is still to come.
    """
    models = original_of(flow) if is_replay(flow) else {}
    keys = [key for key in keys if len(key) >= _LEAST_KEY]
    flow.metadata[ORIGINAL] = {
        **{name: models[name] for name in ("model", "model_sent") if name in models},
        "scheme": head.scheme,
        "host": flow.request.data.host,
        "port": head.port,
        # As bytes: anything that is not UTF-8 could not be saved as text.
        "target": as_bytes(masked_target(head.target, keys)),
        "authority": head.authority,
        "headers": masked_fields(head.fields, keys),
    }


def original_of(flow: http.HTTPFlow) -> dict[str, Any]:
    """Return the stored parts of the request as it arrived; empty where no rule has taken the flow."""
    original = flow.metadata.get(ORIGINAL)
    return original if isinstance(original, dict) else {}


def original_head(flow: http.HTTPFlow) -> RequestHead | None:
    """Return the head as it arrived, its secrets masked; None where no rule has taken the flow."""
    if not (original := original_of(flow)):
        return None
    return RequestHead(
        flow.request.method,
        original["scheme"],
        original["host"],
        original["port"],
        as_text(original["target"]),
        _fields(original),
        original["authority"],
    )


def remember_sent(flow: http.HTTPFlow, model: str | None, model_sent: str | None) -> None:
    """Store the request that was sent instead, once the flow has ended, to recognise later edits by the user."""
    if original := original_of(flow):
        original["sent"] = _place(flow)
        original["sent_fields"] = flow.request.data.headers.fields
        if model is not None and model_sent is not None and model != model_sent:
            original["model"], original["model_sent"] = model, model_sent


def restore_original(flow: http.HTTPFlow) -> None:
    """Give a flow that is sent again its original head; edits by the user since then stay."""
    if not (original := original_of(flow)):
        return
    sent = original.get("sent_fields")
    if sent is None or _revealing(sent) == _revealing(flow.request.headers.fields):
        flow.request.headers.fields = _fields(original)
    if _is_where_it_went(flow, original):
        point_at(flow, original["scheme"], original["host"], original["port"], as_text(original["target"]))
        flow.request.data.authority = as_bytes(original["authority"])


def point_at(flow: http.HTTPFlow, scheme: str, host: str, port: int, target: str) -> None:
    """Set where a request goes, apart from its Host and `:authority`."""
    data = flow.request.data
    data.scheme = as_bytes(scheme)
    data.host = host
    data.port = port
    data.path = as_bytes(target)


def _fields(original: dict[str, Any]) -> Fields:
    # A flow that was read from a file has lists instead of tuples.
    return tuple((name, value) for name, value in original["headers"])


def restore_original_model(flow: http.HTTPFlow) -> None:
    """Put the client's model back into the body of a flow that is sent again.

    Only once the body is complete: before, mitmproxy would overwrite it with the body that was sent.
    """
    original, content = original_of(flow), flow.request.raw_content
    if "model" not in original or not content or "content-encoding" in flow.request.headers:
        return
    try:
        body = scan(content)
        if body.model == original["model_sent"]:
            flow.request.content = edit(body, model=lambda _: str(original["model"]))
    except BodyError:
        return  # edited by the user into something else, on which the rules decide


def _is_where_it_went(flow: http.HTTPFlow, original: dict[str, Any]) -> bool:
    """Return whether the user has left the destination alone, as in the copy of a flow that has not ended.

    mitmproxy itself points flows from a file back at the target of a reverse listener.
    """
    if "sent" not in original:
        return True
    *place, path = _place(flow)
    *sent, sent_path = original["sent"]
    return path == sent_path and place in (sent, [original[name] for name in ("scheme", "host", "port")])


def _place(flow: http.HTTPFlow) -> list[Any]:
    data = flow.request.data
    return [as_text(data.scheme), data.host, data.port, data.path]


def _revealing(fields: Fields) -> Fields:
    """Return the fields that reveal an edit by the user."""
    return tuple((name, value) for name, value in fields if name.lower() not in _IRRELEVANT)
