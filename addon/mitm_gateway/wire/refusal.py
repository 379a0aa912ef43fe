"""Refusals: the reasons for which the gateway answers a request itself instead of forwarding it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request answered locally: status, fault and remedy, without any secret or text of the client."""

    status: int
    reason: str
    rule: str | None = None
    retry: bool = False

    @property
    def message(self) -> str:
        """The text that the client shows."""
        rule = f' (rule "{self.rule}")' if self.rule else ""
        return f"mitm-gateway: {self.reason}{rule}"


class Refused(Exception):
    """Raised to refuse a request; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)
