"""`token`: helper programs for short-lived tokens; each prints the JSON that `command` reads."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..credentials.tokens import copilot, google, oauth2
from ..credentials.tokens.http_client import TokenError
from ..credentials.value import MAX_SECRET_BYTES
from ..rules.read_file import FileError, read_regular_file
from .common import FAULT, OK, Subparsers, config_folder, examples, say
from .saving import whole_file

# In the order in which GitHub's Copilot CLI reads them.
_GITHUB_VARIABLES = ("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "token",
        help="print a short-lived token obtained from another credential",
        description=(
            "Print a short-lived token obtained from another credential: a helper program for the credentials of a "
            "rules file."
        ),
        epilog=examples(
            "token github-copilot --login",
            "token oauth2 --token-url https://login.example.com/token --client-id ID --secret-env SECRET",
            "token google",
        ),
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    _add_copilot(kinds)
    _add_oauth2(kinds)
    _add_google(kinds)


def _add_copilot(kinds: Subparsers) -> None:
    github = kinds.add_parser("github-copilot", help="Copilot token for a GitHub token")
    github.set_defaults(run=_run, token=_copilot)
    github.add_argument("--login", action="store_true", help="sign in with a code in a browser first")
    github.add_argument("--api-url", default=copilot.API_URL, metavar="URL", help="GitHub's API")
    github.add_argument("--github-url", default=copilot.GITHUB_URL, metavar="URL", help="GitHub itself")


def _add_oauth2(kinds: Subparsers) -> None:
    client = kinds.add_parser("oauth2", help="OAuth 2.0 client credentials")
    client.set_defaults(run=_run, token=_oauth2)
    client.add_argument("--token-url", required=True, metavar="URL", help="token endpoint of the server")
    client.add_argument("--client-id", required=True, metavar="ID", help="client ID")
    secret = client.add_mutually_exclusive_group(required=True)
    secret.add_argument("--secret-env", metavar="NAME", help="environment variable with the secret")
    secret.add_argument("--secret-file", type=Path, metavar="FILE", help="file with the secret")
    client.add_argument("--scope", help="scope to request; some servers require one")
    client.add_argument("--audience", help="API that the token is for; some servers require one")
    client.add_argument(
        "--in-body", action="store_true", help="send id and secret in the body, not as HTTP Basic"
    )


def _add_google(kinds: Subparsers) -> None:
    adc = kinds.add_parser("google", help="Google access token from the application default credentials")
    adc.set_defaults(run=_run, token=lambda arguments: google.access_token(arguments.scope))
    adc.add_argument("--scope", default=google.CLOUD_PLATFORM, help="scope to request (default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    try:
        result: dict[str, Any] = arguments.token(arguments)
    except TokenError as fault:
        say(f"token: {fault}")
        return FAULT
    print(json.dumps(result))
    return OK


def _copilot(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = config_folder() / "github-copilot.token"
    token = None if arguments.login else github_token(os.environ, kept)
    if token is None:
        if not arguments.login and not sys.stdin.isatty():
            raise TokenError(
                f"no GitHub token: sign in once with `mitm-gateway token github-copilot --login`, "
                f"or set {_GITHUB_VARIABLES[0]}"
            )
        token = copilot.device_flow(lambda text: say(f"token: {text}"), time.sleep, arguments.github_url)
        _keep(kept, token)
    return copilot.exchange_token(token, time.time(), arguments.api_url)


def github_token(environ: Mapping[str, str], kept: Path) -> str | None:
    """Return a GitHub token from the environment, an earlier sign-in or `gh`."""
    for name in _GITHUB_VARIABLES:
        if environ.get(name):
            return environ[name].strip()
    with contextlib.suppress(FileError, UnicodeDecodeError):
        return read_regular_file(kept, MAX_SECRET_BYTES).decode().strip() or None
    if gh := shutil.which("gh", path=environ.get("PATH")):
        done = subprocess.run([gh, "auth", "token"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip() or None
    return None


def _keep(file: Path, token: str) -> None:
    """Write the token to a file that only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(file) as opened:
        opened.write(token + "\n")
    say(f"token: the sign-in is stored in {file}")


def _oauth2(arguments: argparse.Namespace) -> dict[str, Any]:
    parameters = {
        name: value for name, value in (("scope", arguments.scope), ("audience", arguments.audience)) if value
    }
    return oauth2.client_credentials(
        arguments.token_url,
        arguments.client_id,
        _secret(arguments),
        in_body=arguments.in_body,
        parameters=parameters,
    )


def _secret(arguments: argparse.Namespace) -> str:
    if arguments.secret_env:
        secret = os.environ.get(arguments.secret_env, "")
        place = f"the environment variable {arguments.secret_env}"
    else:
        place = str(arguments.secret_file)
        try:
            secret = read_regular_file(arguments.secret_file.expanduser(), MAX_SECRET_BYTES).decode()
        except (FileError, UnicodeDecodeError) as fault:
            raise TokenError(f"{place}: {'not UTF-8' if isinstance(fault, ValueError) else fault}") from None
    if not secret.strip():
        raise TokenError(f"{place} contains no secret")
    return secret.strip()
