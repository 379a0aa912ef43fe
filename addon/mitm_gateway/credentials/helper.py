"""Programs that print a secret: how one is found, run within bounds, and understood.

A helper gets no shell and no input, its errors are not read, and at its end nothing that it started is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ..rules.schema import HEADER_NAME
from ..text.redact import Secret
from .value import MAX_SECRET_BYTES, CredentialError, Value, clean, decoded

# How long the end of a killed helper is waited for.
_END_S = 2.0
# A token is not used up to its last second: the request has to get there.
_EXPIRY_MARGIN_S = 5.0

OWN_COMMAND = "mitm-gateway"
_OWN_START = (
    f"import sys; sys.path.append({str(Path(__file__).resolve().parents[2])!r}); "
    "from mitm_gateway.cli import main; sys.exit(main())"
)


def command_line(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """A helper as it is run: `~` stands for the home folder, and our own command is found without a path."""
    return _findable(_with_home(argv), environ)


def _with_home(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        str(Path(argument).expanduser()) if argument.startswith("~/") else argument for argument in argv
    )


def _findable(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The helper, or where it is our own command and not on the path, this Python that can run it too."""
    if argv[0] != OWN_COMMAND or shutil.which(OWN_COMMAND, path=environ.get("PATH")):
        return argv
    # Without the current directory on the path (-P): nothing there may be imported.
    return (sys.executable, "-P", "-c", _OWN_START, *argv[1:])


async def run(argv: tuple[str, ...], timeout_s: float, environ: Mapping[str, str]) -> bytes:
    """What a helper program prints, at most 64 KiB. Raises CredentialError; its stderr is read and dropped."""
    program = Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it cannot be started"
        raise CredentialError(f'has a helper "{program}" that cannot be started: {reason}') from None
    try:
        async with asyncio.timeout(timeout_s):
            output = await _bounded_output(process, program)
            status = await process.wait()
    except TimeoutError:
        raise CredentialError(f'has a helper "{program}" that took longer than {timeout_s:g} s') from None
    finally:
        await _end_group(process)
    if status != 0:
        raise CredentialError(f'has a helper "{program}" that failed with exit status {status}')
    return output


async def _bounded_output(process: asyncio.subprocess.Process, program: str) -> bytes:
    assert process.stdout is not None
    output = b""
    while chunk := await process.stdout.read(MAX_SECRET_BYTES + 1 - len(output)):
        output += chunk
        if len(output) > MAX_SECRET_BYTES:
            raise CredentialError(f'has a helper "{program}" that printed more than 64 KiB')
    return output


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Ends the helper and whatever it started: all of its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is not None:
        return
    # asyncio counts a process as ended only when its output has been read to the end; a child of the helper
    # that left the group may hold the pipe open, which is nobody's reason to wait.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            while process.stdout is not None and await process.stdout.read(MAX_SECRET_BYTES):
                pass
            await process.wait()


def parse_output(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
    """The value that a helper printed: a bare secret, or JSON with `token`, expiry and headers.

    `now` is on the cache's clock, `wall` in unix seconds. Raises CredentialError.
    """
    text = decoded(output) if not output.lstrip().startswith(b"{") else ""
    if not text and output.strip():
        return _parse_json(output, ttl_s, now, wall)
    return Value(Secret(clean(text)), read_at=now, stale_at=now + ttl_s)


def _parse_json(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
    try:
        data = json.loads(output)
    except (ValueError, RecursionError):
        raise CredentialError("has a helper that printed broken JSON") from None
    token = data.get("token") if isinstance(data, dict) else None
    if not isinstance(token, str):
        raise CredentialError('has a helper that printed JSON without a text "token"')
    left = _seconds_left(data, wall)
    if left is not None and left <= 0:
        raise CredentialError("has a helper that printed an expired token")
    life = ttl_s if left is None else max(left - _EXPIRY_MARGIN_S, left / 2)
    headers = _headers(data.get("headers", {}))
    return Value(Secret(clean(token)), headers, read_at=now, stale_at=now + life)


def _seconds_left(data: dict[str, object], wall: float) -> float | None:
    match data.get("expires_at"), data.get("expires_in"):
        case None, None:
            return None
        case None, int() | float() as seconds:
            return float(seconds)
        case int() | float() as moment, _:
            return float(moment) - wall
        case str() as moment, _:
            with contextlib.suppress(ValueError):
                # An RFC 3339 time has an offset; without one it would be read as local time.
                parsed = datetime.fromisoformat(moment)
                if parsed.tzinfo is not None:
                    return parsed.timestamp() - wall
    raise CredentialError("has a helper whose expiry is neither seconds nor an RFC 3339 time")


def _headers(headers: object) -> tuple[tuple[str, Secret], ...]:
    if not isinstance(headers, dict):
        raise CredentialError('has a helper whose "headers" is not an object')
    result = []
    for name, value in headers.items():
        if (
            not HEADER_NAME.fullmatch(name)
            or not isinstance(value, str)
            or not value.isprintable()
            or not value.isascii()
        ):
            raise CredentialError('has a helper whose "headers" are not all texts that fit into a header')
        result.append((name, Secret(value)))
    return tuple(result)
