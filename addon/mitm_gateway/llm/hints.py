"""Hints: the change to the rule that cures a frequent error of an upstream.

A hint is one line in the comment and the log; the response stays unchanged. Only names in a narrow alphabet are
quoted from an upstream's text.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

# Enough for the reason in a JSON error; anything longer is a page.
MAX_ERROR_BYTES = 64 * 1024

_BETA = re.compile(r"anthropic[-_]beta|\bbeta (?:flag|header|feature)|invalid beta", re.IGNORECASE)
_BETA_NAME = re.compile(r"(?<![\w-])[a-z][a-z0-9-]*?-20\d\d-\d\d-\d\d\b")
_EXTRA = re.compile(r"(?<![\w.])([a-z_][\w.]*+): Extra inputs are not permitted", re.IGNORECASE)
_UNKNOWN_FIELD = re.compile(
    r"(?:unknown|unexpected) (?:request )?(?:parameter|field|argument)\W{1,4}([a-z_][\w.]*)", re.IGNORECASE
)
# "model: claude-x", "The model `x` does not exist", "model_not_found", "Invalid model name passed in model=x",
# "The provided model identifier is invalid", "The requested model is not supported".
_MODEL = re.compile(
    r"model_not_found|not_found_error.{0,80}\bmodel:|\bmodel\b.{0,120}?(?:not exist|not found|not supported"
    r"|not available|unknown|is invalid|unsupported)|(?:invalid|unknown|unsupported) model|no such model"
    r"|DeploymentNotFound",
    re.IGNORECASE | re.DOTALL,
)
_VERSION = re.compile(r"v\d[a-z0-9]{0,8}")
# An endpoint at the root, as from a base URL without /v1 in a client that expects it there.
_NO_VERSION = re.compile(
    r"/(?:messages(?:/batches|/count_tokens)?|chat/completions|completions|responses|embeddings|models)"
)
_HTML = re.compile(rb"\s*<(?:!doctype html|html\b)", re.IGNORECASE)
# Parts of a path in an error that name the variant of a block, not a key of the body.
_VARIANTS = {
    "custom", "ephemeral", "text", "image", "document", "thinking", "tool_use", "tool_result", "enabled",
}  # fmt: skip
_OTHER_SLOT = {"bearer": "x-api-key", "x-api-key": "bearer", "api-key": "bearer", "x-goog-api-key": "bearer"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed response, and the parts of the request that may explain it."""

    status: int
    content_type: str
    body: bytes
    path: str
    location: str = ""
    scheme: str | None = None
    credential: str | None = None
    model: str | None = None


def hint(failure: Failure) -> str | None:
    """Return the hint for a response, or None."""
    if 300 <= failure.status < 400 and failure.status != 304:
        return _redirect(failure)
    if "text/html" in failure.content_type.lower() or _HTML.match(failure.body):
        return "received an HTML page instead of JSON, from a firewall, a login page or the wrong host; check upstream"
    if failure.status < 400:
        return None
    text = failure.body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    if failure.status == 401:
        return _unauthorized(failure)
    if failure.status in (400, 422):
        return _image(text) or _beta(text) or _extra_field(text) or _model(text, failure)
    if failure.status in (403, 404):
        return _model(text, failure) or _no_such_path(failure)
    if failure.status == 421:
        return _WRONG_HOST
    return _no_such_path(failure) if failure.status in (405, 501) else None


_WRONG_HOST = (
    "the upstream does not serve this account or host name; check upstream (GitHub Copilot for companies: "
    "https://api.business.githubcopilot.com or https://api.enterprise.githubcopilot.com)"
)


def base_url_mistake(path: str) -> str | None:
    """Return the correction of the client's base URL that a request's path calls for, or None."""
    if path.startswith("//"):
        return "the path begins with //: remove the slash from the end of the client's base URL"
    for one, next_one in pairwise(path.split("/")):
        # A client that adds /v1 itself, with a base URL that ends in /v1.
        if one == next_one and _VERSION.fullmatch(one):
            return f"the path has /{one} twice: remove /{one} from the end of the client's base URL"
    if _NO_VERSION.fullmatch(path):
        return "the path has no version: add /v1 to the end of the client's base URL"
    return None


def _redirect(failure: Failure) -> str:
    try:
        target = urlsplit(failure.location)
        host = re.sub(r"[^\w.:\[\]-]", "", target.hostname or "")
    except ValueError:
        host = ""
    where = f" to {target.scheme}://{host}" if host else ""
    return f"the upstream redirects{where}; set upstream to the final address"


def _unauthorized(failure: Failure) -> str:
    key = f'credential "{failure.credential}"' if failure.credential else "the client's key"
    if other := _OTHER_SLOT.get(failure.scheme or ""):
        return f"the upstream rejects {key} as {failure.scheme}; check the key, or try auth.scheme: {other}"
    if failure.scheme == "none":
        return "the upstream requires a key and the rule sends none; add auth with a credential"
    return f"the upstream rejects {key}; check the key"


def _image(text: str) -> str | None:
    if "copilot-vision-request" not in text.lower():
        return None
    return 'the upstream asks for a header with images; add headers: {set: {Copilot-Vision-Request: "true"}}'


def _beta(text: str) -> str | None:
    if not _BETA.search(text):
        return None
    names = list(dict.fromkeys(_BETA_NAME.findall(text)))[:5]
    drop = ", ".join(names) or "NAME"
    return f"the upstream does not support a beta; add beta: {{drop: [{drop}]}} to the rule"


def _extra_field(text: str) -> str | None:
    found = _EXTRA.search(text) or _UNKNOWN_FIELD.search(text)
    if not found:
        return None
    path = _body_path(found[1])
    return f'the upstream does not support a field; add body: {{remove: ["{path}"]}} to the rule'


def _body_path(place: str) -> str:
    """Convert a place as errors write it, `tools.0.custom.defer_loading`, to a path of `body.remove`."""
    parts: list[str] = []
    for part in place.strip(".").split("."):
        if part.isdecimal() and parts:
            parts[-1] += "[*]"
        elif not (parts and part in _VARIANTS):
            parts.append(part)
    return ".".join(parts)


def _model(text: str, failure: Failure) -> str | None:
    if not _MODEL.search(text):
        return None
    name = f' "{failure.model}"' if failure.model else ""
    return f"the upstream does not know the model{name}; add it to models.map, or set models.default"


def _no_such_path(failure: Failure) -> str | None:
    if failure.status == 403:
        return None
    if failure.path.endswith("/count_tokens"):
        return "the upstream has no count_tokens; add respond: {count_tokens: estimate} to the rule"
    return base_url_mistake(failure.path) or "the upstream has no such path; check the base path in upstream"
