"""The content views "LLM" and "Gateway", for the interfaces of mitmproxy 11 and 12."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mitmproxy import contentviews, flow, http

from ..observe import gateway_view
from ..text.redact import masked_fields, masked_target
from ..wire.addresses import hostport
from ..wire.request import as_text
from .recorder import FACTS, facts_of
from .replay import original_of

# The interface of mitmproxy 11.
_legacy: Any = contentviews
_HAS_NEW_VIEWS = hasattr(contentviews, "Contentview")
# Fitting views of mitmproxy return 1.
_PREFERRED, _ON_REQUEST, _UNFIT = 2.0, 0.0, -1.0


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message to render."""

    data: bytes
    content_type: str
    flow: flow.Flow | None
    part: http.Message | None = None
    """The request or the response, if it is known which of them is rendered."""


@dataclass(frozen=True, slots=True)
class View:
    """A view, independent of the interface: its name, its text, and its priority for a message."""

    name: str
    render: Callable[[ShownMessage], str]
    priority: Callable[[ShownMessage], float]


def _llm(limit: Callable[[], int], message: ShownMessage) -> str:
    # Few messages are looked at, so this is imported for the first one.
    from ..llm import conversation
    from . import conversation_turns

    text = conversation.render(message.data, message.content_type, limit=limit())
    if not isinstance(message.flow, http.HTTPFlow) or message.part is None:
        return text
    if message.part is message.flow.request:
        return conversation.with_turn(text, conversation_turns.explained(message.flow))
    return conversation.with_outcome(text, facts_of(message.flow))


def _llm_priority(message: ShownMessage) -> float:
    if not message.data or not isinstance(message.flow, http.HTTPFlow):
        return _UNFIT
    from ..llm import conversation

    request = message.flow.request
    fits = conversation.is_conversation(request.host, request.method, request.path, message.content_type)
    return _PREFERRED if fits else _UNFIT


def _gateway(message: ShownMessage) -> str:
    if not isinstance(message.flow, http.HTTPFlow) or FACTS not in message.flow.metadata:
        return "no rule handled this flow"
    facts = facts_of(message.flow)
    sent = _sent(message.flow)
    original = original_of(message.flow)
    received = _received(message.flow.request.method, original) if original else sent
    return gateway_view.render(facts, received, None if facts.get("is_answered_here") else sent)


def _gateway_priority(message: ShownMessage) -> float:
    return _ON_REQUEST if message.flow is not None and FACTS in message.flow.metadata else _UNFIT


def _received(method: str, original: dict[str, Any]) -> gateway_view.RequestText:
    place = hostport(original["host"], original["port"], original["scheme"])
    url = f"{original['scheme']}://{place}{as_text(original['target'])}"
    return gateway_view.RequestText(
        f"{method} {url}", [(as_text(name), as_text(value)) for name, value in original["headers"]]
    )


def _sent(handled: http.HTTPFlow) -> gateway_view.RequestText:
    # The request contains the real key until the upstream responds.
    request = handled.request
    headers = [(as_text(name), as_text(value)) for name, value in masked_fields(request.headers.fields)]
    place = hostport(request.host, request.port, request.scheme)
    url = f"{request.scheme}://{place}{masked_target(request.path)}"
    return gateway_view.RequestText(f"{request.method} {url}", headers)


def llm_view(limit: Callable[[], int]) -> View:
    """Return the view of a conversation, which shows at most `limit` characters."""
    return View("LLM", partial(_llm, limit), _llm_priority)


_GATEWAY_VIEW = View("Gateway", _gateway, _gateway_priority)


def register(limit: Callable[[], int]) -> Callable[[], None]:
    """Register the views with mitmproxy; return the function that removes them."""
    adapted = _contentview if _HAS_NEW_VIEWS else _legacy_view
    added = [adapted(view) for view in (llm_view(limit), _GATEWAY_VIEW)]
    _remove_legacy()
    for view in added:
        contentviews.add(view)
    return _remove_legacy


def _remove_legacy() -> None:
    """Remove the views from mitmproxy 11, which refuses to add a name twice; 12 replaces them."""
    if not _HAS_NEW_VIEWS:
        for name in ("LLM", "Gateway"):
            if known := _legacy.get(name):
                _legacy.remove(known)


def _contentview(view: View) -> Any:
    def message(data: bytes, metadata: Any) -> ShownMessage:
        return ShownMessage(data, metadata.content_type or "", metadata.flow, metadata.http_message)

    class Adapter(contentviews.Contentview):  # type: ignore[misc, name-defined, unused-ignore]
        name = view.name
        syntax_highlight = "yaml"
        is_bounded = True

        def prettify(self, data: bytes, metadata: Any) -> str:
            return view.render(message(data, metadata))

        def render_priority(self, data: bytes, metadata: Any) -> float:
            return view.priority(message(data, metadata))

    return Adapter()


def _legacy_view(view: View) -> Any:
    def message(data: bytes, metadata: Mapping[str, Any]) -> ShownMessage:
        get = metadata.get
        return ShownMessage(data, get("content_type") or "", get("flow"), get("http_message"))

    class Adapter(_legacy.View):  # type: ignore[misc]
        name = view.name
        is_bounded = True

        def __call__(self, data: bytes, **metadata: Any) -> Any:
            drawn = view.render(message(data, metadata))
            # mitmweb 11 gives an empty line no height.
            return view.name, ([("text", line or " ")] for line in drawn.split("\n"))

        def render_priority(self, data: bytes, **metadata: Any) -> float:
            return view.priority(message(data, metadata))

    return Adapter()
