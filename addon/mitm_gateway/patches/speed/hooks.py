"""Hooks: a table of who has which, and no task for a hook in which nobody has to wait.

At each of some eight hooks a request, mitmproxy asks all of its 33 addons whether they have that hook, and
makes a task in which they are called. Order, faults and the end by AddonHalt are mitmproxy's here too.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
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
)
from mitmproxy.addons.asgiapp import ASGIApp
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.flow import Flow
from mitmproxy.proxy import commands, events, layer, server
from mitmproxy.proxy.layers.http import DropStream, HttpStream
from mitmproxy.proxy.layers.http._hooks import (
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
)
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from ..patch import Patches, expect

# Faults of addons are logged under mitmproxy's own name, as without us.
_addon_logger = logging.getLogger("mitmproxy.addonmanager")

_LIFECYCLE = (hooks.ConfigureHook, hooks.RunningHook, hooks.DoneHook)
_IN_PLACE = frozenset({HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook})
Table = tuple[tuple[Any, ...], ...]
Commands = Iterable[commands.Command]
# What these addons of mitmproxy's do is in these attributes, which change with options only.
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
# And these look at an option each time.
_OPTIONS: dict[type, str] = {
    anticache.AntiCache: "anticache",
    anticomp.AntiComp: "anticomp",
    savehar.SaveHar: "hardump",
}
# Calls the addons; yields what has to be waited for.
Steps = Generator[Awaitable[object], None, None]


def index_hooks(patches: Patches) -> None:
    """Call the addons from a table, without a task where no hook has to wait."""
    Dispatch(ctx.master.addons).install(patches)


def _hooks_in_place(handle_event: Callable[..., Commands], dispatch: Dispatch) -> Callable[..., Commands]:
    """As `Shortcut`, in the stream itself, which saves the way up and down again through the layers.

    Not for the hook at an answer's end: what follows it may be the next request, which the connections that are
    still busy with this one are not ready for.
    """
    expect(handle_event, "self", "event")

    def hooks_in_place(self: Any, event: events.Event) -> Commands:
        due: events.Event | None = event
        is_over = False
        while due is not None:
            event, due = due, None
            for command in handle_event(self, event):
                if type(command) in _IN_PLACE and dispatch.complete(command):  # type: ignore[arg-type]
                    due = events.HookCompleted(command)  # type: ignore[arg-type]
                else:
                    is_over = is_over or type(command) is DropStream
                    yield command
        if is_over and not self._paused:
            # No event comes here any more, and the stream refers to itself: until the next collection, which large
            # bodies do not bring nearer, it would keep its flow.
            del self.flow

    return hooks_in_place


class Shortcut:
    """Stands before a connection's layers and completes their hooks at once, where nobody has to wait."""

    def __init__(self, inner: layer.Layer, dispatch: Dispatch) -> None:
        self._inner = inner
        self._dispatch = dispatch
        self._due: deque[events.Event] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def handle_event(self, event: events.Event) -> Commands:
        """What is left for the connection handler to do."""
        self._due.append(event)
        while self._due:
            for command in self._inner.handle_event(self._due.popleft()):
                if isinstance(command, commands.StartHook) and self._dispatch.complete(command):
                    if command.blocking:
                        self._due.append(events.HookCompleted(command))
                elif not isinstance(command, commands.Log) or self._dispatch.hears(command.level):
                    yield command


