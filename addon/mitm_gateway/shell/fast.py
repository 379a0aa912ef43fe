"""What makes mitmproxy quicker without taking anything of it away (`gateway_fast`).

At each of some eight hooks a request, mitmproxy asks all of its 33 addons whether they have that hook. Here
a table per hook remembers who has; it is made anew whenever addons come or go, or options change. Bytes are
read in larger pieces and written in fewer. Everything that is looked for in mitmproxy's insides is checked
first; a part whose place looks otherwise stays off, with one line in the log.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any

from mitmproxy import addonmanager, exceptions, hooks, optmanager
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
# Pieces of a message that are written together; copying a larger one would cost more than it saves.
_JOINED_BYTES = 128 << 10
# Options of these types cannot be changed by who reads them, so they need no copy.
_UNCHANGING = (bool, str, int, float, type(None))

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
        parts = (
            self._dispatch,
            self._large_reads,
            self._joined_writes,
            self._uncopied_options,
            self._rare_collections,
        )
        for part in parts:
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

    def _joined_writes(self, master: Master) -> None:
        """Sends what answers one event in one piece: a head, its body and the end, instead of three."""
        handler = server.ConnectionHandler
        serve, take = handler.handle_connection, handler.server_event
        _expect(serve, ["self", "connection"])
        _expect(take, ["self", "event"])
        corks: weakref.WeakKeyDictionary[asyncio.StreamWriter, Cork] = weakref.WeakKeyDictionary()

        async def handle_connection(self: Any, connection: Any) -> None:
            writer = self.transports[connection].writer
            if isinstance(writer, asyncio.StreamWriter):
                corks[writer] = Cork(writer)
            await serve(self, connection)

        async def server_event(self: Any, event: Any) -> None:
            try:
                await take(self, event)
            finally:
                for transport in self.transports.values():
                    if transport.writer is not None and (cork := corks.get(transport.writer)):
                        cork.flush()

        def undo() -> None:
            for cork in corks.values():
                cork.take_out()

        self._set(handler, "handle_connection", handle_connection)
        self._set(handler, "server_event", server_event)
        self._undo.append(undo)

    def _uncopied_options(self, master: Master) -> None:
        """Each look at an option makes a deep copy, some thirty times a request; most options need none."""
        option, unset = optmanager._Option, optmanager.unset
        copied = option.current
        _expect(copied, ["self"])
        if not {"value", "_default"} <= set(option.__slots__):
            raise AttributeError("_Option")

        def current(self: Any) -> Any:
            value = self._default if self.value is unset else self.value
            return value if isinstance(value, _UNCHANGING) else copied(self)

        self._set(option, "current", current)

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


class Cork:
    """Holds what is written to a connection until `flush`, or until the connection is to end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        # A writer that knew its cork would keep itself alive, so only the bound list is put into it.
        self._transport = writer.transport
        self._writer = weakref.ref(writer)
        self._held: list[bytes] = []
        writer.write = self._held.append  # type: ignore[method-assign, assignment]
        writer.write_eof = self._write_eof  # type: ignore[method-assign]

    def flush(self) -> None:
        """Writes what is held."""
        held = self._held
        if not held:
            return
        if not self._transport.is_closing():
            if len(held) > 1 and sum(map(len, held)) <= _JOINED_BYTES:
                self._transport.write(b"".join(held))
            else:
                for piece in held:
                    self._transport.write(piece)
        held.clear()

    def take_out(self) -> None:
        """Lets the connection write for itself again."""
        self.flush()
        writer = self._writer()
        if writer is not None:
            del writer.write, writer.write_eof

    def _write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()


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
