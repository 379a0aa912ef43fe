"""Hook dispatch: a table of the addons that have each hook, and no task for a hook in which nothing is awaited.

A request passes some eight hooks. At each, mitmproxy asks all of its 33 addons whether they have the hook, and creates
a task that calls them. Order, faults and AddonHalt are handled here as mitmproxy handles them. A hook function that
returns None is complete when it returns; one that returns an awaitable is awaited, and the later addons wait for it.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from itertools import chain
from types import TracebackType
from typing import Any

from mitmproxy import addonmanager, ctx, exceptions, hooks, http, log
from mitmproxy.addons import (
    anticache,
    anticomp,
    blocklist,
    dumper,
    maplocal,
    mapremote,
    modifybody,
    modifyheaders,
    proxyauth,
    save,
    savehar,
    stickyauth,
    stickycookie,
    upstream_auth,
    view,
)
from mitmproxy.addons.asgiapp import ASGIApp
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.flow import Flow
from mitmproxy.proxy import commands, events, layer, server
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._hooks import (
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
)
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from ..patch import Patches
from .layers import LayerCommands, plain_handling

# Faults of addons are logged under mitmproxy's own logger, as without the patch.
_addon_logger = logging.getLogger("mitmproxy.addonmanager")
_LIFECYCLE = (hooks.ConfigureHook, hooks.RunningHook, hooks.DoneHook)
_IN_PLACE = frozenset({HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook})
Table = tuple[tuple[Any, ...], ...]
# These addons of mitmproxy do nothing while this attribute is empty; it changes with options only.
_STATES: dict[type, str] = {
    blocklist.BlockList: "items",
    maplocal.MapLocal: "replacements",
    mapremote.MapRemote: "replacements",
    modifybody.ModifyBody: "replacements",
    modifyheaders.ModifyHeaders: "replacements",
    proxyauth.ProxyAuth: "validator",
    save.Save: "stream",
    stickyauth.StickyAuth: "flt",
    stickycookie.StickyCookie: "flt",
    upstream_auth.UpstreamAuth: "auth",
}
# These do nothing while this option is unset.
_OPTIONS: dict[type, str] = {
    anticache.AntiCache: "anticache",
    anticomp.AntiComp: "anticomp",
    savehar.SaveHar: "hardump",
}
# Addons of mitmproxy that keep flows.
_KEEPERS = (save.Save, savehar.SaveHar, view.View)
_OURS = f"{__package__.partition('.')[0]}."
_HOOKS_OF_FLOWS = [
    name for name, kind in hooks.all_hooks.items() if {"flow", "flows"} & kind.__annotations__.keys()
]
# Calls the addons and yields what must be awaited.
Steps = Generator[Awaitable[object], None, None]


def index_hooks(patches: Patches) -> None:
    """Call the addons from a table, and without a task if none of them has to wait."""
    Dispatch(ctx.master.addons).install(patches)


class Shortcut:
    """A step before a connection's first layer that completes its hooks at once if no addon has to wait."""

    def __init__(self, dispatch: Dispatch, first: layer.Layer) -> None:
        self._dispatch = dispatch
        self._handle_event = first.handle_event
        self._due: deque[events.Event] = deque()
        first.handle_event = self.handle_event  # type: ignore[method-assign, assignment]

    def handle_event(self, event: events.Event) -> LayerCommands:
        """Pass an event down; yield the commands that remain for the connection handler."""
        self._due.append(event)
        while self._due:
            for command in self._handle_event(self._due.popleft()):
                if isinstance(command, commands.StartHook) and self._dispatch.complete(command):
                    if command.blocking:
                        self._due.append(events.HookCompleted(command))
                elif not isinstance(command, commands.Log) or self._dispatch.hears(command.level):
                    yield command


