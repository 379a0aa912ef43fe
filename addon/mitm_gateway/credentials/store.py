"""The secrets of one rules file, by name. Errors contain the credential's name and the kind of fault only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping

from ..rules.schema import Credential
from ..text.redact import Secret
from .clock import elapsed_s
from .sources import Context, Source, source_of
from .value import CredentialError, Value

# The sources' own limits end a helper; this margin ends what they do not cover.
MARGIN_S = 5.0


class Credentials:
    """The secrets of one rules file, for one event loop; `now` and `wall` return seconds."""

    def __init__(
        self,
        credentials: Mapping[str, Credential],
        environ: Mapping[str, str] = os.environ,
        *,
        now: Callable[[], float] = elapsed_s,
        wall: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
        previous: Credentials | None = None,
    ) -> None:
        self._credentials = dict(credentials)
        context = Context(environ, now, wall, warn)
        # Credentials that a reload did not change keep their cached values.
        kept = previous._sources if previous else {}
        self._sources: dict[str, Source] = {
            name: kept[name]
            if previous and name in kept and previous._credentials[name] == credential
            else source_of(name, credential, context)
            for name, credential in self._credentials.items()
        }
        self._patience_s = MARGIN_S + max((each.timeout_s for each in credentials.values()), default=0.0)

    async def get(self, name: str) -> Value:
        """Return the value of a credential. Raises CredentialError."""
        try:
            return await self._sources[name].get()
        except CredentialError as fault:
            raise CredentialError(f'credential "{name}": {fault}', may_pass=fault.may_pass) from None

    def at_hand(self, name: str) -> Value | None:
        """Return the value of a credential, or None if a request has to wait for it. Raises CredentialError."""
        try:
            return self._sources[name].at_hand()
        except CredentialError as fault:
            raise CredentialError(f'credential "{name}": {fault}', may_pass=fault.may_pass) from None

    def all_at_hand(self, names: Iterable[str]) -> dict[str, Value] | None:
        """Return these credentials, or None if a request has to wait for one. Raises CredentialError."""
        values = {}
        for name in names:
            if (value := self.at_hand(name)) is None:
                return None
            values[name] = value
        return values

    async def obtain(self, names: Iterable[str]) -> dict[str, Value]:
        """Wait for these credentials. Raises CredentialError, also if they take too long."""
        name = ""
        try:
            async with asyncio.timeout(self._patience_s):
                values = {}
                for name in names:
                    values[name] = await self.get(name)
                return values
        except TimeoutError:
            raise CredentialError(f'timed out waiting for credential "{name}"', may_pass=True) from None

    def reject(self, name: str, secret: Secret) -> bool:
        """Drop a value that the upstream rejected; return whether the next request may get another.

        A value is dropped once: a source that returns the same value again is not asked in a loop.
        """
        return self._sources[name].reject(secret)

    async def close(self) -> None:
        """End helpers that still run."""
        for source in self._sources.values():
            await source.close()
