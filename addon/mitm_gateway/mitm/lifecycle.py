"""Start, reload and end: the options, the rules in force, the watchers, the demo gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from ..credentials.store import Credentials
from ..exchange.config import Config
from ..patches import table
from ..patches.patch import Gateway, Patches
from ..rules.load import load
from ..rules.problems import RulesError
from ..rules.ruleset import RuleSet
from ..rules.watch import Watcher
from ..text.printable import counted
from ..wire.addresses import Upstream
from ..wire.proxies import ENVIRONMENT, SETTING_VARIABLE
from ..wire.refusal import ANY_FAULT
from ..wire.request import Arrival
from . import fail_closed, live_view, views
from .defaults import dial_late, set_defaults
from .failed_start import end_start
from .flows import head_of
from .listeners import bind_to_loopback, deepen_backlogs
from .log_filter import unquote_peers
from .option_conflicts import WATCHED, broken_promises, known_holes
from .options import Settings, add_options, take_out_faults
from .private_files import make_private
from .recorder import Recorder
from .recording_file import RecordingError
from .requests import Requests
from .upstream_proxy import UpstreamProxy

if TYPE_CHECKING:
    from ..demo import DemoGateway
    from .server_replay import ServerReplay

logger = logging.getLogger(__name__)

# Far longer than a start takes; where rules are missing for good the program has ended by then.
START_PATIENCE_S = 5.0
# With these, other addons of mitmproxy work on whole bodies.
_NEED_BODIES = ("intercept", "map_local", "map_remote", "modify_body", "server_replay")
_REPLAY = "server_replay"
_WATCHED_OPTIONS = WATCHED.union(_NEED_BODIES)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of the rules, and its credentials."""

    ruleset: RuleSet
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class InForce:
    """Everything that a new request begins with."""

    config: Config
    credentials: Credentials


