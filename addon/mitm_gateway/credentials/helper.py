"""Helper programs that print a secret: finding, running within bounds, and parsing the output.

A helper gets no shell and no input, and everything that it started is ended with it.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

from ..rules.fields import HEADER_NAME, is_framing_header
from ..text.printable import visible
from ..text.redact import Secret, is_key_header, masked, masked_text
from ..wire.addresses import Upstream
from .value import MAX_SECRET_BYTES, CredentialError, Value, clean, decoded

# Time to wait for the end of a killed helper.
_END_S = 2.0
# Time to wait for the rest of the error output, its kept size, and the length of a line that is shown.
_ERRORS_S, _MAX_ERRORS, _MAX_LINE = 0.2, 4096, 200
# Parts of the output that may be a secret.
_WORD = re.compile(r"[!#-+\--9;-\[\]-z|~]+")
# As long as the shortest tokens in use; host names and paths are cut into shorter parts.
_OPAQUE = re.compile(r"[A-Za-z0-9_+=~-]{16,}")
# A token is not used up to its last second: the request has to arrive in time.
_EXPIRY_MARGIN_S = 5.0
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
# Names of the token in the output of helpers: ours, OAuth's and that of the `az` command.
_TOKEN_KEYS = ("token", "access_token", "accessToken")
_LEAP_SECOND = re.compile(r"(T\d\d:\d\d):60")
# Any longer life is used as this one.
_LONGEST_LIFE_S = 365 * 86400.0

OWN_COMMAND = "mitm-gateway"
_OWN_START = (
    f"import sys; sys.path.append({str(Path(__file__).resolve().parents[2])!r}); "
    "from mitm_gateway.cli import main; sys.exit(main())"
)


def command_line(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arguments to run: `~` expanded, and our own command found even if it is not on the path."""
    words = tuple(str(Path(word).expanduser()) if word.startswith("~/") else word for word in argv)
    if words[0] != OWN_COMMAND or shutil.which(OWN_COMMAND, path=environ.get("PATH")):
        return words
    # Without the current directory on the path (-P): nothing there may be imported.
    return (sys.executable, "-P", "-c", _OWN_START, *words[1:])


class ErrorOutput:
    """The end of a helper's error output; its last line usually names the remedy."""

    def __init__(self) -> None:
        self._end = b""
        self.printed = b""
        """The helper's output so far, which may contain its secret."""

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[int]:
        """Read everything from a pipe, so that the helper never waits, and keep the end; yield the end to write."""
        ours, theirs = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
        )
        reading = asyncio.create_task(self._read(reader))
        try:
            yield theirs
        finally:
            os.close(theirs)
            # A process that left the helper's group may keep the pipe open.
            await asyncio.wait({reading}, timeout=_ERRORS_S)
            reading.cancel()
            transport.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_MAX_ERRORS):
            self._end = (self._end + chunk)[-_MAX_ERRORS:]

    def last_line(self, environ: Mapping[str, str]) -> str:
        """Return the last line, printable and with known secrets masked; empty if there is none."""
        lines = [line for line in self._end.decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return ""
        own = [value for name, value in environ.items() if is_key_header(name)]
        secrets = {
            each for each in (*_WORD.findall(self.printed.decode(errors="replace")), *own) if len(each) >= 6
        }
        line = masked_text(lines[-1].strip(), secrets)
        return visible(_OPAQUE.sub(lambda found: _masked_if_opaque(found[0]), line))[:_MAX_LINE]


def _masked_if_opaque(word: str) -> str:
    """Return a long word of letters and digits masked: a failed helper may have printed its secret in any form."""
    is_opaque = any(map(str.isdigit, word)) and any(map(str.isalpha, word))
    return masked(word) if is_opaque else word


async def run_helper(
    argv: tuple[str, ...], timeout_s: float, environ: Mapping[str, str], errors: ErrorOutput
) -> bytes:
    """Return the output of a helper, at most 64 KiB; `errors` gets its error output. Raises CredentialError."""
    program = Path(argv[0]).name
    async with errors.reading() as pipe:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=pipe,
                env=dict(environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or "its arguments are not valid"
            raise CredentialError(f'helper "{program}" cannot be started: {reason}') from None
        try:
            async with asyncio.timeout(timeout_s):
                output = await _bounded_output(process, program, errors)
                status = await process.wait()
        except TimeoutError:
            text = f'helper "{program}" took longer than {timeout_s:g} s'
            raise CredentialError(text, may_pass=True) from None
        finally:
            await _end_group(process)
    if status != 0:
        raise CredentialError(f'helper "{program}" failed with exit status {status}')
    return output


async def _bounded_output(process: asyncio.subprocess.Process, program: str, errors: ErrorOutput) -> bytes:
    assert process.stdout is not None
    output = b""
    while chunk := await process.stdout.read(MAX_SECRET_BYTES + 1 - len(output)):
        output += chunk
        errors.printed = output
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
    token = next((data[key] for key in _TOKEN_KEYS if key in data), None)
    if not isinstance(token, str):
        raise CredentialError('the helper printed JSON without a text "token"')
    left_s = _seconds_left(data, wall)
    if left_s is not None and left_s <= 0:
        raise CredentialError("the helper printed an expired token")
    life_s = ttl_s if left_s is None else max(left_s - _EXPIRY_MARGIN_S, left_s / 2)
    headers = _headers(data.get("headers"))
    api = _api(data.get("api"))
    return Value(Secret(clean(token)), headers, read_at=now, stale_at=now + life_s, api=api)


def _api(url: object) -> Upstream | None:
    """Return the API that a helper names; only a note depends on it, so anything else is ignored."""
    if not isinstance(url, str):
        return None
    try:
        return Upstream.parse(url)
    except ValueError:
        return None


def _seconds_left(data: dict[str, object], wall: float) -> float | None:
    moment, seconds = data.get("expires_at"), data.get("expires_in")
    azure_left_s = _azure_seconds_left(data.get("expiresOn"), data.get("expires_on"), wall)
    if moment is None and seconds is None:
        return azure_left_s
    if moment is None:
        left_s = _number(seconds)
    else:
        at = _timestamp(moment) if (number := _number(moment)) is None else number
        left_s = None if at is None else at - wall
    if left_s is None:
        raise CredentialError("the helper printed an expiry that is neither seconds nor an RFC 3339 time")
    # Azure's metadata server answers from a cache, with the seconds from the token's issue.
    return min(left_s, _LONGEST_LIFE_S if azure_left_s is None else azure_left_s, _LONGEST_LIFE_S)


def _azure_seconds_left(local: object, moment: object, wall: float) -> float | None:
    """Return the seconds left by the `az` command: unix seconds, or a time with an offset or in local time."""
    at = _number(moment)
    if at is None:
        at = _timestamp(local, is_local=True)
    if at is None and local is not None:
        raise CredentialError("the helper printed an expiresOn that is not a time")
    return None if at is None else min(at - wall, _LONGEST_LIFE_S)


def _number(value: object) -> float | None:
    if isinstance(value, str):  # as Azure AD v1 writes numbers
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number


def _timestamp(text: object, *, is_local: bool = False) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        # RFC 3339 allows small letters and leap seconds, Python neither.
        parsed = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", text.upper()))
        # An RFC 3339 time has an offset; without one it would be read as local time.
        return parsed.timestamp() if parsed.tzinfo is not None or is_local else None
    except (ValueError, OverflowError):
        return None


def _headers(headers: object) -> tuple[tuple[str, Secret], ...]:
    if headers is None:
        return ()
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
