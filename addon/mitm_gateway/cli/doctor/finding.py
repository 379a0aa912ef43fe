"""Findings of `doctor`, and the machine and configuration that it examines."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Good:
    """A check that passed."""

    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A check that failed, and the fix."""

    text: str
    fix: str


@dataclass(frozen=True, slots=True)
class Note:
    """A limitation of a supported configuration, and advice; not a fault."""

    text: str
    advice: str


Finding: TypeAlias = Good | Fault | Note
Findings: TypeAlias = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class Subject:
    """The configuration under examination."""

    # None searches for them as every command does.
    rules: Path | None
    environ: Mapping[str, str]
    port: int
    confdir: Path
    project: Path
    mitmproxy: str
    lists_patches: bool = False
