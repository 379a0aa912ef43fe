"""A script for mitmproxy under test that breaks one step inside the gateway, for as long as it is told to.

The file that `TEST_FAULT` names holds `STEP HOW`, with a name of `STEPS` and `raise`, `hang`, `empty` or
`cancelled`; while it is empty nothing is broken.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.demo import DemoGateway
from mitm_gateway.exchange import guard, tee
from mitm_gateway.mitm import addon, answering, exchange, final_check, flows, recorder
from mitm_gateway.patches.safety import bounds
from mitm_gateway.rules.ruleset import RuleSet

# Where each step stands, and whether it is on a request's way out: then a fault in it must end the request.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "check_peer": (guard, "check_peer", True),
    "arrival_of": (addon, "arrival_of", True),
    "head_of": (exchange, "head_of", True),
    "knows_host": (RuleSet, "knows_host", True),
    "guard": (guard, "check", True),
    "client_key": (guard, "check_client_key", True),
    "without_client_key": (guard, "without_client_key", True),
    "probe": (exchange, "to_probe", True),
    "find": (RuleSet, "find", True),
    "decide": (exchange, "decide", True),
    "credential": (Credentials, "at_hand", True),
    "fetched": (Credentials, "get", True),
    "remember": (exchange, "remember", True),
    "outgoing": (flows, "outgoing", True),
    "apply": (exchange, "apply", True),
    "point_at": (flows, "point_at", True),
    "own_ports": (addon, "listen_ports", True),
    "decode": (exchange, "decode", True),
    "scan": (exchange, "scan", True),
    "edit": (exchange, "body_bytes", True),
    "set_body": (exchange, "set_body", True),
    "look": (final_check.LastLook, "_check", True),
    "leads": (final_check, "_leads_to", True),
    "mask": (flows, "_masked", False),
    "tee": (answering, "Tee", False),
    "restorer": (answering, "restorer_for", False),
    "keep": (tee.Tee, "_keep", False),
    "usage": (answering, "usage_of", False),
    "complete": (exchange, "completed", False),
    "note": (recorder.Recorder, "note", False),
    "log": (recorder.LogFile, "write", False),
    "limit": (bounds, "too_large", False),
    "answer": (exchange.Exchange, "answer", False),
    "load": (addon, "load", True),
    "demo": (DemoGateway, "start", True),
}
HOWS = ("raise", "hang", "empty", "cancelled")
HANG_S = 0.1  # what is not async holds everything up while it hangs, so it hangs for a while only


def _breaking(step: str, original: Any, control: Path) -> Callable[..., Any]:
    def how() -> str | None:
        broken, _, kind = control.read_text().partition(" ")
        return kind if broken == step else None

    def fail(kind: str) -> None:
        if kind == "raise":
            raise RuntimeError("a fault of the test")
        if kind == "cancelled":
            raise asyncio.CancelledError
        if kind == "hang":
            time.sleep(HANG_S)
            raise TimeoutError("a fault of the test")

    if inspect.iscoroutinefunction(original):

        async def breaking_async(*args: Any, **named: Any) -> Any:
            kind = how()
            if kind == "hang":
                await asyncio.sleep(3600)
            return fail(kind) if kind else await original(*args, **named)

        return breaking_async

    def breaking(*args: Any, **named: Any) -> Any:
        kind = how()
        return fail(kind) if kind else original(*args, **named)

    return breaking


if "TEST_FAULT" in os.environ:
    # Small, so that a credential that never comes is given up while the test looks on.
    exchange.CREDENTIAL_MARGIN_S = -6.0
    for _step, (_owner, _name, _) in STEPS.items():
        setattr(_owner, _name, _breaking(_step, getattr(_owner, _name), Path(os.environ["TEST_FAULT"])))
