"""What the gateway remembers of a flow while it is under way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from mitmproxy import http

from ..credentials.store import Credentials
from ..exchange.headers import Secrets
from ..exchange.plan import Plan
from ..exchange.record import Record
from ..exchange.tee import Tee
from ..rules.ruleset import RuleSet
from ..wire.request import Arrival, RequestHead


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of the rules and the credentials that go with it."""

    ruleset: RuleSet
    credentials: Credentials


@dataclass(slots=True)
class Handling:
    """One flow's snapshot: the rules it began with, the head as it came, plan, secrets, answer."""

    loaded: Loaded
    head: RequestHead
    arrival: Arrival
    record: Record
    flow: http.HTTPFlow
    started: float = field(default_factory=time.monotonic)
    plan: Plan | None = None
    secrets: Secrets = field(default_factory=Secrets)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """All that is masked in what is kept of the flow."""
    tee: Tee | None = None
    answered_here: bool = False
    is_hidden: bool = False

    @property
    def reads_body(self) -> bool:
        """Whether the request may not leave before its body has been seen."""
        return self.plan is None or self.plan.rule.reads_body

    def under_way(self, state: str) -> Record:
        """The record as it stands before the end."""
        response = self.flow.response
        return replace(
            self.record,
            status=response.status_code if response else None,
            bytes_in=self.tee.size if self.tee else None,
            notes=(*self.record.notes, state),
        )
