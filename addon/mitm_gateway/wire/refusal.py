"""Refusals: the reasons for which the gateway answers a request itself instead of forwarding it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request answered here: status, what is wrong and what to do. Holds no secret and no text of the client's."""

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
    """Carries a refusal to the hook that answers it."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)
