"""Checks of Claude Code's environment and settings."""

from ...clients import claude_settings
from ...clients.catalogue import base_url_variables
from .finding import Fault, Findings, Subject

_PROXY = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def check(subject: Subject) -> Findings:
    """Find keys and settings that keep Claude Code from using the gateway."""
    environ = subject.environ
    if environ.get("ANTHROPIC_API_KEY") and environ.get("ANTHROPIC_AUTH_TOKEN"):
        yield Fault(
            "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set; Claude Code warns and sends both",
            "unset one of them; `mitm-gateway env` prints the line",
        )
    files = claude_settings.read_all(environ, subject.project)
    for file in files:
        for name in (*base_url_variables(), *_PROXY):
            if file.env.get(name) and file.env[name] != environ.get(name):
                yield Fault(
                    f'"env" in {file.path} sets {name}, which overrides the shell and `mitm-gateway run`',
                    f"remove {name} from {file.path}",
                )
    for path, key in claude_settings.blocking(files):
        yield Fault(
            f'"{key}" in {path} makes Claude Code ignore gateway keys',
            f"remove {key}, or ask the administrator who set it",
        )
