"""The way of an event down through mitmproxy's layers, and of its commands up."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    RegisterHttpConnection,
    SendHttp,
)
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders

from ..patch import Patches, Unexpected

LayerCommands = Iterable[commands.Command]
Handle = Callable[[Any, events.Event], LayerCommands]
# The kinds that mitmproxy's own loop knows.
_KINDS = {
    *(
        "ReceiveHttp",
        "RequestHeaders",
        "SendHttp",
        "DropStream",
        "GetHttpConnection",
        "RegisterHttpConnection",
    ),
    *("Command", "OpenConnection", "RequestWakeup", "AssertionError", "KeyError"),
}


def plain_layers(patches: Patches) -> None:
    """Handle events without debug output, and all layers of a connection's requests in one loop."""
    if {name for name in HttpLayer.event_to_child.__code__.co_names if name[0].isupper()} != _KINDS:
        raise Unexpected("HttpLayer.event_to_child")
    patches.wrap(layer.Layer, "handle_event", plain_handling)
    patches.set(HttpLayer, "event_to_child", _event_to_child)


def plain_handling(
    handle_event: Handle, complete: Callable[[commands.Command], bool] = lambda command: False
) -> Handle:
    """Return mitmproxy's `handle_event`, which passes on a layer's commands, and pauses the layer at a blocking one.

    The layer continues at once after a command that `complete` completes.
    """

    def handle(self: Any, event: events.Event) -> LayerCommands:
        if self._paused or self.debug is not None:
            yield from handle_event(self, event)
            return
        steps = self._handle_event(event)
        for command in steps:
            if command.blocking is not True:
                yield command
            elif not complete(command):
                command.blocking = self
                self._paused = layer.Paused(command, steps)
                yield command
                return

    return handle


def _event_to_child(self: Any, child: Any, event: events.Event) -> LayerCommands:
    """Pass an event to a layer, and the layer's own events to their receivers before it continues."""
    running: list[tuple[Any, Iterator[Any]]] = [(child, iter(child.handle_event(event)))]
    ended: list[Any] = []
    while running:
        child, steps = running[-1]
        for command in steps:
            receiver, kind = None, type(command)
            if command.blocking or kind is commands.RequestWakeup:
                self.command_sources[command] = child
            if kind is SendHttp:
                receiver = self.connections[command.connection]
            elif kind is ReceiveHttp:
                if type(command.event) is RequestHeaders:
                    yield from self.make_stream(command.event.stream_id)
                receiver = self.streams.get(command.event.stream_id)
            elif kind is DropStream:
                ended.append(self.streams.pop(command.stream_id, None))
            elif kind is GetHttpConnection:
                yield from self.get_connection(command)
            elif kind is RegisterHttpConnection:
                yield from self.register_connection(command)
            else:
                if kind is commands.OpenConnection:
                    self.connections[command.connection] = child
                yield command
            if receiver is not None:
                running.append((receiver, iter(receiver.handle_event(command.event))))
                break
        else:
            running.pop()
    _free_flows(ended)


def _free_flows(ended: list[Any]) -> None:
    """Take the flows from streams that have ended.

    Such a stream receives no more events and refers to itself: it would keep its flow until the next garbage
    collection, which large bodies do not bring nearer.
    """
    for stream in ended:
        if stream is not None and not stream._paused:
            vars(stream).pop("flow", None)
