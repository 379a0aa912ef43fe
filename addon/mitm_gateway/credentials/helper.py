"""Helper programs that print a secret: finding, running within bounds, and parsing the output.

A helper gets no shell and no input, and everything that it started is ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ..rules.fields import HEADER_NAME, is_framing_header
from ..text.redact import Secret
from .value import MAX_SECRET_BYTES, CredentialError, Value, clean, decoded

# Time to wait for the end of a killed helper.
_END_S = 2.0
# A token is not used up to its last second: the request has to arrive in time.
_EXPIRY_MARGIN_S = 5.0
# Any longer life is used as this one.
_LONGEST_LIFE_S = 365 * 86400.0

OWN_COMMAND = "mitm-gateway"
_OWN_START = (
    f"import sys; sys.path.append({str(Path(__file__).resolve().parents[2])!r}); "
    "from mitm_gateway.cli import main; sys.exit(main())"
)


def command_line(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arguments to run: `~` expanded, and our own command found even if it is not on the path."""
    return _findable(_with_home(argv), environ)


def _with_home(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        str(Path(argument).expanduser()) if argument.startswith("~/") else argument for argument in argv
    )


def _findable(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    if argv[0] != OWN_COMMAND or shutil.which(OWN_COMMAND, path=environ.get("PATH")):
        return argv
    # Without the current directory on the path (-P): nothing there may be imported.
    return (sys.executable, "-P", "-c", _OWN_START, *argv[1:])


async def run(argv: tuple[str, ...], timeout_s: float, environ: Mapping[str, str]) -> bytes:
    """Return the output of a helper, at most 64 KiB. Raises CredentialError."""
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
        reason = getattr(fault, "strerror", None) or "its arguments are not valid"
        raise CredentialError(f'helper "{program}" cannot be started: {reason}') from None
    try:
        async with asyncio.timeout(timeout_s):
            output = await _bounded_output(process, program)
            status = await process.wait()
    except TimeoutError:
        raise CredentialError(f'helper "{program}" took longer than {timeout_s:g} s', may_pass=True) from None
    finally:
        await _end_group(process)
    if status != 0:
        raise CredentialError(f'helper "{program}" failed with exit status {status}')
    return output


async def _bounded_output(process: asyncio.subprocess.Process, program: str) -> bytes:
    assert process.stdout is not None
    output = b""
    while chunk := await process.stdout.read(MAX_SECRET_BYTES + 1 - len(output)):
        output += chunk
        if len(output) > MAX_SECRET_BYTES:
            raise CredentialError(f'helper "{program}" printed more than 64 KiB')
    return output


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End the helper and all processes of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is not None:
        return
    # asyncio waits for the end of the output as well; a child of the helper that left the group may keep the
    # pipe open, and nothing should wait for that.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            while process.stdout is not None and await process.stdout.read(MAX_SECRET_BYTES):
                pass
            await process.wait()


def parse_output(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
    """Return the value that a helper printed: a bare secret, or JSON with `token`, expiry and headers.

    `now` is on the cache's clock, `wall` in unix seconds. Raises CredentialError.
    """
    if output.lstrip().startswith(b"{"):
        return _parse_json(output, ttl_s, now, wall)
    return Value(Secret(clean(decoded(output))), read_at=now, stale_at=now + ttl_s)


def _parse_json(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
    try:
        data = json.loads(output)
    except (ValueError, RecursionError):
        raise CredentialError("the helper printed broken JSON") from None
    token = data.get("token")
    if not isinstance(token, str):
        raise CredentialError('the helper printed JSON without a text "token"')
    left_s = _seconds_left(data, wall)
    if left_s is not None and left_s <= 0:
        raise CredentialError("the helper printed an expired token")
    life_s = ttl_s if left_s is None else max(left_s - _EXPIRY_MARGIN_S, left_s / 2)
    headers = _headers(data.get("headers", {}))
    return Value(Secret(clean(token)), headers, read_at=now, stale_at=now + life_s)


def _seconds_left(data: dict[str, object], wall: float) -> float | None:
    moment, seconds = data.get("expires_at"), data.get("expires_in")
    if moment is None and seconds is None:
        return None
    if moment is None:
        left_s = _number(seconds)
    else:
        at = _timestamp(moment) if isinstance(moment, str) else _number(moment)
        left_s = None if at is None else at - wall
    if left_s is None:
        raise CredentialError("the helper printed an expiry that is neither seconds nor an RFC 3339 time")
    return min(left_s, _LONGEST_LIFE_S)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number


def _timestamp(text: str) -> float | None:
    try:
        parsed = datetime.fromisoformat(text)
        # An RFC 3339 time has an offset; without one it would be read as local time.
        return parsed.timestamp() if parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _headers(headers: object) -> tuple[tuple[str, Secret], ...]:
    if not isinstance(headers, dict):
        raise CredentialError('the helper printed "headers" that are not an object')
    result = []
    for name, value in headers.items():
        is_header = HEADER_NAME.fullmatch(name) and isinstance(value, str)
        if not (is_header and value.isprintable() and value.isascii()):
            raise CredentialError('the helper printed "headers" that are not valid')
        if is_framing_header(name):
            raise CredentialError('the helper printed "headers" that would break the framing of the request')
        result.append((name, Secret(value)))
    return tuple(result)