class Dispatch:
    """mitmproxy's event dispatch with a table of the addons that have each hook.

    The table is rebuilt after addons are added or removed and after options change. A fault skips the rest of its
    top-level addon.
    """

    def __init__(self, manager: addonmanager.AddonManager) -> None:
        self._manager = manager
        self._slow = manager.trigger_event
        self._tables: dict[str, Table | None] = {}
        self._are_unseen: bool | None = None
        self._begun: dict[hooks.Hook, tuple[Awaitable[object] | None, Steps]] = {}
        self._is_on = False

    def install(self, patches: Patches) -> None:
        """Replace mitmproxy's dispatch, and put a Shortcut before each connection's layers."""
        manager, legacy = self._manager, ctx.master._legacy_log_events
        serve = server.ConnectionHandler.handle_client
        emit = legacy.emit
        for name in ("register", "remove", "clear", "trigger", "invoke_addon_sync"):
            patches.wrap(manager, name, self.forgetting)
        patches.set(manager, "trigger_event", self.trigger_event)
        patches.set(manager, "handle_lifecycle", self.handle_lifecycle)
        # The bridge for old scripts passes each log record to all addons, even if none has the hook.
        patches.set(legacy, "emit", lambda record: emit(record) if self.has("add_log") else None)

        dispatch = self

        async def handle_client(self: Any) -> None:
            if type(self) is ProxyConnectionHandler:
                Shortcut(dispatch, self.layer)
            await serve(self)

        patches.set(server.ConnectionHandler, "handle_client", handle_client)
        patches.set(
            HttpStream, "handle_event", plain_handling(HttpStream.handle_event, self._completes_in_place)
        )
        patches.set(patches, "are_flows_unseen", self.are_flows_unseen)
        patches.on_undo(self.retire)
        self._is_on = True

    def retire(self) -> None:
        """Leave new events to mitmproxy; those that have begun are still completed."""
        self._is_on = False

    def forgetting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, extended to discard the tables: it may add or remove addons."""

        @functools.wraps(function)
        def forgetting(*args: Any, **named: Any) -> Any:
            try:
                return function(*args, **named)
            finally:
                events = [each for each in args if isinstance(each, hooks.Hook)]
                if not events or isinstance(events[0], _LIFECYCLE):
                    self._forget()

        return forgetting

    def hears(self, level: int) -> bool:
        """Return whether any log handler accepts this level."""
        logger: logging.Logger | None = server.logger
        while logger is not None:
            for handler in logger.handlers:
                is_bridge = isinstance(handler, log.LegacyLogEvents)
                if handler.level <= level and (not is_bridge or self.has("add_log")):
                    return True
            logger = logger.parent if logger.propagate else None
        return False

    def has(self, name: str) -> bool:
        """Return whether any addon has this hook."""
        return self._table(name) != ()

    def are_flows_unseen(self) -> bool:
        """Return whether no addon sees flows but the gateway and those of mitmproxy that keep none."""
        if self._are_unseen is None:
            tables = map(self._table, _HOOKS_OF_FLOWS)
            self._are_unseen = all(
                table is not None and all(map(_keeps_none, chain.from_iterable(table))) for table in tables
            )
        return self._is_on and self._are_unseen

    def _forget(self) -> None:
        self._tables.clear()
        self._are_unseen = None

    def _table(self, name: str) -> Table | None:
        """Return the addons with the hook, by top-level addon; None if mitmproxy itself must dispatch it."""
        try:
            return self._tables[name]
        except KeyError:
            return self._tables.setdefault(name, self._find(name))

    def _find(self, name: str) -> Table | None:
        groups = []
        for top in self._manager.chain:
            having = [
                addon
                for addon in addonmanager.traverse([top])
                if getattr(addon, name, None) and not _is_idle(addon)
            ]
            if not all(callable(getattr(addon, name)) for addon in having):
                return None
            if having:
                groups.append(tuple(map(_quick, having)) if name == "request" else tuple(having))
        return tuple(groups)

    def _steps(self, event: hooks.Hook, args: list[Any]) -> Steps:
        """Call all addons that have the event's hook, in mitmproxy's order."""
        name = event.name
        table = self._table(name)
        if table is None:
            yield self._slow(event)
            return
        for group in table:
            try:
                for addon in group:
                    result = getattr(addon, name)(*args)
                    if result is not None and inspect.isawaitable(result):
                        yield result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception as fault:
                _log(fault)

    def _all_steps(self, event: hooks.Hook, args: list[Any]) -> Steps:
        """Call the event's hooks, then those of the update that follows each event of a flow."""
        steps = self._steps(event, args)
        is_followed = self.has("update") and isinstance(args[0], Flow)
        return self._with_update(steps, args[0]) if is_followed else steps

    def _with_update(self, steps: Steps, flow: Flow) -> Steps:
        yield from steps
        update = hooks.UpdateHook([flow])
        yield from self._steps(update, update.args())

    def _completes_in_place(self, command: commands.Command) -> bool:
        """Return whether a command of a stream is a hook that completes there, without the way up and down the layers.

        The hook at the end of a response is left to `Shortcut`: the next request may follow it, for which the
        connections that are still busy with this one are not ready.
        """
        return type(command) in _IN_PLACE and self.complete(command)  # type: ignore[arg-type]

    def complete(self, hook: commands.StartHook) -> bool:
        """Call the addons and return whether that completes the hook; if not, `handle_lifecycle` continues it."""
        if not self._is_on or (self._begun and hook in self._begun):
            return False
        args = hook.args()
        steps = self._all_steps(hook, args)
        waiting = next(steps, None)
        if waiting is None and not getattr(args[0], "intercepted", False):
            return True
        self._begun[hook] = waiting, steps
        return False

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Call all addons that have the event's hook."""
        if isinstance(event, _LIFECYCLE) or self._table(event.name) is None:
            self._forget()
            await self._slow(event)
            self._forget()
            return
        steps = self._steps(event, event.args())
        await _finish(next(steps, None), steps)

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """Call all addons that have the event's hook, or await those already called; then the updates."""
        begun = self._begun.pop(event, None)
        if begun is None:
            steps = self._all_steps(event, event.args())
            begun = next(steps, None), steps
        await _finish(*begun)


