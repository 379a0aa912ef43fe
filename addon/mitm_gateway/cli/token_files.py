"""`token-files`: keep a file for each credential up to date, for an Envoy that watches them."""

import argparse
import asyncio
import base64
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from ..credentials.store import Credentials
from ..credentials.value import CredentialError
from ..rules.fields import parse_duration
from ..rules.ruleset import RuleSet
from .common import FAULT, OK, Subparsers, add_rules_option, examples, say, wrong_usage
from .rules_source import find_rules, rules_line
from .saving import whole_file

# Helpers run again well before their value expires, so one look a second is enough.
_PAUSE_S = 1.0


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "token-files",
        run=run,
        help="keep a file for each credential up to date, for Envoy",
        description="Keep a file for each credential up to date, for Envoy.",
        epilog=examples("token-files /run/gateway", "token-files --once secrets"),
    )
    add_rules_option(parser)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the files")
    parser.add_argument("--once", action="store_true", help="write the files once and exit")
    parser.add_argument(
        "--patience", default="1m", metavar="TIME",
        help="exit after a credential has been unusable for this long (default %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Write until interrupted; return 1 if a credential stays unusable."""
    try:
        patience_s = 0.0 if arguments.once else parse_duration(arguments.patience)
    except ValueError as fault:
        return wrong_usage(f"--patience {fault}")
    source = find_rules(arguments.rules, os.environ)
    arguments.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    say(rules_line(source))
    return asyncio.run(_keep(source.ruleset, arguments.folder, once=arguments.once, patience_s=patience_s))


def basic_names(ruleset: RuleSet) -> frozenset[str]:
    """Return the credentials that a rule sends as `Basic`; a second file holds their base64 form."""
    return frozenset(
        rule.auth.credential
        for rule in ruleset.rules
        if rule.auth and rule.auth.scheme == "basic" and rule.auth.credential
    )


async def _keep(ruleset: RuleSet, folder: Path, *, once: bool, patience_s: float) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    credentials = Credentials(ruleset.credentials)
    used = tuple(dict.fromkeys(name for rule in ruleset.rules for name in rule.credential_names))
    writer = Writer(folder, basic_names(ruleset), patience_s)
    try:
        while not stopped.is_set():
            for name in used:
                await writer.refresh(name, credentials)
            if once:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _PAUSE_S)
    except CredentialError as fault:
        say(f"token-files: {fault}")
        return FAULT
    finally:
        await credentials.close()
    return OK


class Writer:
    """The files of one folder. Each is replaced atomically, and only when its secret has changed."""

    def __init__(
        self,
        folder: Path,
        basic: frozenset[str],
        patience_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._basic = basic
        self._patience_s = patience_s
        self._now = now
        self._written: dict[str, str] = {}
        self._failing_since: dict[str, float] = {}

    async def refresh(self, name: str, credentials: Credentials) -> None:
        """Write a credential's files. Raises CredentialError after it was unusable for too long."""
        try:
            value = await credentials.get(name)
        except CredentialError as fault:
            self._note_failure(name, fault)
            return
        if value.headers:
            raise CredentialError(
                f'credential "{name}" has a helper that adds headers, which a file cannot contain'
            )
        self._failing_since.pop(name, None)
        secret = value.secret.reveal()
        self._write(name, secret)
        if name in self._basic:
            self._write(f"{name}.basic", base64.b64encode(secret.encode()).decode())

    def _note_failure(self, name: str, fault: CredentialError) -> None:
        if name not in self._failing_since:
            say(f"token-files: {fault}; retrying")
        since = self._failing_since.setdefault(name, self._now())
        if self._now() - since >= self._patience_s:
            raise fault

    def _write(self, file: str, text: str) -> None:
        if self._written.get(file) == text:
            return
        with whole_file(self._folder / file) as stream:
            stream.write(text)
        self._written[file] = text
