"""Types of the fixtures that start something; `tests/conftest.py` and `tests/security/conftest.py` provide them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from support.clients import CLAUDE_TIMEOUT_S, Finished
from support.envoy import Envoy
from support.processes import Mitmdump
from support.recorder import Recorder
from support.stage import Stage
from support.terminal import Terminal

StartRecorder = Callable[..., Recorder]  # takes the arguments of Recorder
StartMitmdump = Callable[..., Mitmdump]  # those of Mitmdump after the folder
StartTerminal = Callable[..., Terminal]  # those of Terminal
StartStage = Callable[..., Stage]  # those of Stage after the folder and the authority


class Printed(NamedTuple):
    """Everything that a command has printed."""

    out: str
    err: str


RunMain = Callable[..., Printed]  # the words of a command line, and its exit status


class StartEnvoy(Protocol):
    """Start Envoy with the export of these rules."""

    def __call__(
        self, rules: str, host: str = ..., env: Mapping[str, str] | None = None, **options: object
    ) -> Envoy: ...


class RunClaude(Protocol):
    """Run Claude Code for one prompt, with only the variables of `env` and a few that keep it quiet."""

    def __call__(
        self,
        env: Mapping[str, str],
        prompt: str = "hi",
        args: Sequence[str] = (),
        timeout: float = CLAUDE_TIMEOUT_S,
    ) -> Finished: ...


class RunCurl(Protocol):
    """Run curl with these arguments."""

    def __call__(
        self, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 30
    ) -> Finished: ...