class Lifecycle:
    """The state of the gateway between its start and its end."""

    def __init__(self, default_rules: Path | None, recorder: Recorder, requests: Requests) -> None:
        self.settings = Settings()
        self.in_force: InForce | None = None
        """None before the rules are loaded and after the end: every request is answered with 503."""
        self.upstream_proxy = proxy = UpstreamProxy(lambda: self.settings.proxies, requests)
        self.patches = Patches(
            Gateway(
                requests.body_limit,
                requests.refuse,
                requests.outgoing,
                proxy.dial,
                proxy.for_proxy,
                proxy.asks_for_login,
                self._is_tunnelled,
                lambda: bool(requests.streaming),
                requests.error_form,
            )
        )
        self._default_rules = default_rules
        self._recorder = recorder
        self._watchers: list[Watcher] = []
        self._candidate: Loaded | None = None
        self._demo: DemoGateway | None = None
        self._demo_at: Upstream | None = None
        self._has_rules = asyncio.Event()
        self._remove_views: Callable[[], None] = lambda: None
        self.may_stream = True
        """Requests that no rule takes may stream: no addon of mitmproxy needs their whole bodies."""
        self.recording: ServerReplay | None = None
        """The recorded responses that answer the requests of rules instead of their upstreams."""
        self._is_configured = False
        self._is_running = False

    # ---- start and end ----

    def load(self, loader: Loader) -> None:
        """Declare the options, and set those of mitmproxy that the user left alone."""
        add_options(loader)
        if faults := take_out_faults(ctx.options):
            end_start(faults)
        make_private()
        self._remove_views = views.register(lambda: self.settings.view_limit)
        set_defaults(ctx.options)

    def configure(self, updated: set[str]) -> None:
        """Apply the changed options. At start a fault ends the program; later the change is rolled back."""
        is_ours = any(name.startswith(("gateway_", _REPLAY)) or name in _WATCHED_OPTIONS for name in updated)
        if self._is_configured and not is_ours:
            return
        self._is_configured = True
        problems = self._take_over(updated)
        if problems and self._is_running:
            raise exceptions.OptionsError("; ".join(problems))
        if problems:
            end_start(problems)

    def _take_over(self, updated: set[str]) -> Sequence[str]:
        """Read options and rules; return the problems, for which the old ones stay."""
        try:
            settings = Settings.read(ctx.options, self._default_rules)
            loaded = self._candidate
            if loaded is None or "gateway_rules" in updated:
                loaded = self._read_rules(settings.rules)
            if problems := self._take_prices(settings.prices):
                return problems
            self._recorder.write_to(settings.log)
            self._recorder.report_to(settings.otel, settings.metrics)
            is_replayed_anew = any(name.startswith(_REPLAY) for name in updated)
            recording = _recording() if is_replayed_anew else self.recording
        except RecordingError as fault:
            return [f"{_REPLAY}: {fault}"]
        except exceptions.OptionsError as fault:
            return [str(fault)]
        except RulesError as fault:
            return [str(problem) for problem in fault.problems]
        except OSError as fault:
            return [f"gateway_log: {settings.log}: {fault.strerror}"]
        if broken := list(broken_promises(ctx.options, loaded.ruleset)):
            return broken
        self._candidate, self.settings, self.recording = loaded, settings, recording
        _tell_helpers(ctx.options.gateway_proxy)
        self.may_stream = not any(name in ctx.options and getattr(ctx.options, name) for name in _NEED_BODIES)
        # Before the rules are in force: from Python 3.12 on clients may connect while the program starts.
        self._dial_late(loaded.ruleset)
        unquote_peers(not settings.reveal)
        if self._is_running:
            self._put_in_force(loaded)
            self._watch()
            self._set_speed()
            self.upstream_proxy.announce()
        return []

    def running(self) -> None:
        """Begin to serve: from now on there are rules."""
        if self._candidate is None:
            return
        if problems := table.apply(self.patches, "safety"):
            end_start(problems)
            return
        self._is_running = True
        self._put_in_force(self._candidate)
        self._watch()
        fail_closed.stand_down()
        deepen_backlogs()
        bind_to_loopback()
        self._set_speed()
        self.upstream_proxy.announce()
        if self.recording is not None:
            logger.info(self.recording.describe())
        for advice in known_holes(ctx.options):
            logger.warning(advice)

    def done(self) -> None:
        """Stop serving: requests are answered with 503 until the gateway runs again."""
        fail_closed.stand_in()
        self.in_force = None
        self._is_running = False
        for watcher in self._watchers:
            watcher.stop()
        self._remove_views()
        self.patches.undo("speed")
        self.patches.undo("safety")
        self._recorder.close()
        if self._demo is not None:
            self._stopping = asyncio.ensure_future(self._demo.stop())

    def _set_speed(self) -> None:
        if not self.settings.fast:
            self.patches.undo("speed")
            return
        for problem in table.apply(self.patches, "speed"):
            logger.info(problem)

    # ---- readiness ----

    @property
    def is_ready(self) -> bool:
        """Return whether requests can be decided on now."""
        return self._has_rules.is_set()

    async def ready(self) -> None:
        """Let a request that arrives during the start (a replay, for example) wait a moment for the rules."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_rules.wait(), START_PATIENCE_S)

    # ---- rules ----

    def ruleset(self) -> RuleSet | None:
        """Return the rules in force."""
        return self.in_force.config.ruleset if self.in_force else None

    def _is_tunnelled(self, flow: http.HTTPFlow) -> bool:
        """Return whether a CONNECT is for a host that is not decrypted."""
        ruleset = self.ruleset()
        if ruleset is None or not self.settings.only_rule_hosts:
            return False
        return not ruleset.knows_host(head_of(flow, Arrival(mode="regular")).host, flow.request.port)

    def check(self) -> Sequence[str]:
        """Return the problems of the rules file as it is now."""
        return self._reading()[1]

    def reload(self) -> Sequence[str]:
        """Read the rules file again and put it in force; return its problems, for which the old rules stay."""
        loaded, problems = self._reading()
        if loaded is None or problems:
            logger.error(
                "the rules in force stay; the file has %s:\n%s",
                counted(len(problems), "problem"),
                "\n".join(problems),
            )
            return problems
        self._put_in_force(loaded)
        return []

    def _reading(self) -> tuple[Loaded | None, Sequence[str]]:
        """Read the rules file once; return what it contains, and its problems."""
        try:
            loaded = self._read_rules(self.settings.rules)
        except RulesError as fault:
            return None, [str(problem) for problem in fault.problems]
        except exceptions.OptionsError as fault:
            return None, [str(fault)]
        return loaded, list(broken_promises(ctx.options, loaded.ruleset))

    def _read_rules(self, path: Path | None) -> Loaded:
        if path is None:
            raise exceptions.OptionsError("no rules file; set gateway_rules=FILE")
        ruleset = load(path, os.environ)
        previous = self.in_force.credentials if self.in_force else None
        return Loaded(ruleset, Credentials(ruleset.credentials, warn=logger.warning, previous=previous))

    def _put_in_force(self, loaded: Loaded) -> None:
        self._candidate = loaded
        is_new = loaded.ruleset is not self.ruleset()
        if is_new:
            self._dial_late(loaded.ruleset)
            self._start_demo(loaded.ruleset)
        self._renew()
        self._has_rules.set()
        if is_new:
            logger.info("%s: %s in force", loaded.ruleset.file, counted(len(loaded.ruleset.rules), "rule"))

    def _dial_late(self, ruleset: RuleSet) -> None:
        is_needed = self.recording is not None or self.settings.policy.client_keys is not None
        if is_needed or any(rule.upstream is not None for rule in ruleset.rules):
            dial_late(ctx.options)

    def _renew(self) -> None:
        """Let new requests begin with the settings, the rules and the demo gateway as they are now."""
        if self._candidate is None:
            return
        config = Config(
            ruleset=self._candidate.ruleset,
            policy=self.settings.policy,
            body_limit=self.settings.body_limit,
            capture=self.settings.capture,
            reveal=self.settings.reveal,
            demo=self._demo_at,
            has_recording=self.recording is not None,
            is_watched=live_view.is_watched(),
            variables=partial(_variables_at, self._candidate.ruleset),
        )
        self.in_force = InForce(config, self._candidate.credentials)

    # ---- the demo gateway ----

    def _start_demo(self, ruleset: RuleSet) -> None:
        if self._demo is None and any(rule.upstream == "demo" for rule in ruleset.rules):
            from ..demo import DemoGateway  # few rules ask for it, and its server takes a while to load

            self._demo = DemoGateway()
            try:
                self._demo_at = Upstream("http", "127.0.0.1", self._demo.start())
            except ANY_FAULT as fault:
                logger.warning("the demo gateway does not start: %s", type(fault).__name__)

    # ---- files that change ----

    def _watch(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
        watched: list[tuple[Path | None, Callable[[], object]]] = [
            (self.settings.rules, self.reload),
            (self.settings.clients, self._reread_clients),
            (self.settings.prices, self._reread_prices),
        ]
        self._watchers = [Watcher(path, changed) for path, changed in watched if path is not None]

    def _reread_clients(self) -> None:
        try:
            self.settings = Settings.read(ctx.options, self._default_rules)
        except exceptions.OptionsError as fault:
            logger.error("the client keys in force stay: %s", fault)  # noqa: TRY400 - its text says it all
        self._renew()

    def _take_prices(self, file: Path | None, *, again: bool = False) -> Sequence[str]:
        """Use the prices of a file; return its problems, for which the old ones stay."""
        try:
            self._recorder.price_by(file, again=again)
        except RulesError as fault:
            return [f"gateway_prices: {problem}" for problem in fault.problems]
        return []

    def _reread_prices(self) -> None:
        for problem in self._take_prices(self.settings.prices, again=True):
            logger.error("%s; the prices in force stay", problem)


def _recording() -> ServerReplay | None:
    """Return the recording that the options name, if any. Raises RecordingError."""
    if not (_REPLAY in ctx.options and ctx.options.server_replay):
        return None
    from .server_replay import ServerReplay  # few starts have one

    return ServerReplay.read(ctx.options)


def _variables_at(ruleset: RuleSet, host: str, url: str) -> Mapping[str, str]:
    from ..clients.environment import variables_at  # few look at the page that shows them

    return variables_at(ruleset, os.environ, host, url)


def _tell_helpers(proxy: str) -> None:
    """Let the helper programs that fetch tokens use the gateway's proxy."""
    if proxy == ENVIRONMENT:
        os.environ.pop(SETTING_VARIABLE, None)
    else:
        os.environ[SETTING_VARIABLE] = proxy
