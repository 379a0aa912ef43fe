"""The content views "LLM" and "Gateway", in the forms that mitmproxy 11 and 12 ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mitmproxy import contentviews, flow, http

from ..llm import conversation
from ..observe import gateway_view
from ..text.redact import masked_fields, masked_target
from ..wire.addresses import hostport
from ..wire.request import text
from .recorder import FACTS
from .replay import ORIGINAL

# What mitmproxy 11 has and 12 has not.
_legacy: Any = contentviews
_HAS_NEW_VIEWS = hasattr(contentviews, "Contentview")
# The built-in views that fit say 1.
_PREFERRED, _ON_REQUEST, _UNFIT = 2.0, 0.0, -1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a view is asked to draw."""

    data: bytes
    content_type: str
    flow: flow.Flow | None


@dataclass(frozen=True, slots=True)
class View:
    """A view apart from either API: its name, its text, and how much it wants to draw something."""

    name: str
    render: Callable[[Shown], str]
    priority: Callable[[Shown], float]


def _llm(shown: Shown) -> str:
    return conversation.render(shown.data, shown.content_type)


def _llm_priority(shown: Shown) -> float:
    if not shown.data or not isinstance(shown.flow, http.HTTPFlow):
        return _UNFIT
    fits = conversation.is_conversation(shown.flow.request.path, shown.content_type)
    return _PREFERRED if fits else _UNFIT


def _gateway(shown: Shown) -> str:
    if not isinstance(shown.flow, http.HTTPFlow) or FACTS not in shown.flow.metadata:
        return "no rule has handled this flow"
    facts = shown.flow.metadata[FACTS]
    sent = _sent(shown.flow)
    original = shown.flow.metadata.get(ORIGINAL)
    came = _came(shown.flow.request.method, original) if isinstance(original, dict) else sent
    return gateway_view.render(facts, came, None if facts.get("is_answered_here") else sent)


def _gateway_priority(shown: Shown) -> float:
    return _ON_REQUEST if shown.flow is not None and FACTS in shown.flow.metadata else _UNFIT


def _came(method: str, original: dict[str, Any]) -> gateway_view.Request:
    place = hostport(original["host"], original["port"], original["scheme"])
    url = f"{original['scheme']}://{place}{text(original['target'])}"
    return gateway_view.Request(
        f"{method} {url}", [(text(name), text(value)) for name, value in original["headers"]]
    )


def _sent(handled: http.HTTPFlow) -> gateway_view.Request:
    # The real key stands in the request until the upstream answers, so it is masked here too.
    request = handled.request
    headers = [(text(name), text(value)) for name, value in masked_fields(request.headers.fields)]
    place = hostport(request.host, request.port, request.scheme)
    url = f"{request.scheme}://{place}{masked_target(request.path)}"
    return gateway_view.Request(f"{request.method} {url}", headers)


VIEWS = (View("LLM", _llm, _llm_priority), View("Gateway", _gateway, _gateway_priority))


def add() -> Callable[[], None]:
    """Makes the views known to mitmproxy; gives what takes them away again."""
    added = [_adapted(view) for view in VIEWS]
    _remove_legacy()
    for view in added:
        contentviews.add(view)
    return _remove_legacy


def _remove_legacy() -> None:
    """mitmproxy 11 refuses to add a name twice; 12 replaces the view and has nothing to remove."""
    if not _HAS_NEW_VIEWS:
        for name in (view.name for view in VIEWS):
            if known := _legacy.get(name):
                _legacy.remove(known)


def _adapted(view: View) -> Any:
    return _contentview(view) if _HAS_NEW_VIEWS else _legacy_view(view)


def _contentview(view: View) -> Any:
    def shown(data: bytes, metadata: Any) -> Shown:
        return Shown(data, metadata.content_type or "", metadata.flow)

    class Adapter(contentviews.Contentview):  # type: ignore[misc, name-defined, unused-ignore]
        name = view.name
        syntax_highlight = "yaml"

        def prettify(self, data: bytes, metadata: Any) -> str:
            return view.render(shown(data, metadata))

        def render_priority(self, data: bytes, metadata: Any) -> float:
            return view.priority(shown(data, metadata))

    return Adapter()


def _legacy_view(view: View) -> Any:
    class Adapter(_legacy.View):  # type: ignore[misc]
        name = view.name

        def __call__(
            self,
            data: bytes,
            *,
            content_type: str | None = None,
            flow: flow.Flow | None = None,
            http_message: http.Message | None = None,
            **unknown: Any,
        ) -> Any:
            drawn = view.render(Shown(data, content_type or "", flow))
            # mitmweb 11 gives a line with nothing in it no height.
            return view.name, ([("text", line or " ")] for line in drawn.split("\n"))

        def render_priority(
            self,
            data: bytes,
            *,
            content_type: str | None = None,
            flow: flow.Flow | None = None,
            http_message: http.Message | None = None,
            **unknown: Any,
        ) -> float:
            return view.priority(Shown(data, content_type or "", flow))

    return Adapter()