def _is_idle(addon: object) -> bool:
    """Return whether this addon of mitmproxy does nothing with the present options."""
    state, option = _STATES.get(type(addon)), _OPTIONS.get(type(addon))
    if option is not None:
        return not getattr(ctx.options, option)
    return state is not None and not getattr(addon, state, True)


def _quick(addon: object) -> object:
    if isinstance(addon, ASGIApp) and type(addon).request in (ASGIApp.request, Onboarding.request):
        return _Hosted(addon)
    return addon


def _keeps_none(addon: object) -> bool:
    kind = type(addon)
    if kind is dumper.Dumper:
        return not ctx.options.dumper_filter
    return kind not in _KEEPERS and kind.__module__.startswith(("mitmproxy.addons.", _OURS))


class _Hosted:
    """An app of mitmproxy, whose own check takes longer, and that serves few requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Let the app answer a request that names its host."""
        named = flow.request.host_header or flow.request.host
        return self._app.request(flow) if self._app.host.lower() in named.lower() else None


async def _finish(waiting: Awaitable[object] | None, steps: Steps) -> None:
    """Await one thing after the other until the steps end."""
    while waiting is not None:
        try:
            try:
                await waiting
            except BaseException as fault:
                waiting = steps.throw(fault)
            else:
                waiting = next(steps, None)
        except StopIteration:
            return


def _log(fault: Exception) -> None:
    """Log a fault as mitmproxy does: with the traceback from the addon's own frame on."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None and _is_ours(trace):
        trace = trace.tb_next
    _addon_logger.error(f"Addon error: {fault}", exc_info=(type(fault), fault, trace))


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename == __file__
