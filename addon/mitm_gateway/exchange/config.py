"""Everything that is settled before a request arrives."""

from dataclasses import dataclass, field

from ..rules.ruleset import RuleSet
from ..wire.addresses import Upstream
from . import guard
from .front_page import Variables


@dataclass(frozen=True, slots=True)
class Config:
    """Rules, admission policy, limits, and the demo's address."""

    ruleset: RuleSet
    policy: guard.Policy = field(default_factory=guard.Policy)
    body_limit: int = 64 << 20
    capture: int = 8 << 20
    demo: Upstream | None = None
    reveal: bool = False
    variables: Variables = lambda _host, _url: {}
    """The variables that point a client at a listener."""
    has_recording: bool = False
    """Requests that a rule takes are answered from a recording."""
    is_watched: bool = False
    """Requests are shown while they are under way, so the record also lists the edits that changed the body."""
