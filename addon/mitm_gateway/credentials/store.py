"""Where secrets come from: environment, files and helper programs; read when needed, cached, never shown.

A helper runs once for all requests that wait for it. Shortly before its value runs out it runs again in
the background, while the old value still serves. Faults name the credential and the kind of fault only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rules.schema import Credential
from ..text.redact import Secret
from ..wire import sigv4
from . import helper
from .value import MAX_SECRET_BYTES, CredentialError, Value, clean, decoded

FAILURE_TTL_S = 5.0
MARGIN_S = 5.0
# A value is fetched anew when a tenth of its life is left, at most a minute before its end.
_REFRESH_SHARE, _REFRESH_MARGIN_S = 0.1, 60.0


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

        # The sources' own limits end a helper; this ends what they do not cover.
        self._patience_s = MARGIN_S + max((each.timeout for each in credentials.values()), default=0.0)

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

    def all_at_hand(self, names: Iterable[str]) -> dict[str, Value] | None:
        """Return these credentials where none has to be waited for, else None. Raises CredentialError."""
        values = {}
        for name in names:
            if (value := self.at_hand(name)) is None:
                return None
            values[name] = value
        return values

    async def obtain(self, names: Iterable[str]) -> dict[str, Value]:
        """Wait for these credentials. Raises CredentialError, also where they take too long."""
        name = ""
        try:
            async with asyncio.timeout(self._patience_s):
                values = {}
                for name in names:
                    values[name] = await self.get(name)
                return values
        except TimeoutError:
            raise CredentialError(f'timed out waiting for credential "{name}"') from None

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
        argv = helper.command_line(credential.command, environ)
        return _Helper(argv, credential.ttl, credential.timeout, environ, now, wall)
    return _Aws(credential.aws or "default", now)


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
        return decoded(content)

    def reject(self, secret: Secret) -> bool:
        dropped, self._value = self._value, None
        if dropped is None:
            return False
        with contextlib.suppress(CredentialError, OSError):
            return clean(self._read()) != secret.reveal()
        return False


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
            output = await helper.run(self.argv, self.timeout_s, self.environ)
            value = helper.parse_output(output, self.ttl_s, self.now(), self.wall())
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
