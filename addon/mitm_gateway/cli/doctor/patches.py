"""Check of the changes that the gateway makes to mitmproxy: whether they fit the installed version."""

import asyncio

from .finding import Fault, Finding, Findings, Good, Note, Subject

_FIX = "install a supported mitmproxy: pip install 'mitmproxy>=11.0.2,<13'"


def check(subject: Subject) -> Findings:
    """Apply all patches to this process's mitmproxy for a moment; return those that do not fit, and a count."""
    yield from asyncio.run(_check(lists=subject.lists_patches))


async def _check(*, lists: bool) -> list[Finding]:
    from mitmproxy import options
    from mitmproxy.tools.dump import DumpMaster

    from ...patches import table
    from ...patches.patch import Gateway, Patches

    DumpMaster(options.Options(), with_termlog=False, with_dumper=False)
    patches = Patches(Gateway(body_limit=lambda flow: None, refuse=lambda flow, refusal: None))
    problems = table.apply(patches, "safety")
    found: list[Finding] = [Fault(problem, _FIX) for problem in problems]
    found += [Note(problem, _FIX) for problem in table.apply(patches, "speed")]
    applied = [patch for patch in table.PATCHES if patches.is_applied(patch)]
    found.append(Good(f"{len(applied)} of {len(table.PATCHES)} patches to mitmproxy are on"))
    if lists:
        found += [Good(f"patch {patch.name} ({patch.kind}) fixes: {patch.why}") for patch in applied]
    patches.undo("speed", "safety")
    return found
