"""A patch: one reversible change to mitmproxy, with its reason."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mitmproxy import http, version
from mitmproxy.connection import Server

from ..llm.apis import Form
from ..wire.refusal import Refusal

PatchKind = Literal["safety", "speed"]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# The commands that a layer of mitmproxy yields while it handles an event.
LayerSteps: TypeAlias = Generator[Any, Any, None]
_ABSENT = object()


class Unexpected(Exception):
    """mitmproxy looks different from what a patch expects; the text names the part that differs."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's side of the patches."""

    body_limit: Callable[[http.HTTPFlow], int | None]
    """Return the largest body in bytes that this request may have, or None without a limit."""
    refuse: Callable[[http.HTTPFlow, Refusal], None]
    """Answer this request locally."""
    outgoing: Callable[[http.Request], http.Request | None] = lambda request: request
    """Return this request with its secrets, as it is written to the upstream, or None to withhold it."""
    dial: Callable[..., Awaitable[Streams]] = lambda client, server, **options: asyncio.open_connection(
        *server.address, **options
    )
    """Open a connection for this client to this server, directly or through a proxy."""
    for_proxy: Callable[[Server, http.Request], http.Request] = lambda server, request: request
    """Return this request as the proxy behind this connection expects it."""
    asks_for_login: Callable[[Server, http.Response], str | None] = lambda server, response: None
    """Return the reason if a 407 is that of a proxy of the gateway."""
    dials_first: Callable[[http.HTTPFlow], bool] = lambda flow: False
    """Return whether this CONNECT opens a tunnel that is not decrypted."""
    has_streams: Callable[[], bool] = lambda: True
    """Return whether a response streams at present, whose events may not wait for requests."""
    error_form: Callable[[http.HTTPFlow], Form] = lambda flow: "anthropic"
    """Return the error form of the API that a request asks."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A row of the table: `install` makes the change through `Patches`, or raises Unexpected."""

    name: str
    kind: PatchKind
    why: str
    upstream: str | None
    """The issue or pull request at mitmproxy, and the version that makes the patch unnecessary."""
    install: Callable[[Patches], None]


class Patches:
    """The patches applied to this process's mitmproxy. Undoing a kind starts with its last change."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._undo: dict[Patch, list[Callable[[], None]]] = {}
        self._current: list[Callable[[], None]] = []
        self.are_flows_unseen: Callable[[], bool] = lambda: False
        """Return whether nothing but the gateway uses flows that have ended; the speed patch for hooks replaces this."""

    def apply(self, patch: Patch) -> None:
        """Apply a patch completely, or raise Unexpected and leave mitmproxy as it was."""
        if patch in self._undo:
            return
        self._current = []
        try:
            patch.install(self)
        except (Unexpected, AttributeError, ImportError) as fault:
            _undo(self._current)
            part = _missing(fault) if isinstance(fault, AttributeError) else str(fault)
            raise Unexpected(
                f"patch {patch.name} not applied: {part} changed in mitmproxy {version.VERSION}"
            ) from None
        self._undo[patch] = self._current

    def is_applied(self, patch: Patch) -> bool:
        """Return whether a patch is in force."""
        return patch in self._undo

    def set(self, owner: Any, name: str, value: object) -> None:
        """Replace an attribute; undoing deletes one that only the class had before.

        Raises Unexpected if a function has other parameters than the one that it replaces.
        """
        if inspect.isroutine(value):
            expect(getattr(owner, name), *inspect.signature(value).parameters)
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._current.append(lambda: delattr(owner, name))
        else:
            self._current.append(lambda: setattr(owner, name, before))

    def wrap(self, owner: Any, name: str, wrapped: Callable[[Any], object]) -> None:
        """Replace a function by what `wrapped` makes of it."""
        self.set(owner, name, wrapped(getattr(owner, name)))

    def on_undo(self, action: Callable[[], None]) -> None:
        """Call `action` when the patch that is being applied is undone."""
        self._current.append(action)

    def undo(self, *kinds: PatchKind) -> None:
        """Restore mitmproxy's own parts, those of the patches applied last first."""
        for patch in [each for each in reversed(self._undo) if each.kind in kinds]:
            _undo(self._undo.pop(patch))


def expect(function: Callable[..., object], *parameters: str) -> None:
    """Raise Unexpected unless a function has exactly these parameters."""
    if list(inspect.signature(function).parameters) != list(parameters):
        raise Unexpected(getattr(function, "__qualname__", repr(function)))


def _undo(actions: list[Callable[[], None]]) -> None:
    while actions:
        actions.pop()()


def _missing(fault: AttributeError) -> str:
    owner = fault.obj
    return f"{getattr(owner, '__name__', type(owner).__name__)}.{fault.name}"
