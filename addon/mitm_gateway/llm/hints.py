"""What to put into the rule when an upstream answers with one of the errors that users meet most.

A hint is one line for the comment and the log; the answer itself is never changed. Texts of an upstream
are searched, and of what they hold only names in a narrow alphabet are quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# Where in an answer the reason stands; longer ones are pages.
MAX_BODY = 64 * 1024

_BETA = re.compile(r"anthropic[-_]beta|\bbeta (?:flag|header|feature)|invalid beta", re.IGNORECASE)
_BETA_NAME = re.compile(r"\b[a-z][a-z0-9-]*-20\d\d-\d\d-\d\d\b")
_EXTRA = re.compile(r"([a-z_][\w.]*): Extra inputs are not permitted", re.IGNORECASE)
_UNKNOWN_FIELD = re.compile(
    r"(?:unknown|unexpected) (?:request )?(?:parameter|field|argument)\W{1,4}([a-z_][\w.]*)",
    re.IGNORECASE,
)
# "model: claude-x", "The model `x` does not exist", "model_not_found", "Invalid model name passed in model=x",
# "The provided model identifier is invalid", "The requested model is not supported".
_MODEL = re.compile(
    r"model_not_found|not_found_error.{0,80}\bmodel:|\bmodel\b.{0,120}?(?:not exist|not found|not supported"
    r"|not available|unknown|is invalid|unsupported)|(?:invalid|unknown|unsupported) model|no such model"
    r"|DeploymentNotFound",
    re.IGNORECASE | re.DOTALL,
)
_HTML = re.compile(rb"\s*<(?:!doctype html|html\b)", re.IGNORECASE)
# Parts of a path in an error that name the variant of a block and are no key of the body.
_VARIANTS = {
    "custom",
    "ephemeral",
    "text",
    "image",
    "document",
    "thinking",
    "tool_use",
    "tool_result",
    "enabled",
}
_OTHER_SLOT = {"bearer": "x-api-key", "x-api-key": "bearer", "api-key": "bearer", "x-goog-api-key": "bearer"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream answered, and what it had been sent."""

    status: int
    content_type: str
    body: bytes
    path: str
    location: str = ""
    scheme: str | None = None
    credential: str | None = None
    model: str | None = None


def hint(answer: Answer) -> str | None:
    """The line for an answer, or None where there is nothing to say."""
    if 300 <= answer.status < 400 and answer.status != 304:
        return _redirect(answer)
    if "text/html" in answer.content_type.lower() or _HTML.match(answer.body):
        return "a page of HTML instead of an answer: a firewall, login or wrong host; check upstream"
    if answer.status < 400:
        return None
    text = answer.body[:MAX_BODY].decode("utf-8", "replace")
    if answer.status == 401:
        return _unauthorized(answer)
    if answer.status in (400, 422):
        return _beta(text) or _extra_field(text) or _model(text, answer)
    if answer.status in (403, 404):
        return _model(text, answer) or _no_such_path(answer)
    return _no_such_path(answer) if answer.status in (405, 501) else None


def _redirect(answer: Answer) -> str:
    try:
        target = urlsplit(answer.location)
        host = re.sub(r"[^\w.:\[\]-]", "", target.hostname or "")
    except ValueError:
        host = ""
    where = f" to {target.scheme}://{host}" if host else ""
    return f"the upstream redirects{where}: put the address that answers itself into upstream"


def _unauthorized(answer: Answer) -> str:
    key = f'credential "{answer.credential}"' if answer.credential else "the client's key"
    if other := _OTHER_SLOT.get(answer.scheme or ""):
        return f"the upstream does not take {key} as {answer.scheme}: check it, or try auth.scheme: {other}"
    if answer.scheme == "none":
        return "the upstream wants a key and the rule sends none: give it auth with a credential"
    return f"the upstream does not take {key}: check it"


def _beta(text: str) -> str | None:
    if not _BETA.search(text):
        return None
    names = list(dict.fromkeys(_BETA_NAME.findall(text)))[:5]
    drop = ", ".join(names) or "NAME"
    return f"the upstream does not know a beta: put beta: {{drop: [{drop}]}} into the rule"


def _extra_field(text: str) -> str | None:
    found = _EXTRA.search(text) or _UNKNOWN_FIELD.search(text)
    if not found:
        return None
    path = _body_path(found[1])
    return f'the upstream does not know a field: put body: {{remove: ["{path}"]}} into the rule'


def _body_path(place: str) -> str:
    """`tools.0.custom.defer_loading`, as errors name a place, in the form of `body.remove`."""
    parts: list[str] = []
    for part in place.strip(".").split("."):
        if part.isdecimal() and parts:
            parts[-1] += "[*]"
        elif not (parts and part in _VARIANTS):
            parts.append(part)
    return ".".join(parts)


def _model(text: str, answer: Answer) -> str | None:
    if not _MODEL.search(text):
        return None
    name = f' "{answer.model}"' if answer.model else ""
    return f"the upstream does not know the model{name}: add it to models.map, or set models.default"


def _no_such_path(answer: Answer) -> str | None:
    if answer.status == 403:
        return None
    if answer.path.endswith("/count_tokens"):
        return "the upstream has no count_tokens: put respond: {count_tokens: estimate} into the rule"
    return "the upstream has no such path: check the base path in upstream"
