"""The call that a request makes: its API in the table, and the model in its path or query."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_plus

from ..wire.addresses import lenient_path
from ..wire.request import RequestHead
from .apis import APIS, OTHER, Api, Form

# The vendors' own hosts, for endpoints that several APIs share.
_FORMS: tuple[tuple[Form, re.Pattern[str]], ...] = (
    ("openai", re.compile(
        r"(?:[\w-]+\.)?api\.openai\.com|chatgpt\.com|[\w.-]+\.(?:openai|cognitiveservices)\.azure\.com"
        r"|models\.(?:github\.ai|inference\.ai\.azure\.com)"
        r"|api\.(?:groq\.com|mistral\.ai|x\.ai|together\.(?:xyz|ai)|fireworks\.ai|perplexity\.ai)")),
    ("gemini", re.compile(
        r"(?:generativelanguage|cloudcode-pa|(?:[\w-]+-)?aiplatform(?:\.[\w-]+\.rep)?)\.googleapis\.com")),
    ("bedrock", re.compile(
        r"(?:[\w-]+\.)?bedrock-(?:agent|runtime)[\w-]*\.[\w.-]+|bedrock\.[\w-]+\.amazonaws\.com(?:\.cn)?")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its head identifies it: API, form of errors and lists, and the model in the path, if any."""

    api: Api
    form: Form
    path: str
    """The path with needless percent-encoding removed."""
    span: tuple[int, int] | None = None
    """The place of the model's name in `path`."""

    @property
    def model(self) -> str | None:
        """The model that the path names."""
        return unquote(self.path[slice(*self.span)]) if self.span else None

    def path_with(self, model: str) -> str:
        """Return the path with its model replaced by this one."""
        if self.span is None:
            return self.path
        start, end = self.span
        # A client that leaves slashes as they are finds them so upstream; else they stay inside the segment.
        safe = ":@/" if "/" in self.path[start:end] else ":@"
        return self.path[:start] + quote(model, safe=safe) + self.path[end:]

    def query_spans(self, target: str) -> list[tuple[int, int]]:
        """Return the places in a target of the query's values that name a model."""
        if not self.api.query or "?" not in target:
            return []
        at, spans = target.index("?") + 1, []
        for pair in target[at:].split("&"):
            name, mark, _ = pair.partition("=")
            if mark and unquote_plus(name) in self.api.query:
                spans.append((at + len(name) + 1, at + len(pair)))
            at += len(pair) + 1
        return spans

    def model_in(self, target: str) -> str | None:
        """Return the model that the path or the query of this target names."""
        if self.span is not None:
            return self.model
        spans = self.query_spans(target) if self.api.query else []
        return unquote_plus(target[slice(*spans[0])]) if spans else None

    def query_with(self, query: str, model: str) -> str:
        """Return a query, from its `?` on, with its model replaced by this one."""
        for start, end in self.query_spans(query):
            return query[:start] + quote(model, safe=":@/") + query[end:]
        return query


def call_of(head: RequestHead) -> Call:
    """Return the API of a request, and the model in its path."""
    return identify(head.host, head.verb, head.matched_path)


def identify(host: str, method: str, path: str) -> Call:
    """Return the API of a request, from its host and path in normal form; `OTHER` if no entry has the endpoint."""
    return (_identify_short if len(path) <= _MAX_CACHED else _identify)(host, method, path)


def has_two_readings(head: RequestHead) -> bool:
    """Return whether lenient servers may read another model, or other places of models, in a path than its API has."""
    path = head.matched_path
    if not _READ_DIFFERENTLY.search(path):
        return False
    call, other = call_of(head), identify(head.host, head.verb, lenient_path(path))
    model = unquote(path[slice(*call.span)], errors="surrogateescape") if call.span else None
    read = other.path[slice(*other.span)] if other.span else None
    return (call.api.request, call.api.query, model) != (other.api.request, other.api.query, read)


_READ_DIFFERENTLY = re.compile(r"[%;\\#]")
_MAX_CACHED = 256


def _identify(host: str, method: str, path: str) -> Call:
    # Servers differ in case sensitivity, and no name may pass unnoticed.
    lowered = (path.lower() if path.isascii() else path.translate(_LOWER)).rstrip("/")
    for endpoint in ENDPOINTS:
        if endpoint.method in (None, method) and (span := endpoint.find(lowered)):
            api = endpoint.api
            return Call(api, api.form or form_on(host), path, None if span == _NO_MODEL else span)
    return Call(OTHER, form_on(host), path)


_identify_short = lru_cache(maxsize=2048)(_identify)
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_NO_MODEL = (-1, -1)


@lru_cache(maxsize=256)
def form_on(host: str) -> Form:
    """Return the error form of a host, for endpoints whose entry has none."""
    return next((form for form, hosts in _FORMS if hosts.fullmatch(host)), "anthropic")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, compiled: its literals in lower case, and the patterns of the wildcards between them."""

    api: Api
    method: str | None
    literals: tuple[str, ...]
    wildcards: tuple[str, ...]
    pattern: str | None = field(repr=False)

    @property
    def form(self) -> re.Pattern[str] | None:
        """The whole as an expression, compiled when a path may have the endpoint and kept by `re`; None if it is fixed."""
        return re.compile(self.pattern, re.DOTALL) if self.pattern else None

    @property
    def start(self) -> str:
        """The fixed text that it starts with."""
        return self.literals[0]

    def find(self, path: str) -> tuple[int, int] | None:
        """Return the place of the model in a path that has this endpoint, or `_NO_MODEL`; None in other paths."""
        if self.pattern is None:
            return _NO_MODEL if path.endswith(self.start) else None
        # The first place only: to try them all would take quadratic time on a hostile path.
        at = path.find(self.start)
        if at < 0 or not (form := self.form) or not (found := form.fullmatch(path, at)):
            return None
        return found.span(1) if form.groups else _NO_MODEL


# No two of these can match the same text in many ways, so that a match takes linear time: `*` stops at the colon that
# a model with a method is tried at. Lua reads these patterns as `re` does.
_WILDCARDS = {"{model*}": "(.+)", "{model}": "([^/]+)", "**": ".*", "*": "[^/:]*"}
_WILDCARD = re.compile("|".join(map(re.escape, _WILDCARDS)))


def interleaved(literals: Iterable[str], wildcards: Iterable[str]) -> str:
    """Return literals with the pattern of a wildcard between each two."""
    return "".join(map(str.__add__, literals, (*wildcards, "")))


def _compiled(apis: tuple[Api, ...]) -> Iterator[Endpoint]:
    for api in apis:
        for text in api.endpoints:
            method, _, path = text.rpartition(" ")
            path = path.lower()
            literals = tuple(_WILDCARD.split(path))
            wild = tuple(_WILDCARDS[mark] for mark in _WILDCARD.findall(path))
            pattern = interleaved(map(re.escape, literals), wild) if wild else None
            yield Endpoint(api, method or None, literals, wild, pattern)


ENDPOINTS = tuple(_compiled(APIS))
