"""Types of the fixtures that start something; the `conftest.py` of each folder provides them."""

import subprocess
from collections.abc import Callable
from typing import NamedTuple

from support.envoy import Envoy
from support.mitmdump import Mitmdump
from support.recorder import Recorder
from support.security_stage import Stage
from support.terminal import Terminal

StartRecorder = Callable[..., Recorder]  # takes the arguments of Recorder
StartMitmdump = Callable[..., Mitmdump]  # those of Mitmdump after the folder
StartEnvoy = Callable[..., Envoy]  # rules, and options of an export
StartTerminal = Callable[..., Terminal]  # those of Terminal
StartStage = Callable[..., Stage]  # those of Stage after the folder and the authority
# An upstream and a gateway with one rule for it: a script, further keys of the rule, and options.
StartGateway = Callable[..., tuple[Recorder, Mitmdump]]
StartOneEnvoy = Callable[..., tuple[Recorder, Envoy]]
RunClaude = Callable[..., subprocess.CompletedProcess[str]]  # variables, a prompt, and further arguments


class Printed(NamedTuple):
    """Everything that a command has printed."""

    out: str
    err: str


RunMain = Callable[..., Printed]  # the words of a command line, and its exit status
