"""`serve`: run the gateway until it is interrupted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .common import Subparsers, add_rules_option, default_rules, script_path
from .mitmproxy_process import run_tool

# mitmweb hides the comment, which says what the gateway did, unless its column is named.
WEB_COLUMNS = ("tls", "icon", "path", "method", "status", "comment", "size", "time")


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("serve", help="run the gateway until interrupted")
    parser.set_defaults(run=run)
    add_rules_option(parser)
    parser.add_argument("--web", action="store_true", help="show the traffic in mitmweb")
    parser.add_argument(
        "--intercept", action="store_true", help="run as an HTTPS proxy instead of a reverse proxy"
    )
    parser.add_argument(
        "--host", default="api.anthropic.com", help="host that clients mean (default %(default)s)"
    )
    parser.add_argument("--listen-host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default %(default)s)")
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="further arguments for mitmproxy")


def mitmproxy_arguments(
    rules: Path, *, modes: Sequence[str], listen_host: str, port: int, web: bool, extra: Sequence[str] = ()
) -> list[str]:
    """Return the arguments for mitmdump or mitmweb."""
    columns = [part for column in WEB_COLUMNS for part in ("--set", f"web_columns={column}")] if web else []
    return [
        *("-s", str(script_path())),
        *(argument for mode in modes for argument in ("--mode", mode)),
        *("--listen-host", listen_host),
        *("--listen-port", str(port)),
        *("--set", f"gateway_rules={rules}"),
        *columns,
        *extra,
    ]


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted; return mitmproxy's exit status."""
    return run_tool(
        "mitmweb" if arguments.web else "mitmdump",
        mitmproxy_arguments(
            arguments.rules or default_rules(),
            modes=["regular" if arguments.intercept else f"reverse:https://{arguments.host}"],
            listen_host=arguments.listen_host,
            port=arguments.port,
            web=arguments.web,
            extra=arguments.extra,
        ),
    )
