"""Refusals: the reasons for which the gateway answers a request itself instead of forwarding it."""

import asyncio
from dataclasses import dataclass

# Any fault inside a hook. mitmproxy logs an exception and forwards the request unchanged, and a CancelledError, which
# is no Exception, leaves the client without an answer; both must become a refusal. SystemExit and KeyboardInterrupt
# end the program and are not caught.
ANY_FAULT = (Exception, asyncio.CancelledError)


def is_cancelled(fault: BaseException) -> bool:
    """Return whether the current task is cancelled from outside: then it has to end with this fault."""
    task = asyncio.current_task()
    return isinstance(fault, asyncio.CancelledError) and task is not None and bool(task.cancelling())


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