class Dispatch:
    """mitmproxy's event dispatch with a table of who has which hook.

    The table is made anew whenever addons come or go, or options change. A fault skips the rest of its
    top-level addon.
    """

    def __init__(self, manager: addonmanager.AddonManager) -> None:
        self._manager = manager
        self._slow = manager.trigger_event
        self._tables: dict[str, Table | None] = {}
        self._begun: dict[hooks.Hook, tuple[Awaitable[object] | None, Steps]] = {}
        self._is_on = False

    def install(self, patches: Patches) -> None:
        """Replace mitmproxy's dispatch, and put a Shortcut before each connection's layers."""
        manager, legacy = self._manager, ctx.master._legacy_log_events
        expect(manager.trigger_event, "event")
        expect(manager.handle_lifecycle, "event")
        serve = server.ConnectionHandler.handle_client
        expect(serve, "self")
        emit = legacy.emit
        for name in ("register", "remove", "clear", "trigger", "invoke_addon_sync"):
            patches.set(manager, name, self.forgetting(getattr(manager, name)))
        patches.set(manager, "trigger_event", self.trigger_event)
        patches.set(manager, "handle_lifecycle", self.handle_lifecycle)
        # The bridge for old scripts passes each log record to all addons, whether one listens or not.
        patches.set(legacy, "emit", lambda record: emit(record) if self.has("add_log") else None)

        dispatch = self

        async def handle_client(self: Any) -> None:
            if type(self) is ProxyConnectionHandler:
                self.layer = Shortcut(self.layer, dispatch)  # type: ignore[assignment]
            await serve(self)

        patches.set(server.ConnectionHandler, "handle_client", handle_client)
        patches.set(HttpStream, "handle_event", _hooks_in_place(HttpStream.handle_event, self))
        patches.set(patches, "is_last", self.is_last)
        patches.on_undo(self.retire)
        self._is_on = True

    def retire(self) -> None:
        """Leaves all to mitmproxy again; what has begun is still brought to its end."""
        self._is_on = False

    def forgetting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the tables made anew after it: addons may have come or gone."""

        def forgetting(*args: Any, **named: Any) -> Any:
            try:
                return function(*args, **named)
            finally:
                events = [each for each in args if isinstance(each, hooks.Hook)]
                if not events or isinstance(events[0], _LIFECYCLE):
                    self._tables.clear()

        return forgetting

    def hears(self, level: int) -> bool:
        """Whether anybody hears what the proxy logs at this level."""
        logger: logging.Logger | None = server.logger
        while logger is not None:
            for handler in logger.handlers:
                is_bridge = isinstance(handler, log.LegacyLogEvents)
                if handler.level <= level and (not is_bridge or self.has("add_log")):
                    return True
            logger = logger.parent if logger.propagate else None
        return False

    def has(self, name: str) -> bool:
        """Whether any addon has this hook."""
        return self._table(name) != ()

    def is_last(self, addon: object, *names: str) -> bool:
        """Whether nobody sees a flow in these hooks after an addon, but mitmproxy's own line on the terminal."""
        return self._is_on and all(self._is_last(addon, name) for name in names)

    def _is_last(self, addon: object, name: str) -> bool:
        having = list(chain.from_iterable(self._table(name) or ()))
        return addon in having and all(map(_only_prints, having[having.index(addon) + 1 :]))

    def _table(self, name: str) -> Table | None:
        """Those with the hook, by top-level addon; None where mitmproxy itself must look."""
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
                groups.append(tuple(having))
        return tuple(groups)

    def _steps(self, event: hooks.Hook, args: list[Any]) -> Steps:
        """Calls all that have the event's hook, in mitmproxy's order."""
        name = event.name
        table = self._table(name)
        if table is None:
            yield self._slow(event)
            return
        for group in table:
            try:
                for addon in group:
                    if name == "request" and _serves_nothing(addon, *args):
                        continue
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
        """The event, and the update that follows each event of a flow, if anybody waits for updates."""
        steps = self._steps(event, args)
        is_followed = self.has("update") and isinstance(args[0], Flow)
        return self._with_update(steps, args[0]) if is_followed else steps

    def _with_update(self, steps: Steps, flow: Flow) -> Steps:
        yield from steps
        update = hooks.UpdateHook([flow])
        yield from self._steps(update, update.args())

    def complete(self, hook: commands.StartHook) -> bool:
        """Calls the addons; whether that is all. If not, `handle_lifecycle` for this hook does the rest."""
        if not self._is_on or hook in self._begun:
            return False
        args = hook.args()
        steps = self._all_steps(hook, args)
        waiting = next(steps, None)
        if waiting is None and not getattr(args[0], "intercepted", False):
            return True
        self._begun[hook] = waiting, steps
        return False

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Calls all that have the event's hook."""
        if isinstance(event, _LIFECYCLE) or self._table(event.name) is None:
            self._tables.clear()
            await self._slow(event)
            self._tables.clear()
            return
        steps = self._steps(event, event.args())
        await _finish(next(steps, None), steps)

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """Calls all that have the event's hook, then those that wait for updates."""
        begun = self._begun.pop(event, None)
        if begun is None:
            steps = self._all_steps(event, event.args())
            begun = next(steps, None), steps
        await _finish(*begun)


def _is_idle(addon: object) -> bool:
    """Whether it is an addon of mitmproxy's that was told to do nothing; options tell it otherwise."""
    state, option = _STATES.get(type(addon)), _OPTIONS.get(type(addon))
    if option is not None:
        return not getattr(ctx.options, option)
    return state is not None and not getattr(addon, state, True)


def _only_prints(addon: object) -> bool:
    return type(addon) is dumper.Dumper and not ctx.options.dumper_filter


def _serves_nothing(addon: object, flow: http.HTTPFlow) -> bool:
    """Whether it is an addon of mitmproxy's that would find, after some work, that the request is not for it."""
    return (
        isinstance(addon, ASGIApp)
        and type(addon).request in (ASGIApp.request, Onboarding.request)
        and (not _may_name(addon.host, flow.request) or not addon.should_serve(flow))
    )


def _may_name(host: str, request: http.Request) -> bool:
    """Whether a request could name a host at all; reading what it names takes longer than looking for that."""
    named = b"\n".join([request.data.authority, *(value for _, value in request.headers.fields)])
    return host == request.host or host.lower().encode() in named.lower()


async def _finish(waiting: Awaitable[object] | None, steps: Steps) -> None:
    """Waits for what is to be waited for, until there is nothing more."""
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
    """As mitmproxy logs it: with the traceback from the addon's own frame on."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None and _is_ours(trace):
        trace = trace.tb_next
    _addon_logger.error(f"Addon error: {fault}", exc_info=(type(fault), fault, trace))


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename == __file__
