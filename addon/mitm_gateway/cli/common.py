"""Exit statuses, default paths, messages and options that several commands share."""

import argparse
import contextlib
import os
import sys
import textwrap
from pathlib import Path
from typing import Any, TextIO, TypeAlias
from urllib.parse import urlsplit

from ..rules.ruleset import RuleSet
from ..text.printable import counted, visible
from ..wire.addresses import DEFAULT_PORTS, hostport, parse_authority, parse_port

OK, FAULT, USAGE, INTERRUPTED = 0, 1, 2, 130
PROGRAM = "mitm-gateway"
DEFAULT_PORT = 8080
_NARROWEST, _USUAL_WIDTH = 20, 80
Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"


def config_folder() -> Path:
    """Return the folder of this user's settings."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mitm-gateway"


def default_rules() -> Path:
    """Return the rules file of this user. It is never in the current directory."""
    return config_folder() / "rules.yaml"


def script_path() -> Path:
    """Return the script to give to `mitmdump -s`."""
    return Path(__file__).resolve().parent.parent / "script" / "gateway.py"


def ca_certificate(folder: Path | None = None) -> Path:
    """Return the CA certificate that an intercepting gateway signs with, in mitmproxy's folder."""
    return (folder or Path.home() / ".mitmproxy") / "mitmproxy-ca-cert.pem"


def add_rules_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a rules file."""
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", action=_Once, help=f"rules file (default {default_rules()})"
    )


class _Once(argparse.Action):
    """An option that may occur once: of two files, argparse would silently ignore the first."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} is given twice; expected one file")
        setattr(namespace, self.dest, values)


def add_port_option(parser: argparse.ArgumentParser, meaning: str = "port of the first listener") -> None:
    """Add the option that names a port of the gateway."""
    parser.add_argument(
        "--port", type=port_number, default=DEFAULT_PORT, help=f"{meaning} (default %(default)s)"
    )


def port_number(text: str) -> int:
    """Return a port that a listener can have. Raises ArgumentTypeError."""
    try:
        return parse_port(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a port number; expected 1 to 65535") from None


def add_host_option(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add the option that names the hosts of reverse listeners."""
    parser.add_argument("--host", type=_host_name, action="append", metavar="HOST", help=meaning)


def _host_name(text: str) -> str:
    """Return a host as rules name it. Raises ArgumentTypeError."""
    try:
        place = parse_authority(text)
    except ValueError:
        named = urlsplit(text if "://" in text else f"//{text}").netloc
        hint = f' (did you mean "{visible(named)}"?)' if named and named != text else ""
        raise argparse.ArgumentTypeError(
            f"not a host; expected one such as api.anthropic.com{hint}"
        ) from None
    return hostport(place.host, place.port or DEFAULT_PORTS["https"], "https")


def fish_quoted(text: str) -> str:
    """Return a text as one word of the shell fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(("examples:", *(f"  {PROGRAM} {line}" for line in lines)))


def rule_count(ruleset: RuleSet) -> str:
    """Return "1 rule" or "3 rules"."""
    return counted(len(ruleset.rules), "rule")


def say(text: str, *, wraps: bool = True) -> None:
    """Print a message to stderr, so that stdout contains results only; `wraps=False` keeps a command line whole."""
    message = visible(f"mitm-gateway: {text}")
    print(_wrapped(message, sys.stderr) if wraps else message, file=sys.stderr, flush=True)


def print_fault(fault: object) -> None:
    """Print a fault to stderr, in red on a terminal."""
    text = _wrapped(visible(str(fault)), sys.stderr)
    print(f"\x1b[31m{text}\x1b[0m" if wants_colour(sys.stderr) else text, file=sys.stderr)


def _wrapped(text: str, stream: TextIO) -> str:
    """Return the text with its lines broken between words where a terminal would break them inside words."""
    if not stream.isatty():
        return text
    width = _width(stream)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def _width(stream: TextIO) -> int:
    with contextlib.suppress(OSError, ValueError):
        asked = int(os.environ.get("COLUMNS") or 0)
        return max(asked or os.get_terminal_size(stream.fileno()).columns, _NARROWEST)
    return _USUAL_WIDTH


def terminal_width(stream: TextIO, most: int) -> int | None:
    """Return the width of a stream's terminal, at most `most`; None if the stream is no terminal."""
    return min(_width(stream), most) if stream.isatty() else None


def wants_colour(stream: TextIO) -> bool:
    """Return True if the stream is a terminal and `NO_COLOR` is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def wrong_usage(text: str) -> int:
    """Print a usage error and return its exit status."""
    say(text)
    return USAGE
