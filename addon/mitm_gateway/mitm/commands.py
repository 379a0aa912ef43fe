"""The gateway's commands inside mitmproxy: `gateway.rules`, `gateway.explain` and the others."""

from collections.abc import Callable, Sequence

from mitmproxy import command, ctx, exceptions, http
from mitmproxy.flow import Flow

from ..observe.stats import WAYS, Stats
from ..patches import table
from ..patches.patch import Patches
from ..rules.ruleset import RuleSet
from ..text.printable import counted
from .flows import received
from .recorder import facts_of

_FIRST = "no earlier request of this session begins like this one"
# The frame of the console's box, and the blank at either side of a line.
_BORDERS = 4


class Commands:
    """Questions to a running gateway, and its reload."""

    name = "gateway-commands"

    def __init__(
        self,
        ruleset: Callable[[], RuleSet | None],
        check: Callable[[], Sequence[str]],
        reload: Callable[[], Sequence[str]],
        stats: Callable[[], Stats],
        patches: Patches,
    ) -> None:
        self._ruleset = ruleset
        self._check = check
        self._reload = reload
        self._stats = stats
        self._patches = patches

    @command.command("gateway.rules")
    def rules(self) -> Sequence[str]:
        """Print the rules in force, one a line."""
        from ..exchange.explain import describe_rules  # no start needs what commands import

        return describe_rules(self._rules())

    @command.command("gateway.explain")
    def explain(self, url: str, method: str = "POST", model: str = "") -> Sequence[str]:
        """Explain a request to this URL, or the flows that `@focus` or a filter names."""
        from ..exchange.explain import explain_url

        if url.startswith(("@", "~")):
            flows = _flows(url)
            return [line for flow in flows for line in self._explain_flow(flow)]
        try:
            return explain_url(self._rules(), method, url, model=model or None).lines()
        except ValueError as fault:
            raise exceptions.CommandError(str(fault)) from None

    def _explain_flow(self, flow: Flow) -> list[str]:
        from ..exchange.explain import explain
        from ..recordings.recorded import model_in

        if not isinstance(flow, http.HTTPFlow):
            return ["not an HTTP flow"]
        head, arrival = received(flow)
        # The record of a refused request has no model.
        model = facts_of(flow).get("model") or model_in(head, flow.request.raw_content or b"")
        return explain(self._rules(), head, model, arrival).lines()

    @command.command("gateway.diff")
    def diff(self, flows: str = "@focus", other: str = "") -> Sequence[str]:
        """Compare two requests, named by one or two filters or by `@ID,ID`; a single request with the one before it."""
        from . import conversation_turns

        chosen = [flow for spec in (flows, other) if spec for flow in _flows(spec)]
        if not all(isinstance(flow, http.HTTPFlow) for flow in chosen):
            raise exceptions.CommandError("one of the flows is not HTTP")
        if len(chosen) > 2:
            raise exceptions.CommandError(f"{len(chosen)} flows match; expected one or two")
        requests = [flow for flow in chosen if isinstance(flow, http.HTTPFlow)]
        if len(requests) == 2:
            return conversation_turns.compared(*sorted(requests, key=lambda flow: flow.timestamp_start))
        return conversation_turns.explained(requests[0], conversation_turns.MAX_DIFF_BYTES) or [_FIRST]

    @command.command("gateway.check")
    def check(self) -> Sequence[str]:
        """Print the mistakes in the rules file; the rules in force stay."""
        return self._check() or ["no mistakes found"]

    @command.command("gateway.reload")
    def reload(self) -> Sequence[str]:
        """Read the rules file again now."""
        return self._reload() or [f"{counted(len(self._rules().rules), 'rule')} loaded"]

    @command.command("gateway.stats")
    def stats(self, by: str = "rule-model") -> Sequence[str]:
        """Print requests, tokens, cost and times since the start, by rule-model, rule, model, session or outcome."""
        chosen = next((way for way in WAYS if way == by), None)
        if chosen is None:
            raise exceptions.CommandError(f"unknown {by}; expected one of {', '.join(WAYS)}")
        return self._stats().table(chosen, _room())

    @command.command("gateway.patches")
    def patches(self) -> Sequence[str]:
        """Print the changes to mitmproxy: on or off, kind, name and reason."""
        return table.describe(self._patches)

    def _rules(self) -> RuleSet:
        ruleset = self._ruleset()
        if ruleset is None:
            raise exceptions.CommandError("no rules are loaded")
        return ruleset


def _flows(spec: str) -> Sequence[Flow]:
    """Return the flows that a filter names. Raises CommandError if there is none."""
    flows: Sequence[Flow] = ctx.master.commands.call("view.flows.resolve", spec)
    if not flows:
        raise exceptions.CommandError(f"no flow matches {spec}")
    return flows


def _room() -> int | None:
    """Return the columns of the console's box for results, which has 80 % of the screen."""
    screen = getattr(ctx.master, "ui", None)
    return int(screen.get_cols_rows()[0] * 0.8) - _BORDERS if screen is not None else None
