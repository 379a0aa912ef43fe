"""Quicker hook dispatch inside mitmproxy, without taking anything of it away (`gateway_fast`).

At each of some eight hooks a request, mitmproxy asks all of its 33 addons whether they have that hook. Here
a table per hook remembers who has; it is made anew whenever addons come or go, or options change. Everything
that is looked for in mitmproxy's insides is checked first, and where it is not there nothing is changed.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import addonmanager, exceptions, hooks
from mitmproxy.flow import Flow
from mitmproxy.master import Master
from mitmproxy.proxy import server

logger = logging.getLogger(__name__)
# Faults of addons are logged under mitmproxy's own name, as without us.
_addon_logger = logging.getLogger("mitmproxy.addonmanager")

# What mitmproxy reads at a time, and what is read instead: a large body comes in fewer events.
_READ_BYTES, _LARGE_READ_BYTES = 65535, 1 << 20
# Requests leave few cycles behind; looking for them after each 700 allocations costs a tenth of the time.
_GC_THRESHOLDS = (20_000, 20, 20)

_LIFECYCLE = (hooks.ConfigureHook, hooks.RunningHook, hooks.DoneHook)
Table = tuple[tuple[Any, ...], ...]


class Fast:
    """The changes to one mitmproxy, and their undoing."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def install(self, master: Master) -> None:
        """Makes mitmproxy quicker, as far as its insides are as expected."""
        if self._undo:
            return
        for part in (self._dispatch, self._large_reads, self._rare_collections):
            try:
                part(master)
            except (AttributeError, TypeError) as fault:
                logger.info("gateway_fast: this mitmproxy is built otherwise (%s), a part stays off", fault)

    def uninstall(self) -> None:
        """Puts mitmproxy's own ways back."""
        while self._undo:
            self._undo.pop()()

    def _set(self, owner: Any, name: str, value: object) -> None:
        """Replaces an attribute; undoing takes an instance's own away again, so that the class shows."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._undo.append(lambda: delattr(owner, name))
        else:
            self._undo.append(lambda: setattr(owner, name, before))

    def _dispatch(self, master: Master) -> None:
        manager = master.addons
        _expect(manager.trigger_event, ["event"])
        _expect(manager.handle_lifecycle, ["event"])
        legacy = master._legacy_log_events
        emit = legacy.emit
        dispatch = Dispatch(manager)
        for name in ("register", "remove", "clear", "trigger", "invoke_addon_sync"):
            self._set(manager, name, dispatch.forgetting(getattr(manager, name)))
        self._set(manager, "trigger_event", dispatch.trigger_event)
        self._set(manager, "handle_lifecycle", dispatch.handle_lifecycle)
        # The bridge for old scripts passes each log record to all addons, whether one listens or not.
        self._set(legacy, "emit", lambda record: emit(record) if dispatch.has("add_log") else None)

    def _large_reads(self, master: Master) -> None:
        original = server.ConnectionHandler.handle_connection
        _expect(original, ["self", "connection"])

        async def handle_connection(self: Any, connection: Any) -> None:
            _read_more(self.transports[connection].reader)
            await original(self, connection)

        self._set(server.ConnectionHandler, "handle_connection", handle_connection)

    def _rare_collections(self, master: Master) -> None:
        before = gc.get_threshold()
        gc.collect()
        gc.freeze()  # what is there now stays; it need not be looked at again
        gc.set_threshold(*_GC_THRESHOLDS)

        def undo() -> None:
            gc.set_threshold(*before)
            gc.unfreeze()

        self._undo.append(undo)


_ABSENT = object()


def _expect(function: Callable[..., object], names: list[str]) -> None:
    if list(inspect.signature(function).parameters) != names:
        raise TypeError(function.__name__)


def _read_more(reader: object) -> None:
    if not isinstance(reader, asyncio.StreamReader):
        return
    read = reader.read
    reader._limit = _LARGE_READ_BYTES  # type: ignore[attr-defined]
    reader.read = lambda n=-1: read(_LARGE_READ_BYTES if n == _READ_BYTES else n)  # type: ignore[method-assign]


class Dispatch:
    """mitmproxy's event dispatch with a table of who has which hook.

    Order, faults and the end by AddonHalt are mitmproxy's: a fault skips the rest of its top-level addon.
    """

    def __init__(self, manager: addonmanager.AddonManager) -> None:
        self._manager = manager
        self._slow = manager.trigger_event
        self._tables: dict[str, Table | None] = {}

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

    def has(self, name: str) -> bool:
        """Whether any addon has this hook."""
        return self._table(name) != ()

    def _table(self, name: str) -> Table | None:
        """Those with the hook, by top-level addon; None where mitmproxy itself must look."""
        try:
            return self._tables[name]
        except KeyError:
            return self._tables.setdefault(name, self._find(name))

    def _find(self, name: str) -> Table | None:
        groups = []
        for top in self._manager.chain:
            having = [addon for addon in addonmanager.traverse([top]) if getattr(addon, name, None)]
            if not all(callable(getattr(addon, name)) for addon in having):
                return None
            if having:
                groups.append(tuple(having))
        return tuple(groups)

    async def trigger_event(self, event: hooks.Hook) -> None:
        """Calls all that have the event's hook, in mitmproxy's order."""
        if isinstance(event, _LIFECYCLE):
            self._tables.clear()
            await self._slow(event)
            self._tables.clear()
            return
        name = event.name
        table = self._table(name)
        if table is None:
            await self._slow(event)
            return
        if not table:
            return
        args = event.args()
        for group in table:
            try:
                for addon in group:
                    result = getattr(addon, name)(*args)
                    if result is not None and inspect.isawaitable(result):
                        await result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception as fault:
                _log(fault)

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """The event, and the update that follows each event of a flow, if anybody waits for updates."""
        message = event.args()[0]
        await self.trigger_event(event)
        if isinstance(message, Flow) and self._table("update") != ():
            await self.trigger_event(hooks.UpdateHook([message]))


def _log(fault: Exception) -> None:
    """As mitmproxy logs it: with the traceback from the addon's own frame on."""
    trace = fault.__traceback__
    shown = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    _addon_logger.error(f"Addon error: {fault}", exc_info=(type(fault), fault, shown))
