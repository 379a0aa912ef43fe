"""Where secrets come from: environment, files and helper programs; read when needed, cached, never shown.

A helper runs once for all requests that wait for it. Shortly before its value runs out it runs again in
the background, while the old value still serves. Faults name the credential and the kind of fault only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from . import sigv4
from .redact import Secret
from .schema import HEADER_NAME, Credential

MAX_SECRET_BYTES = 64 * 1024
FAILURE_TTL_S = 5.0
# A value is fetched anew when a tenth of its life is left, at most a minute before its end.
_REFRESH_SHARE, _REFRESH_MARGIN_S = 0.1, 60.0
# How long the end of a killed helper is waited for.
_END_S = 2.0
# A token is not used up to its last second: the request has to get there.
_EXPIRY_MARGIN_S = 5.0


OWN_COMMAND = "mitm-gateway"
_OWN_START = (
    f"import sys; sys.path.append({str(Path(__file__).resolve().parents[1])!r}); "
    "from mitm_gateway.cli import main; sys.exit(main())"
)


class CredentialError(Exception):
    """A credential that cannot be used. The text says which and why, and holds nothing of its value."""


@dataclass(frozen=True, slots=True)
class Value:
    """A usable secret, further headers that a helper asks for, and when it was read.

    `signing` are AWS keys, which sign a request instead of standing in it.
    """

    secret: Secret
    headers: tuple[tuple[str, Secret], ...] = ()
    read_at: float = 0.0
    stale_at: float | None = None
    signing: sigv4.AwsKeys | None = None


def clean(text: str) -> str:
    """A secret without one final newline and a pasted `Bearer `. Raises CredentialError where unusable."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if text[:7].lower() == "bearer ":
        text = text[7:].lstrip(" ")
    if not text:
        raise CredentialError("is empty")
    if any(not "!" <= character <= "~" for character in text):
        raise CredentialError("holds blanks, line breaks, control or non-ASCII characters")
    return text


class Credentials:
    """The secrets of one rules file, by name. One event loop uses it; `now` and `wall` give seconds."""

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        environ: Mapping[str, str] = os.environ,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
        previous: Credentials | None = None,
    ) -> None:
        self._credentials = dict(credentials)
        # What a reload did not change keeps its cached value.
        kept = previous._sources if previous else {}
        self._sources: dict[str, _Source] = {
            name: kept[name]
            if previous and name in kept and previous._credentials[name] == credential
            else _source(name, credential, environ, now, wall, warn)
            for name, credential in self._credentials.items()
        }

        self.patience_s = max((credential.timeout for credential in credentials.values()), default=0.0)

    async def get(self, name: str) -> Value:
        """The value of a credential. Raises CredentialError."""
        try:
            return await self._sources[name].get()
        except CredentialError as fault:
            raise CredentialError(f'credential "{name}" {fault}') from None

    def at_hand(self, name: str) -> Value | None:
        """The value of a credential where nobody has to wait for it, else None. Raises CredentialError."""
        try:
            return self._sources[name].at_hand()
        except CredentialError as fault:
            raise CredentialError(f'credential "{name}" {fault}') from None

    def reject(self, name: str, secret: Secret) -> bool:
        """Notes that the upstream answered 401; whether a request sent again may bring a fresh value.

        A value is dropped once: a source that gives the same one again is not asked in a loop.
        """
        return self._sources[name].reject(secret)

    async def close(self) -> None:
        """Ends helpers that still run."""
        for source in self._sources.values():
            await source.close()


class _Source(ABC):
    """One place that secrets come from: `at_hand` without waiting, or after waiting for `_fetched`."""

    async def get(self) -> Value:
        """The value as it is now. Raises CredentialError."""
        value = self.at_hand()
        return await self._fetched() if value is None else value

    @abstractmethod
    def at_hand(self) -> Value | None:
        """The value, or None where it has to be waited for. Raises CredentialError."""

    async def _fetched(self) -> Value:
        raise AssertionError("what is at hand is not fetched")

    def reject(self, secret: Secret) -> bool:
        return False

    async def close(self) -> None:
        return


def _source(
    name: str,
    credential: Credential,
    environ: Mapping[str, str],
    now: Callable[[], float],
    wall: Callable[[], float],
    warn: Callable[[str], None],
) -> _Source:
    if credential.value is not None:
        return _Fixed(credential.value, now)
    if credential.env is not None:
        return _Environment(credential.env, credential.default, environ, now)
    if credential.file is not None:
        return _File(name, Path(credential.file).expanduser(), now, warn)
    if credential.command is not None:
        argv = _findable(_with_home(credential.command), environ)
        return _Helper(argv, credential.ttl, credential.timeout, environ, now, wall)
    return _Aws(credential.aws or "default", now)


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


@dataclass(slots=True)
class _Fixed(_Source):
    secret: Secret
    now: Callable[[], float]

    def at_hand(self) -> Value:
        return Value(Secret(clean(self.secret.reveal())), read_at=self.now())


# botocore renews what runs out; a profile that was edited is seen after this time.
_AWS_TTL_S = 300.0


@dataclass(slots=True)
class _Aws(_Source):
    profile: str
    now: Callable[[], float]
    _provider: Any = None
    _stale_at: float = 0.0
    _failure: tuple[float, str] | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def at_hand(self) -> None:
        return None

    async def _fetched(self) -> Value:
        async with self._turn:
            now = self.now()
            if self._failure is not None and now < self._failure[0] + FAILURE_TTL_S:
                raise CredentialError(self._failure[1])
            try:
                keys = await asyncio.to_thread(self._keys, now)
            except sigv4.AwsError as fault:
                self._failure = (self.now(), str(fault))
                raise CredentialError(str(fault)) from None
        return Value(keys.secret_key, read_at=now, signing=keys)

    def _keys(self, now: float) -> sigv4.AwsKeys:
        if self._provider is None or now >= self._stale_at:
            self._provider, self._stale_at = sigv4.provider(self.profile), now + _AWS_TTL_S
        return sigv4.frozen(self._provider)


