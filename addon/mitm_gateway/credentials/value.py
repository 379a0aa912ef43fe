"""What a credential comes to: a usable secret, or the reason why there is none. Neither shows a value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..text.redact import Secret
from ..wire import sigv4

MAX_SECRET_BYTES = 64 * 1024


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


_VISIBLE = re.compile(r"[!-~]+")


def clean(text: str) -> str:
    """A secret without one final newline and a pasted `Bearer `. Raises CredentialError where unusable."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if text[:7].lower() == "bearer ":
        text = text[7:].lstrip(" ")
    if not text:
        raise CredentialError("is empty")
    if not _VISIBLE.fullmatch(text):
        raise CredentialError("holds blanks, line breaks, control or non-ASCII characters")
    return text


def decoded(content: bytes) -> str:
    """What a file or a helper holds, as text. Raises CredentialError where it is no secret."""
    if len(content) > MAX_SECRET_BYTES:
        raise CredentialError("is larger than 64 KiB")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise CredentialError("holds blanks, line breaks, control or non-ASCII characters") from None
