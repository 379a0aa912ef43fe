"""Check of the changes that the gateway makes to mitmproxy: whether they fit the installed version."""

from __future__ import annotations

import asyncio

from .finding import Fault, Finding, Findings, Good

_FIX = "install a supported mitmproxy: pip install 'mitmproxy>=11.0.2,<13'"


def check() -> Findings:
    """Apply all patches to this process's mitmproxy for a moment, and return the table."""
    yield from asyncio.run(_check())


async def _check() -> list[Finding]:
    from mitmproxy import options
    from mitmproxy.tools.dump import DumpMaster

    from ...patches import table
    from ...patches.patch import Gateway, Patches

    DumpMaster(options.Options(), with_termlog=False, with_dumper=False)
    patches = Patches(Gateway(body_limit=lambda flow: None, refuse=lambda flow, refusal: None))
    problems = table.apply(patches, "safety")
    found: list[Finding] = [Fault(problem, _FIX) for problem in problems]
    found += [Good(problem) for problem in table.apply(patches, "speed")]
    found += [Good(f"patch {line}") for line in table.describe(patches)]
    patches.undo("speed", "safety")
    return found