@dataclass(slots=True)
class _Environment(_Source):
    variable: str
    default: str | None
    environ: Mapping[str, str]
    now: Callable[[], float]

    def at_hand(self) -> Value:
        text = self.environ.get(self.variable) or self.default
        if text is None:
            raise CredentialError(f"is not there: set the environment variable {self.variable}")
        return Value(Secret(clean(text)), read_at=self.now())


@dataclass(slots=True)
class _File(_Source):
    name: str
    path: Path
    now: Callable[[], float]
    warn: Callable[[str], None]
    _stamp: tuple[int, ...] = ()
    _value: Value | None = None

    def at_hand(self) -> Value:
        try:
            status = self.path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)
            if self._value is None or stamp != self._stamp:
                self._value = Value(Secret(clean(self._read())), read_at=self.now())
                self._stamp = stamp
        except FileNotFoundError:
            raise CredentialError("cannot be read: its file is not there") from None
        except OSError as fault:
            raise CredentialError(f"cannot be read: {fault.strerror or 'unreadable file'}") from None
        return self._value

    def _read(self) -> str:
        # Without O_NONBLOCK a pipe in the file's place would hold the whole proxy.
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):  # looked at first: Python gives no file object for a directory
            os.close(handle)
            raise CredentialError("cannot be read: its file is not a regular file")
        with os.fdopen(handle, "rb") as file:
            if status.st_size > MAX_SECRET_BYTES:
                raise CredentialError("cannot be read: its file is larger than 64 KiB")
            content = file.read(MAX_SECRET_BYTES + 1)
        if status.st_mode & 0o077:
            self.warn(f'the file of credential "{self.name}" can be read by other users; chmod 600 helps')
        return _decoded(content)

    def reject(self, secret: Secret) -> bool:
        dropped, self._value = self._value, None
        if dropped is None:
            return False
        with contextlib.suppress(CredentialError, OSError):
            return clean(self._read()) != secret.reveal()
        return False


def _decoded(content: bytes) -> str:
    if len(content) > MAX_SECRET_BYTES:
        raise CredentialError("is larger than 64 KiB")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise CredentialError("holds blanks, line breaks, control or non-ASCII characters") from None


@dataclass(slots=True)
class _Helper(_Source):
    argv: tuple[str, ...]
    ttl_s: float
    timeout_s: float
    environ: Mapping[str, str]
    now: Callable[[], float]
    wall: Callable[[], float]
    _value: Value | None = None
    _failure: tuple[float, str] | None = None
    _run: asyncio.Task[Value] | None = None
    _rejected: set[Secret] = field(default_factory=set)

    def at_hand(self) -> Value | None:
        now = self.now()
        value = self._value
        if value is not None and (value.stale_at is None or now < value.stale_at):
            if self._wants_refresh(value, now):
                self._start()
            return value
        if self._has_failed(now) and self._run is None and self._failure:
            raise CredentialError(self._failure[1])
        return None

    async def _fetched(self) -> Value:
        # Shielded: a client that hangs up must not end the run that others wait for.
        return await asyncio.shield(self._start())

    def _wants_refresh(self, value: Value, now: float) -> bool:
        if value.stale_at is None or self._has_failed(now):
            return False
        life = value.stale_at - value.read_at
        return now >= value.stale_at - min(life * _REFRESH_SHARE, _REFRESH_MARGIN_S)

    def _has_failed(self, now: float) -> bool:
        return self._failure is not None and now < self._failure[0] + FAILURE_TTL_S

    def _start(self) -> asyncio.Task[Value]:
        if self._run is None:
            self._run = asyncio.get_running_loop().create_task(self._refresh())
            self._run.add_done_callback(self._ended)
        return self._run

    def _ended(self, run: asyncio.Task[Value]) -> None:
        self._run = None
        if not run.cancelled():
            run.exception()  # looked at here: a background run has nobody else who would

    async def _refresh(self) -> Value:
        try:
            output = await run_helper(self.argv, self.timeout_s, self.environ)
            value = parse_helper_output(output, self.ttl_s, self.now(), self.wall())
        except CredentialError as fault:
            self._failure = (self.now(), str(fault))
            raise
        self._value, self._failure = value, None
        return value

    def reject(self, secret: Secret) -> bool:
        if secret in self._rejected:
            return False
        self._rejected = {secret, *list(self._rejected)[:15]}
        if self._value is not None and self._value.secret == secret:
            self._value = None
        return True

    async def close(self) -> None:
        if self._run is not None:
            self._run.cancel()
            with contextlib.suppress(asyncio.CancelledError, CredentialError):
                await self._run


async def run_helper(argv: tuple[str, ...], timeout_s: float, environ: Mapping[str, str]) -> bytes:
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


def parse_helper_output(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
    """The value that a helper printed: a bare secret, or JSON with `token`, expiry and headers.

    `now` is on the cache's clock, `wall` in unix seconds. Raises CredentialError.
    """
    text = _decoded(output) if not output.lstrip().startswith(b"{") else ""
    if not text and output.strip():
        return _parse_helper_json(output, ttl_s, now, wall)
    return Value(Secret(clean(text)), read_at=now, stale_at=now + ttl_s)


def _parse_helper_json(output: bytes, ttl_s: float, now: float, wall: float) -> Value:
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
    headers = _helper_headers(data.get("headers", {}))
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


def _helper_headers(headers: object) -> tuple[tuple[str, Secret], ...]:
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
