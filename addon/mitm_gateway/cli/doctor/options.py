"""Checks of mitmproxy's options in its config.yaml."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from ...rules.problems import did_you_mean
from ...rules.ruleset import RuleSet
from ..mitmproxy_options import config_fault, declare_gateway_options
from .finding import Fault, Finding, Findings, Good, Subject
from .network import is_loopback_name

if TYPE_CHECKING:
    from mitmproxy.options import Options


def check(ruleset: RuleSet, subject: Subject) -> Findings:
    """Read mitmproxy's configuration, and find options that break a promise of the gateway."""
    file = subject.confdir / "config.yaml"
    if not file.is_file():
        yield Good(f"{file} does not exist, so mitmproxy uses its default options")
        return
    if fault := config_fault(file):
        yield Fault(fault, "correct it: mitmproxy would not start")
        return
    faults = list(asyncio.run(_faults(file, ruleset)))
    yield from faults
    if not faults:
        yield Good(f"{file}: no option is in conflict with the gateway")


def configured(subject: Subject) -> Options | None:
    """Return mitmproxy's options with those of its configuration; None if that cannot be read."""
    from mitmproxy import exceptions

    try:
        return _configured(subject.confdir / "config.yaml")
    except (exceptions.OptionsError, TypeError, AttributeError):
        return None


def _configured(file: Path) -> Options:
    """Return all options with the values of a file, if it exists; needs a running event loop. Raises OptionsError."""
    from mitmproxy import options, optmanager
    from mitmproxy.tools.dump import DumpMaster

    given = options.Options()
    DumpMaster(given, with_termlog=False, with_dumper=False)
    declare_gateway_options(given)
    if file.is_file():
        optmanager.load_paths(given, str(file))
    return given


async def _faults(file: Path, ruleset: RuleSet) -> list[Finding]:
    from mitmproxy import exceptions

    from ...mitm.option_conflicts import broken_promises
    from ...mitm.options import Settings

    fix = f"change it in {file}"
    try:
        given = _configured(file)
        settings = Settings.read(given, None)
    except exceptions.OptionsError as fault:
        return [Fault(f"{file}: {fault}", fix)]
    ours = [name for name in given.keys() if name.startswith("gateway_")]  # noqa: SIM118 - not a plain mapping
    found: list[Finding] = [Fault(text, fix) for text in broken_promises(given, ruleset)]
    found += [
        Fault(f"{file}: there is no option {name}{did_you_mean(name, ours)}", fix)
        for name in given.deferred
        if name.startswith("gateway")
    ]
    if settings.reveal:
        found.append(Fault("gateway_reveal shows and stores keys unmasked", f"remove it from {file}"))
    if not is_loopback_name(given.listen_host) and given.listen_host and settings.clients is None:
        found.append(
            Fault(
                f"listen_host is {given.listen_host}, but only this machine may connect",
                "remove listen_host, or name a file of client keys with gateway_clients",
            )
        )
    return found
