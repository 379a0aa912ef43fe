"""The gateway as a mitmproxy addon: options, hooks and lifecycle. It orders the steps and decides nothing.

Whatever goes wrong in a hook ends in a local answer: mitmproxy itself would log an exception and send the
request on as it stands at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.tls import ClientHelloData

from ..credentials.store import Credentials
from ..exchange import guard
from ..exchange.headers import stripped
from ..exchange.record import Record
from ..patches import table
from ..patches.patch import Gateway, Patches
from ..rules.load import load
from ..rules.problems import RulesError
from ..rules.ruleset import RuleSet
from ..rules.watch import Watcher
from ..wire.addresses import Upstream
from ..wire.refusal import Refusal, Refused
from ..wire.request import Arrival
from . import fail_closed, views
from .commands import Commands
from .exchange import Exchange
from .final_check import LastLook, knows, web_port
from .flow_list import Keeper
from .flows import arrival_of, head_of, mask, refuse
from .handling import Loaded
from .listeners import bind_to_loopback, listen_ports
from .log_filter import quote_peers, unquote_peers
from .options import (
    Settings,
    add_options,
    broken_promises,
    known_holes,
    set_where_unset,
    settle_before_exit,
)
from .private_files import make_private
from .recorder import Recorder
from .replay import is_replay

if TYPE_CHECKING:
    from ..demo import DemoGateway

logger = logging.getLogger(__name__)

# Far longer than a start takes; where rules are missing for good the program has ended by then.
START_PATIENCE_S = 5.0
NOT_RECORDED = "a flow could not be recorded"
# What decides whether the promises hold, besides the gateway's own options.
_WATCHED_OPTIONS = frozenset(
    {
        "allow_hosts",
        "ignore_hosts",
        "keep_host_header",
        "map_remote",
        "mode",
        "ssl_insecure",
        "stream_large_bodies",
        "tcp_hosts",
        "validate_inbound_headers",
    }
)


class GatewayAddon:
    """Everything that mitmproxy calls. `default_rules` is the file where `gateway_rules` says nothing."""

    name = "gateway"

    def __init__(self, default_rules: Path | None = None) -> None:
        self._default_rules = default_rules
        self._recorder = Recorder()
        self._keeper = Keeper()
        self._exchange = Exchange(
            lambda: self._demo_at, self._recorder.progress, self._ended, self._after_answer
        )
        self._last_look = LastLook(self._exchange, self._own_ports)
        self._patches = Patches(Gateway(self._exchange.body_limit, self._exchange.refuse))
        self._watchers: list[Watcher] = []
        self._demo: DemoGateway | None = None
        self._demo_at: Upstream | None = None
        self._demo_start: asyncio.Task[None] | None = None
        self._in_force = asyncio.Event()
        self._connects: set[str] = set()
        self._authenticated: set[str] = set()
        self._candidate: Loaded | None = None
        self._remove_views: Callable[[], None] = lambda: None
        self._is_configured = False
        self._is_running = False
        self.addons = [Commands(self._ruleset, self.check, self.reload, self._recorder, self._patches)]

    # ---- lifecycle ----

    def load(self, loader: Loader) -> None:
        """Declares the options and sets those of mitmproxy's that the user left alone."""
        add_options(loader)
        make_private()
        self._remove_views = views.add()
        set_where_unset(ctx.options, listen_host="127.0.0.1", keep_host_header=True)

    def configure(self, updated: set[str]) -> None:
        """Takes options over. At start a fault ends the program; later the change is rolled back."""
        if self._is_configured and not any(
            name.startswith("gateway_") or name in _WATCHED_OPTIONS for name in updated
        ):
            return
        self._is_configured = True
        problems = self._take_over(updated)
        if problems and self._is_running:
            raise exceptions.OptionsError("; ".join(problems))
        if problems:
            settle_before_exit()
        for problem in problems:
            logger.error(problem)

    def _take_over(self, updated: set[str]) -> Sequence[str]:
        """Reads options and rules; the problems, where the old ones must stay."""
        try:
            settings = Settings.read(ctx.options, self._default_rules)
            loaded = self._candidate or self._exchange.loaded
            if loaded is None or "gateway_rules" in updated:
                loaded = self._read_rules(settings.rules)
            self._recorder.write_to(settings.log)
            self._recorder.report_to(settings.otel, settings.metrics)
        except exceptions.OptionsError as fault:
            return [str(fault)]
        except RulesError as fault:
            return [str(problem) for problem in fault.problems]
        except OSError as fault:
            return [f"gateway_log: {settings.log}: {fault.strerror}"]
        if broken := list(broken_promises(ctx.options, loaded.ruleset)):
            return broken
        self._candidate, self._exchange.settings = loaded, settings
        # Before the rules are in force: from Python 3.12 on clients may connect while the program starts.
        _dial_late(loaded.ruleset)
        quote_peers() if settings.reveal else unquote_peers()
        if self._is_running:
            self._put_in_force()
            self._watch()
            self._set_speed()
        return []

    def running(self) -> None:
        """Begins to serve: from here on there are rules, before there was 503."""
        if self._candidate is None:
            return
        if problems := table.apply(self._patches, "safety"):
            settle_before_exit()
            for problem in problems:
                logger.error(problem)
            return
        self._is_running = True
        self._put_in_force()
        self._watch()
        with contextlib.suppress(exceptions.AddonManagerError):
            ctx.master.addons.add(self._last_look)
        fail_closed.stand_down()
        bind_to_loopback()
        self._set_speed()
        for advice in known_holes(ctx.options):
            logger.warning(advice)

    def done(self) -> None:
        """Stops serving. Whatever comes now is answered with 503 until the gateway runs again."""
        fail_closed.stand_in()
        self._exchange.hide_all()
        self._exchange.loaded = None
        self._is_running = False
        for watcher in self._watchers:
            watcher.stop()
        with contextlib.suppress(exceptions.AddonManagerError):
            ctx.master.addons.remove(self._last_look)
        self._remove_views()
        self._patches.undo("speed")
        self._patches.undo("safety")
        self._recorder.close()
        if self._demo is not None:
            self._stopping = asyncio.ensure_future(self._demo.stop())

    def _set_speed(self) -> None:
        if self._exchange.settings.fast:
            for problem in table.apply(self._patches, "speed"):
                logger.info(problem)
        else:
            self._patches.undo("speed")

    def _put_in_force(self) -> None:
        loaded = self._candidate
        if loaded is None or loaded is self._exchange.loaded:
            return
        self._exchange.loaded = loaded
        self._in_force.set()
        _dial_late(loaded.ruleset)
        rules = loaded.ruleset.rules
        if any(rule.upstream == "demo" for rule in rules) and self._demo is None:
            from ..demo import DemoGateway  # few rules ask for it, and its server takes a while to load

            self._demo = DemoGateway()
            self._demo_start = asyncio.get_running_loop().create_task(self._start_demo(self._demo))
        logger.info("%s: %d rules in force", loaded.ruleset.file, len(rules))

    async def _start_demo(self, demo: DemoGateway) -> None:
        self._demo_at = Upstream("http", "127.0.0.1", await demo.start())

    # ---- rules ----

    def _ruleset(self) -> RuleSet | None:
        return self._exchange.loaded.ruleset if self._exchange.loaded else None

    def _read_rules(self, path: Path | None) -> Loaded:
        if path is None:
            raise exceptions.OptionsError("no rules file; set gateway_rules=FILE")
        ruleset = load(path, os.environ)
        before = self._exchange.loaded
        credentials = Credentials(
            ruleset.credentials, warn=logger.warning, previous=before.credentials if before else None
        )
        return Loaded(ruleset, credentials)

    def check(self) -> Sequence[str]:
        """The problems of the rules file as it is now."""
        try:
            loaded = self._read_rules(self._exchange.settings.rules)
        except RulesError as fault:
            return [str(problem) for problem in fault.problems]
        except exceptions.OptionsError as fault:
            return [str(fault)]
        return list(broken_promises(ctx.options, loaded.ruleset))

    def reload(self) -> Sequence[str]:
        """Reads the rules file again; its problems, where the rules in force stay."""
        problems = self.check()
        if problems:
            logger.error(
                "the rules in force stay, the file has %d problem(s):\n%s", len(problems), "\n".join(problems)
            )
            return problems
        self._candidate = self._read_rules(self._exchange.settings.rules)
        self._put_in_force()
        return []

    def _watch(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
        settings = self._exchange.settings
        watched: list[tuple[Path | None, Callable[[], object]]] = [
            (settings.rules, self.reload),
            (settings.clients, self._reread_clients),
        ]
        self._watchers = [Watcher(path, changed) for path, changed in watched if path is not None]
        for watcher in self._watchers:
            watcher.start()

    def _reread_clients(self) -> None:
        try:
            self._exchange.settings = Settings.read(ctx.options, self._default_rules)
        except exceptions.OptionsError as fault:
            logger.error("the client keys in force stay: %s", fault)  # noqa: TRY400 - its text says it all

    # ---- connections ----

    def client_connected(self, client: Client) -> None:
        """Drops peers that may not use the gateway before anything of theirs is read."""
        try:
            may_speak = guard.check_peer(client.peername[0], self._exchange.settings.policy)
        except (Exception, asyncio.CancelledError) as fault:
            logger.warning("a peer could not be checked: %s", type(fault).__name__)
            may_speak = False
        if not may_speak:
            client.error = "mitm-gateway: only this machine may connect; gateway_clients lets others in"
            logger.warning("dropped a connection from %s: %s", client.peername[0], client.error)

    def client_disconnected(self, client: Client) -> None:
        """Forgets what was known of a connection."""
        self._connects.discard(client.id)
        self._authenticated.discard(client.id)

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Decides on a tunnel by the host it names."""
        await self._finished(flow, self._open_tunnel(flow))
        # The headers of a CONNECT end here, so no key in them is needed any longer.
        flow.request.headers.fields = stripped(flow.request.headers.fields)
        mask(flow.request, ())

    async def _until_in_force(self) -> None:
        """Lets what comes while the program starts (a replay, say) wait for the rules, for a moment."""
        if self._in_force.is_set():
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._in_force.wait(), START_PATIENCE_S)

    async def _open_tunnel(self, flow: http.HTTPFlow) -> None:
        await self._until_in_force()
        ruleset = self._ruleset()
        if ruleset is None:
            raise Refused(Refusal(503, "no rules are loaded yet; try again", retry=True))
        head = head_of(flow, self._arrival(flow))
        knows = ruleset.knows_host(head.host, head.port)
        policy = self._exchange.settings.policy
        if policy.client_keys is not None:
            if any(policy.knows_key(key) for key in guard.keys_in(head)):
                self._authenticated.add(flow.client_conn.id)
            elif not knows:
                raise Refused(Refusal(401, "a client key is needed; send one as Proxy-Authorization"))
        if not knows and ruleset.unmatched == "block":
            raise Refused(Refusal(404, "no rule is about this host, and unmatched requests are blocked"))
        self._connects.add(flow.client_conn.id)

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Leaves hosts without rules undecrypted where the user wants that."""
        ruleset = self._ruleset()
        if ruleset is None or not self._exchange.settings.only_rule_hosts:
            return
        address = data.context.server.address
        names = [name for name in (data.client_hello.sni, address[0] if address else None) if name]
        port = address[1] if address else 443
        data.ignore_connection = not any(knows(ruleset, name, port) for name in names)

    # ---- requests ----

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """The head has come: refuse it, leave it alone, or make it what the rule says."""
        return self._or_refuse(flow, self._open) if flow.live and not flow.response else None

    def _open(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        is_ready = self._in_force.is_set() and (self._demo_start is None or self._demo_start.done())
        return self._exchange.open(flow, self._arrival(flow)) if is_ready else self._open_later(flow)

    async def _open_later(self, flow: http.HTTPFlow) -> None:
        await self._until_in_force()
        if self._demo_start is not None and not self._demo_start.done():
            await asyncio.wait([self._demo_start], timeout=START_PATIENCE_S)
        if waiting := self._exchange.open(flow, self._arrival(flow)):
            await waiting

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """The body has come: edit it."""
        return self._or_refuse(flow, self._exchange.read_body) if flow.live and not flow.response else None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The answer begins."""
        if flow.live:
            _contained(lambda: self._exchange.answer(flow), "an answer's head could not be looked at")

    def response(self, flow: http.HTTPFlow) -> None:
        """The answer is complete."""
        _contained(lambda: self._exchange.finish(flow), NOT_RECORDED)

    error = response

    def _after_answer(self, step: Callable[[], None]) -> None:
        self._patches.after_answer(self, lambda: _contained(step, NOT_RECORDED))

    def _ended(self, flow: http.HTTPFlow, record: Record) -> None:
        self._recorder.note(flow, record)
        self._keeper.ended(flow, self._exchange.settings.keep)

    def _or_refuse(
        self, flow: http.HTTPFlow, step: Callable[[http.HTTPFlow], Awaitable[None] | None]
    ) -> Awaitable[None] | None:
        """Takes a step, or gives what it has to wait for; whatever it raises becomes a local answer."""
        try:
            waiting = step(flow)
        except (Exception, asyncio.CancelledError) as fault:
            self._answer_fault(flow, fault)
            return None
        return self._finished(flow, waiting) if waiting else None

    async def _finished(self, flow: http.HTTPFlow, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except (Exception, asyncio.CancelledError) as fault:
            self._answer_fault(flow, fault)
            task = asyncio.current_task()
            if isinstance(fault, asyncio.CancelledError) and task is not None and task.cancelling():
                raise

    # No context manager made from a generator: its frame and the fault's traceback hold each other, and both hold
    # the request's body until the next garbage collection.
    def _answer_fault(self, flow: http.HTTPFlow, fault: BaseException) -> None:
        match fault:
            case Refused():
                self._exchange.refuse(flow, fault.refusal)
            case asyncio.CancelledError():
                self._refuse_fault(flow, "cancelled")
            case _:
                self._refuse_fault(flow, type(fault).__name__)

    def _refuse_fault(self, flow: http.HTTPFlow, kind: str) -> None:
        # The fault's text may hold a secret, so only its kind is told.
        logger.warning("internal fault while handling a request: %s", kind)
        refusal = Refusal(502, f"internal fault ({kind}); nothing was sent")
        try:
            self._exchange.refuse(flow, refusal)
        except Exception:
            refuse(flow, replace(refusal, rule=None))

    def _arrival(self, flow: http.HTTPFlow) -> Arrival:
        client = flow.client_conn
        return arrival_of(
            client,
            inside_connect=client.id in self._connects,
            authenticated=client.id in self._authenticated,
            replay=is_replay(flow),
        )

    def _own_ports(self) -> frozenset[int]:
        web = web_port()
        return listen_ports() | (frozenset({web}) if web else frozenset())


def _contained(step: Callable[[], None], what: str) -> None:
    try:
        step()
    except (Exception, asyncio.CancelledError) as fault:
        logger.warning("%s: %s", what, type(fault).__name__)


def _dial_late(ruleset: RuleSet) -> None:
    """Has mitmproxy contact no host before a rule had its say, unless the user wants it otherwise."""
    redirects = any(rule.upstream is not None for rule in ruleset.rules)
    if redirects and set_where_unset(ctx.options, connection_strategy="lazy"):
        logger.info("connection_strategy is lazy: hosts that rules redirect are not contacted")
