"""The gateway as a mitmproxy addon: the hooks, in the order in which mitmproxy calls them.

Each hook reports an event to the flow's exchange and performs the step that it returns. `_finish` is the one place
that awaits, `_advance` the one that turns any fault into a refusal. Flows contain masked secrets only: the real ones are
written by `Requests.outgoing`, which `patches/safety/outgoing.py` calls while mitmproxy writes a head to its upstream.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.flow import Error
from mitmproxy.hooks import UpdateHook
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData, TlsData

from ..credentials.value import CredentialError
from ..exchange.exchange import Exchange
from ..exchange.record import Ending
from ..exchange.steps import NO_RECORDING, NO_RULES, AnswerFromRecording, NeedCredentials, NeedTurn, Step
from ..observe.stats import Stats
from ..wire.refusal import ANY_FAULT, Refusal, is_cancelled
from .commands import Commands
from .connections import Connections
from .defaults import timeout_s
from .ended import Ended
from .final_check import FinalCheck
from .flows import head_of, hide_connect, perform, perform_response, refuse, response_head_of
from .lifecycle import Lifecycle
from .live_view import Keeper, Live, is_watched
from .recorder import Recorder
from .replay import is_replay, remember_sent, restore_original, restore_original_model
from .requests import Requests, UnderWay, ending_of, keep_bodies, note_message, stream_request

logger = logging.getLogger(__name__)

NOT_NOTED = "the end of a flow could not be noted"
# The work of one hook: yields each awaitable, and receives its result. No coroutine, so that work without one, which
# is most, ends within the hook and mitmproxy awaits nothing.
HookWork = Generator[Awaitable[Any], Any, None]


class GatewayAddon:
    """Everything that mitmproxy calls. `default_rules` is the rules file where `gateway_rules` is empty."""

    name = "gateway"

    def __init__(self, default_rules: Path | None = None) -> None:
        self._requests = Requests()
        self._recorder = Recorder()
        self._ended = Ended(lambda entry: self._recorder.note(entry.exchange.complete()))
        self._keeper = Keeper()
        self._live = Live(self._show_progress)
        self._lifecycle = Lifecycle(default_rules, self._recorder, self._requests)
        self._connections = Connections(self._lifecycle, self._requests)
        self._final_check = FinalCheck(self._requests, self._connections)
        lifecycle = self._lifecycle
        self.addons = [
            Commands(lifecycle.ruleset, lifecycle.check, lifecycle.reload, self._stats, lifecycle.patches)
        ]

    # ---- start and end ----

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        self._lifecycle.load(loader)

    def configure(self, updated: set[str]) -> None:
        """Apply the changed options."""
        self._ended.record()
        self._lifecycle.configure(updated)

    def running(self) -> None:
        """Begin to serve; the final check goes to the end of the chain."""
        self._lifecycle.running()
        with contextlib.suppress(exceptions.AddonManagerError):
            ctx.master.addons.add(self._final_check)

    def done(self) -> None:
        """Stop serving."""
        self._ended.record()
        self._lifecycle.done()
        with contextlib.suppress(exceptions.AddonManagerError):
            ctx.master.addons.remove(self._final_check)

    # ---- connections ----

    def client_connected(self, client: Client) -> None:
        """Drop peers that may not use the gateway."""
        self._connections.admit(client)

    def client_disconnected(self, client: Client) -> None:
        """End the requests of a connection that is closed: mitmproxy drops those that wait without a hook.

        A replay has the connection of the flow that it repeats, and does not need it.
        """
        ended = [each.flow for each in self._requests.values() if each.flow.client_conn.id == client.id]
        for flow in (flow for flow in ended if not is_replay(flow)):
            flow.error = flow.error or Error("the client has left")
            flow.live = False
            self.websocket_end(flow)
            if is_watched():
                ctx.master.addons.trigger(UpdateHook([flow]))
        self._connections.forget(client)

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """Remember a connection to an upstream while it is open."""
        self._connections.note_opened(data.client, data.server)

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """Forget a connection to an upstream."""
        self._connections.note_closed(data.server)
        self._lifecycle.upstream_proxy.forget(data.server)

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """Log that a passing host cannot be reached."""
        contain(lambda: self._connections.note_failed(data), "a failed connection could not be logged")

    def http_connect(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Decide on a tunnel by the host that it names."""
        return self._start(flow, self._open_tunnel(flow))

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Leave hosts without rules undecrypted where the user wants that."""
        self._connections.choose_decryption(data)

    def tls_failed_client(self, data: TlsData) -> None:
        """Log the remedy where a client asks a reverse listener for https."""
        contain(
            lambda: self._connections.note_failed_tls(data.context.client), "a failure could not be logged"
        )

    # ---- requests ----

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Report the request's head to a new exchange."""
        return self._start(flow, self._begin(flow)) if flow.live and not flow.response else None

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Report the request's body."""
        entry = self._requests.get(flow.id)
        if entry is None or not flow.live or flow.response or not entry.exchange.takes_body:
            return None
        return self._start(flow, self._read_body(entry))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Report the response's head, and let the body stream."""
        if flow.live and (entry := self._requests.get(flow.id)):
            self._requests.begin_response(flow)
            contain(lambda: self._begin_response(entry), "a response's head could not be read")

    def response(self, flow: http.HTTPFlow) -> None:
        """Record the flow that has ended, and forget it; a WebSocket has only begun."""
        if flow.websocket is None and (entry := self._requests.end(flow)):
            contain(lambda: self._end(entry), NOT_NOTED)

    error = response

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Count a message, and bound the messages that are kept."""
        if entry := self._requests.get(flow.id):
            contain(lambda: note_message(entry), "a message could not be counted")

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Record the WebSocket that has ended, and forget it."""
        if entry := self._requests.end(flow):
            contain(lambda: self._end(entry), NOT_NOTED)

    # ---- the work of the hooks ----

    def _open_tunnel(self, flow: http.HTTPFlow) -> HookWork:
        try:
            if not self._lifecycle.is_ready:
                yield self._lifecycle.ready()
            if refusal := self._connections.check_tunnel(flow):
                refuse(flow, refusal)
        finally:
            hide_connect(flow)

    def _begin(self, flow: http.HTTPFlow) -> HookWork:
        if not self._lifecycle.is_ready:
            yield self._lifecycle.ready()
        if (in_force := self._lifecycle.in_force) is None:
            refuse(flow, NO_RULES)
            return
        arrival = self._connections.arrival_of(flow)
        if isinstance(arrival, Refusal):
            refuse(flow, arrival)
            return
        entry = self._requests.begin(flow, Exchange(in_force.config, arrival), in_force.credentials)
        if arrival.replay:
            restore_original(flow)
        yield from self._carry_out(entry, entry.exchange.on_request_head(head_of(flow, arrival)))

    def _read_body(self, entry: UnderWay) -> HookWork:
        flow, exchange = entry.flow, entry.exchange
        if exchange.arrival.replay:
            restore_original_model(flow)
        step = exchange.on_request_body(flow.request.raw_content or b"")
        while isinstance(step, NeedTurn):
            yield asyncio.sleep(0)
            if flow.id not in self._requests:  # the client has left
                return
            step = exchange.on_turn(step)
        yield from self._carry_out(entry, step)

    def _carry_out(self, entry: UnderWay, step: Step) -> HookWork:
        """Obtain the credentials that the exchange asks for, and perform its step."""
        flow, exchange, credentials = entry.flow, entry.exchange, entry.credentials
        if isinstance(step, NeedCredentials):
            try:
                values = credentials.all_at_hand(step.names)
                if values is None:
                    values = yield credentials.obtain(step.names)
                step = exchange.on_credentials(values)
            except CredentialError as fault:
                status = 502 if fault.may_pass else 424
                step = exchange.refuse(Refusal(status, str(fault), retry=fault.may_pass))
        if isinstance(step, AnswerFromRecording):
            if (refusal := self._answer_from_recording(entry, step)) is None:
                return
            step = refusal
        perform(step, flow, exchange, keeps_original=not self._lifecycle.patches.are_flows_unseen())
        if exchange.streams_body and self._lifecycle.may_stream:
            stream_request(entry)
        if exchange.config.is_watched and not exchange.is_answered and not exchange.is_passing:
            self._recorder.progress(flow, exchange.progress("waiting", None))

    def _answer_from_recording(self, entry: UnderWay, step: AnswerFromRecording) -> Refusal | None:
        """Answer from the recording; return the refusal of a request that is not in it."""
        flow, exchange = entry.flow, entry.exchange
        if (recording := self._lifecycle.recording) is None:
            return exchange.refuse(NO_RECORDING)
        response = recording.answer(exchange, step, flow.request.raw_content or b"")
        if isinstance(response, Refusal):
            return exchange.refuse(response)
        fields = exchange.on_recorded_response(response.headers.fields, response.raw_content or b"")
        response.headers.fields = fields
        flow.request.stream = False
        flow.response, flow.is_replay = response, "response"
        return None

    # ---- running the work ----

    def _start(self, flow: http.HTTPFlow, work: HookWork) -> Awaitable[None] | None:
        """Run the work of a hook; return an awaitable for the rest of it, None if it is done."""
        waiting = self._advance(flow, work.send, None)
        return None if waiting is None else self._finish(flow, work, waiting)

    async def _finish(self, flow: http.HTTPFlow, work: HookWork, waiting: Awaitable[Any] | None) -> None:
        """Await each awaitable of the work, until it ends."""
        while waiting is not None:
            try:
                value = await waiting
            except ANY_FAULT as fault:
                waiting = self._advance(flow, work.throw, fault)
                if is_cancelled(fault):
                    raise
            else:
                waiting = self._advance(flow, work.send, value)

    def _advance(
        self, flow: http.HTTPFlow, resume: Callable[[Any], Awaitable[Any]], value: object
    ) -> Awaitable[Any] | None:
        """Run the work up to its next awaitable, and return that. Any fault becomes a refusal."""
        try:
            return resume(value)
        except StopIteration:
            return None
        except ANY_FAULT as fault:
            entry = self._requests.get(flow.id)
            refuse(flow, fault, entry.exchange if entry else None)
            return None

    # ---- the response ----

    def _begin_response(self, entry: UnderWay) -> None:
        flow = entry.flow
        head = response_head_of(flow)
        if entry.exchange.is_passing and not self._lifecycle.may_stream:
            return
        if head is None or (plan := entry.exchange.on_response_head(head)) is None:
            return
        may_retry = plan.rejected is not None and entry.credentials.reject(*plan.rejected)
        perform_response(plan, flow, may_retry=may_retry)
        if plan.tee is not None and entry.exchange.config.is_watched:
            plan.tee.on_chunk = lambda: self._live.changed(flow)

    def _show_progress(self, flow: http.HTTPFlow) -> bool:
        """Show what has passed so far; False where there is nothing to show."""
        entry, response = self._requests.get(flow.id), flow.response
        if entry is None or response is None or (tee := entry.exchange.tee) is None:
            return False
        response.raw_content = tee.kept()
        if not entry.exchange.is_passing:
            self._recorder.progress(flow, entry.exchange.progress("streaming", response.status_code))
        return True

    def _end(self, entry: UnderWay) -> None:
        flow, exchange = entry.flow, entry.exchange
        self._live.ended(flow)
        keep_bodies(entry)
        if exchange.is_passing:
            return
        # Determined at once: the connections may be closed when the record is written.
        ending: Ending = "complete"
        if flow.error is not None or flow.websocket is not None:
            ending = ending_of(flow, exchange.silence_s, timeout_s(ctx.options))
        error = flow.error.msg.rstrip(".") if flow.error else None
        exchange.on_end(response_head_of(flow), error, ending)
        if rejected := exchange.rejected_credential():
            entry.credentials.reject(*rejected)
        if exchange.plan is not None:
            remember_sent(flow, exchange.record.model, exchange.record.model_sent)
        if self._lifecycle.patches.are_flows_unseen():  # recorded later, a few together
            self._ended.add(entry)
        else:
            self._recorder.note(exchange.complete(), flow)
            self._keeper.ended(flow, self._lifecycle.settings.keep)

    def _stats(self) -> Stats:
        """Return the totals so far."""
        self._ended.record()
        return self._recorder.stats


def contain(action: Callable[[], None], what: str) -> None:
    """Run an action that must not disturb the flow, and log its fault."""
    try:
        action()
    except ANY_FAULT as fault:
        logger.warning("%s: %s", what, type(fault).__name__)
