"""Sources of secrets: environment, files, helper programs, AWS. Each is read when needed and cached.

A helper runs once for all requests that wait for it. Shortly before its value expires it runs again in the
background, while the old value is still used.
"""

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rules.read_file import FileError, read_regular_file
from ..rules.schema import Credential
from ..rules.watch import Stamp, stamp_of
from ..text.redact import Secret
from ..wire import sigv4
from . import helper
from .value import MAX_SECRET_BYTES, CredentialError, Value, clean, decoded

# A failed run is repeated after this time at the earliest.
FAILURE_TTL_S = 5.0
# A value is refreshed when a tenth of its life is left, at most a minute before its end.
_REFRESH_SHARE, _REFRESH_MARGIN_S = 0.1, 60.0
# botocore renews expiring keys; an edited profile is read again after this time.
_AWS_TTL_S = 300.0
_OTHERS_MAY_READ = 0o077


@dataclass(frozen=True, slots=True)
class Context:
    """Access to the world: environment, a cache clock and a wall clock in seconds, and a log for warnings."""

    environ: Mapping[str, str]
    now: Callable[[], float]
    wall: Callable[[], float]
    warn: Callable[[str], None]


class Source(ABC):
    """One source of a secret."""

    async def get(self) -> Value:
        """Return the current value, and wait for it if necessary. Raises CredentialError."""
        value = self.at_hand()
        return await self._fetched() if value is None else value

    @abstractmethod
    def at_hand(self) -> Value | None:
        """Return the value, or None if a request has to wait for it. Raises CredentialError."""

    async def _fetched(self) -> Value:
        raise AssertionError("this source never waits")

    def reject(self, secret: Secret) -> bool:
        """Drop a value that the upstream rejected; return whether the next one may be another."""
        return False

    async def close(self) -> None:
        """End everything that still runs."""
        return


def source_of(name: str, credential: Credential, context: Context) -> Source:
    """Return the source of a credential."""
    if credential.value is not None:
        return _Fixed(credential.value, context)
    if credential.env is not None:
        return _Environment(credential.env, credential.default, context)
    if credential.file is not None:
        return _File(name, Path(credential.file).expanduser(), context)
    if credential.command is not None:
        argv = helper.command_line(credential.command, context.environ)
        return _Helper(name, argv, credential.ttl_s, credential.timeout_s, context)
    return _Aws(credential.aws or "default", context)


@dataclass(slots=True)
class _Fixed(Source):
    secret: Secret
    context: Context

    def at_hand(self) -> Value:
        return Value(Secret(clean(self.secret.reveal())), read_at=self.context.now())


@dataclass(slots=True)
class _Environment(Source):
    variable: str
    default: str | None
    context: Context
    _value: Value | None = None

    def at_hand(self) -> Value:
        if self._value is None:
            text = self.context.environ.get(self.variable) or self.default
            if text is None:
                raise CredentialError(f"the environment variable {self.variable} is not set")
            self._value = Value(Secret(clean(text)), read_at=self.context.now())
        return self._value


@dataclass(slots=True)
class _File(Source):
    name: str
    path: Path
    context: Context
    _stamp: Stamp = None
    _value: Value | None = None

    def at_hand(self) -> Value:
        stamp = stamp_of(self.path)
        if self._value is None or stamp != self._stamp:
            self._value = Value(Secret(clean(self._read())), read_at=self.context.now())
            self._stamp = stamp
        return self._value

    def _read(self) -> str:
        try:
            return decoded(read_regular_file(self.path, MAX_SECRET_BYTES, self._check))
        except FileError as fault:
            raise CredentialError(str(fault)) from None

    def _check(self, status: os.stat_result) -> None:
        if status.st_mode & _OTHERS_MAY_READ:
            self.context.warn(
                f'other users can read the file of credential "{self.name}"; run chmod 600 on it'
            )

    def reject(self, secret: Secret) -> bool:
        dropped, self._value = self._value, None
        if dropped is None:
            return False
        with contextlib.suppress(CredentialError):
            return clean(self._read()) != secret.reveal()
        return False


@dataclass(slots=True)
class _Aws(Source):
    profile: str
    context: Context
    _provider: Any = None
    _stale_at: float = 0.0
    _failure: tuple[float, str] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def at_hand(self) -> None:
        return None

    async def _fetched(self) -> Value:
        async with self._lock:
            now = self.context.now()
            if self._failure is not None and now < self._failure[0] + FAILURE_TTL_S:
                raise CredentialError(self._failure[1])
            try:
                keys = await asyncio.to_thread(self._keys, now)
            except sigv4.AwsError as fault:
                self._failure = (self.context.now(), str(fault))
                raise CredentialError(str(fault)) from None
        return Value(keys.secret_key, read_at=now, signing=keys)

    def _keys(self, now: float) -> sigv4.AwsKeys:
        if self._provider is None or now >= self._stale_at:
            self._provider, self._stale_at = sigv4.provider(self.profile), now + _AWS_TTL_S
        return sigv4.frozen(self._provider)


@dataclass(slots=True)
class _Helper(Source):
    name: str
    argv: tuple[str, ...]
    ttl_s: float
    timeout_s: float
    context: Context
    _value: Value | None = None
    _failure: tuple[float, CredentialError] | None = None
    _run: asyncio.Task[Value] | None = None
    _rejected: set[Secret] = field(default_factory=set)

    def at_hand(self) -> Value | None:
        now = self.context.now()
        value = self._value
        if value is not None and (value.stale_at is None or now < value.stale_at):
            if self._needs_refresh(value, now):
                self._start()
            return value
        if self._has_failed(now) and self._run is None and self._failure:
            raise self._failure[1].repeated()
        return None

    async def _fetched(self) -> Value:
        # Shielded: a client that disconnects must not end the run that others wait for.
        return await asyncio.shield(self._start())

    def _needs_refresh(self, value: Value, now: float) -> bool:
        if value.stale_at is None or self._has_failed(now):
            return False
        life_s = value.stale_at - value.read_at
        return now >= value.stale_at - min(life_s * _REFRESH_SHARE, _REFRESH_MARGIN_S)

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
            run.exception()  # retrieved here, as nothing else awaits a background run

    async def _refresh(self) -> Value:
        errors = helper.ErrorOutput()
        try:
            output = await helper.run_helper(self.argv, self.timeout_s, self.context.environ, errors)
            value = helper.parse_output(output, self.ttl_s, self.context.now(), self.context.wall())
        except CredentialError as fault:
            self._failure = (self.context.now(), fault.repeated())
            if line := errors.last_line(self.context.environ):
                self.context.warn(f'the helper of credential "{self.name}" wrote: {line}')
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
