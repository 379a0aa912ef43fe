"""A script for mitmproxy under test that breaks steps inside the gateway while a control file names them.

Each line of the file that `TEST_FAULT` names holds `STEP HOW`: a name of `STEPS`, and `raise`, `hang`, `empty` or
`cancelled`. The file with `.met` behind its name lists the steps that have been met.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mitm_gateway.credentials import store
from mitm_gateway.credentials.store import Credentials
from mitm_gateway.demo import DemoGateway
from mitm_gateway.exchange import body_edits, exchange, guard, request_body, response_plan, tee
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.mitm import addon, connections, final_check, flows, lifecycle
from mitm_gateway.mitm.recorder import Recorder
from mitm_gateway.mitm.requests import Requests
from mitm_gateway.observe.log_file import LogFile
from mitm_gateway.rules.ruleset import RuleSet

# Each step, and whether it is on a request's way out: then a fault in it must end the request.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "check_peer": (guard, "check_peer", True),
    "arrival_of": (flows, "arrival_of", True),
    "head_of": (addon, "head_of", True),
    "on_head": (Exchange, "on_request_head", True),
    "knows_host": (RuleSet, "knows_host", True),
    "guard": (guard, "check_admission", True),
    "names": (guard, "_check_names", True),
    "form": (guard, "_check_form", True),
    "find": (RuleSet, "find", True),
    "decide": (exchange, "decide", True),
    "credential": (Credentials, "at_hand", True),
    "fetched": (Credentials, "get", True),
    "on_credentials": (Exchange, "on_credentials", True),
    "outgoing_fields": (exchange, "outgoing_fields", True),
    "masked_head": (exchange, "MaskedHead", True),
    "perform": (addon, "perform", True),
    "remember": (flows, "remember", True),
    "point_at": (flows, "point_at", True),
    "own_ports": (connections, "listen_ports", True),
    "on_body": (Exchange, "on_request_body", True),
    "decode": (request_body, "decode_in_turns", True),
    "scan": (request_body, "scan_in_turns", True),
    "edit": (body_edits, "body_bytes", True),
    "set_body": (flows, "_set_body", True),
    "check": (final_check, "_check", True),
    "allows": (Exchange, "allows", True),
    "leads": (connections, "_leads_to", True),
    "write": (Requests, "_outgoing", True),
    "with_secrets": (Exchange, "with_secrets", True),
    "mask": (flows, "masked_fields", False),
    "on_response": (Exchange, "on_response_head", False),
    "tee": (response_plan, "Tee", False),
    "restorer": (response_plan, "_restorer_for", False),
    "keep": (tee.Tee, "_keep", False),
    "usage": (response_plan, "_usage", False),
    "on_end": (Exchange, "on_end", False),
    "note": (Recorder, "note", False),
    "log": (LogFile, "write", False),
    "limit": (exchange, "too_large", False),
    "refuse": (flows, "_refuse", False),
    "note_refusal": (Exchange, "refuse", False),
    "load": (lifecycle, "load", True),
    "demo": (DemoGateway, "start", True),
}
# An empty result of these looks like a valid one: no rule covers the request;
# there is no body; nothing is to be masked.
UNTOLD = {("find", "empty"), ("mask", "empty"), ("scan", "empty")}
HANG_S = 0.1  # what is not async holds everything up while it hangs, so it hangs for a while only


def breaking(original: Any, kind: Callable[[], str | None]) -> Callable[..., Any]:
    """Return the function with the fault that `kind` names at the time of a call."""
    if inspect.iscoroutinefunction(original):

        async def call_async(*args: Any, **named: Any) -> Any:
            if (fault := kind()) == "hang":
                await asyncio.sleep(3600)
            return fail(fault) if fault else await original(*args, **named)

        return call_async

    def call(*args: Any, **named: Any) -> Any:
        return fail(fault) if (fault := kind()) else original(*args, **named)

    return call


def fail(kind: str) -> None:
    """Fail in this way: `raise`, `hang`, `cancelled`, or `empty`, which returns None."""
    if kind == "raise":
        raise RuntimeError("a fault of the test")
    if kind == "cancelled":
        raise asyncio.CancelledError
    if kind == "hang":
        time.sleep(HANG_S)
        raise TimeoutError("a fault of the test")


def install(control: Path, met: Path) -> None:
    """Break what the control file names, a step and a way on each line, and write down each step that is met."""
    seen: set[str] = set()

    def kind(step: str) -> str | None:
        if step not in seen:
            seen.add(step)
            with met.open("a") as file:
                file.write(f"{step}\n")
        return dict(line.split() for line in control.read_text().splitlines()).get(step)

    for step, (owner, name, _) in STEPS.items():
        setattr(owner, name, breaking(getattr(owner, name), partial(kind, step)))


if "TEST_FAULT" in os.environ:
    # Small, so that waiting for a credential or a start that never arrives ends within the test.
    store.MARGIN_S = -8.5
    lifecycle.START_PATIENCE_S = 0.5
    install(Path(os.environ["TEST_FAULT"]), Path(os.environ["TEST_FAULT"] + ".met"))
