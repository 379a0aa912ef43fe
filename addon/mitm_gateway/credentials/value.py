"""The value of a credential: a usable secret, or the reason why there is none. Neither shows the secret."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..text.redact import Secret
from ..wire import sigv4
from ..wire.addresses import Upstream

MAX_SECRET_BYTES = 64 * 1024


class CredentialError(Exception):
    """A credential that cannot be used; the text gives the reason and contains nothing of its value.

    With `may_pass` the reason may disappear by itself, so that it is worth trying again.
    """

    def __init__(self, reason: str, *, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.may_pass = may_pass

    def repeated(self) -> CredentialError:
        """Return the same error without its traceback, to be raised again."""
        return CredentialError(str(self), may_pass=self.may_pass)


@dataclass(frozen=True, slots=True)
class Value:
    """A usable secret, the additional headers of a helper, and when it was read.

    `signing` are AWS keys, which sign a request and are not part of it. `api` is the API that takes the secret, if the
    helper names it.
    """

    secret: Secret
    headers: tuple[tuple[str, Secret], ...] = ()
    read_at: float = 0.0
    stale_at: float | None = None
    signing: sigv4.AwsKeys | None = None
    api: Upstream | None = None

    def other_api(self, destination: Upstream) -> Upstream | None:
        """Return the API that takes the secret if it is on another host than this destination."""
        return self.api if self.api and self.api.authority != destination.authority else None


_VISIBLE = re.compile(r"[!-~]+")
_NOT_VISIBLE = "the value contains spaces, line breaks, control or non-ASCII characters"


def is_usable(text: str) -> bool:
    """Return whether a text can be a secret: visible ASCII characters alone."""
    return _VISIBLE.fullmatch(text) is not None


def clean(text: str) -> str:
    """Return a secret without one final newline and a pasted `Bearer `. Raises CredentialError."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if text[:7].lower() == "bearer ":
        text = text[7:].lstrip(" ")
    if not text:
        raise CredentialError("the value is empty")
    if not is_usable(text):
        raise CredentialError(_NOT_VISIBLE)
    return text


def decoded(content: bytes) -> str:
    """Return the content of a file or the output of a helper as text. Raises CredentialError."""
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise CredentialError(_NOT_VISIBLE) from None
