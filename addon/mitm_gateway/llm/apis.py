"""The table of APIs: endpoints, places of model names, error form, token counts, streams and local answers.

Adding an API takes one entry in `APIS` and its data in `tests/data/streams`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote, unquote_plus

from ..wire.request import RequestHead

Form = Literal["anthropic", "openai", "gemini", "bedrock"]
"""The vendor whose shapes an API uses for errors and lists."""
Stream = Literal["sse", "aws_eventstream", "json_lines", "websocket"]
LocalAnswer = Literal["models", "model", "count_tokens"]
Place = tuple[str | None, ...]
"""Keys from the top of a JSON document to a model name; None stands for every element of a list."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The names of an API's token counts. A name with a dot leads into an object; several names are summed."""

    within: str
    input: str
    output: tuple[str, ...]
    cache_read: str
    cache_creation: str | None = None
    input_includes_cached: bool = False
    cache_creation_long: str | None = None
    """The part of `cache_creation` that stays longer than usual, at a higher price."""


ANTHROPIC_TOKENS = Tokens(
    "usage", "input_tokens", ("output_tokens",), "cache_read_input_tokens", "cache_creation_input_tokens",
    cache_creation_long="cache_creation.ephemeral_1h_input_tokens",
)  # fmt: skip
CHAT_TOKENS = Tokens(
    "usage", "prompt_tokens", ("completion_tokens",), "prompt_tokens_details.cached_tokens",
    "prompt_tokens_details.cache_write_tokens", input_includes_cached=True,
    cache_creation_long="prompt_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
)  # fmt: skip
RESPONSES_TOKENS = Tokens(
    "usage", "input_tokens", ("output_tokens",), "input_tokens_details.cached_tokens",
    "input_tokens_details.cache_write_tokens", input_includes_cached=True,
    cache_creation_long="input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
)  # fmt: skip
CONVERSE_TOKENS = Tokens(
    "usage", "inputTokens", ("outputTokens",), "cacheReadInputTokens", "cacheWriteInputTokens"
)
GEMINI_TOKENS = Tokens(
    "usageMetadata", "promptTokenCount", ("candidatesTokenCount", "thoughtsTokenCount"),
    "cachedContentTokenCount", input_includes_cached=True,
)  # fmt: skip
# The place of a response's stop reason; a number selects an element of a list.
STOP_REASONS: tuple[tuple[str | int, ...], ...] = (
    ("stop_reason",), ("choices", 0, "finish_reason"), ("candidates", 0, "finishReason"), ("stopReason",),
)  # fmt: skip

_TOP: tuple[Place, ...] = (("model",), ("model", "id"))
_ANSWERED: tuple[Place, ...] = (*_TOP, ("message", "model"), ("response", "model"))


@dataclass(frozen=True, slots=True)
class Api:
    """One API, or the endpoints of one that share their properties.

    An endpoint is the end of a path, behind any base path. `*` stands for letters inside a segment, `**` for
    the rest of the path, `{model}` for a segment with the model's name, `{model*}` for one or more such segments.
    A method in front limits the endpoint to it.
    """

    name: str
    endpoints: tuple[str, ...]
    form: Form | None = None
    """None: the form depends on the host."""
    operation: str | None = None
    """The name of the operation in OpenTelemetry's conventions, for calls of a model."""
    is_conversation: bool = False
    """True if the LLM view shows it."""
    query: str | None = None
    """The query parameter that names the model."""
    request: tuple[Place, ...] = _TOP
    response: tuple[Place, ...] = _ANSWERED
    has_resource_names: bool = False
    """True if a body writes a model as a resource, `models/NAME`; only the name is mapped."""
    tokens: Tokens = ANTHROPIC_TOKENS
    stream: Stream = "sse"
    local: LocalAnswer | None = None


_GEMINI_PLACES: tuple[Place, ...] = (
    ("model",), ("requests", None, "model"), ("generateContentRequest", "model"), ("batch", "model"),
)  # fmt: skip
_GEMINI_ANSWERS: tuple[Place, ...] = (("modelVersion",), (None, "modelVersion"), ("model",))

# The first entry that has the endpoint wins.
APIS: tuple[Api, ...] = (
    Api(
        "chat-completions", ("/openai/deployments/{model}/chat/completions", "/chat/completions"), "openai", "chat",
        is_conversation=True, tokens=CHAT_TOKENS,
    ),
    Api(
        "completions", ("/openai/deployments/{model}/completions", "/completions"), "openai", "text_completion",
        tokens=CHAT_TOKENS,
    ),
    Api(
        "responses", ("/openai/deployments/{model}/responses", "/responses"), "openai", "chat",
        is_conversation=True, tokens=RESPONSES_TOKENS,
    ),
    Api(
        "embeddings", ("/openai/deployments/{model}/embeddings", "/embeddings"), "openai", "embeddings",
        tokens=CHAT_TOKENS,
    ),
    Api("azure-deployments", ("/openai/deployments/{model}/**",), "openai"),
    Api("messages", ("/messages",), "anthropic", "chat", is_conversation=True),
    Api("messages-count", ("/messages/count_tokens",), "anthropic", is_conversation=True, local="count_tokens"),
    Api(
        "message-batches", ("/messages/batches",), "anthropic",
        request=(("requests", None, "params", "model"),),
    ),
    Api(
        "message-batch-results", ("/messages/batches/*/results",), "anthropic",
        response=(("result", "message", "model"),), stream="json_lines",
    ),
    Api("message-batch", ("/messages/batches/**",), "anthropic"),
    Api("chat-completion", ("/chat/completions/**",), "openai"),
    Api("response", ("/responses/*",), "openai", is_conversation=True, tokens=RESPONSES_TOKENS),
    Api("response-parts", ("/responses/**",), "openai"),
    Api(
        "realtime", ("/realtime", "/realtime/**"), "openai", query="model", stream="websocket",
        request=(*_TOP, ("session", "model")), response=(("session", "model"), ("response", "model")),
    ),
    Api(
        "openai-media",
        ("/images/**", "/audio/**", "/moderations", "/moderations/**", "/completions/**", "/embeddings/**"),
        "openai",
    ),
    Api(
        "bedrock-invoke", ("/model/{model*}/invoke*",), "bedrock", "chat",
        is_conversation=True, stream="aws_eventstream",
    ),
    Api(
        "bedrock-converse", ("/model/{model*}/converse*",), "bedrock", "chat",
        is_conversation=True, tokens=CONVERSE_TOKENS, stream="aws_eventstream",
    ),
    Api("bedrock-count", ("/model/{model*}/count-tokens",), "bedrock"),
    # Vertex counts tokens at a model's place, with the model in the body.
    Api("vertex-count", ("POST /models/count-tokens:rawPredict",), "anthropic", local="count_tokens"),
    Api(
        "vertex-messages", ("POST /models/{model*}:rawPredict", "POST /models/{model*}:streamRawPredict"),
        "anthropic", "chat", is_conversation=True,
    ),
    Api(
        "gemini-generate",
        tuple(
            f"POST /{kind}/{{model*}}:{verb}"
            for kind in ("models", "tunedModels") for verb in ("generateContent", "streamGenerateContent")
        ),
        "gemini", "generate_content", is_conversation=True,
        request=_GEMINI_PLACES, response=_GEMINI_ANSWERS, has_resource_names=True, tokens=GEMINI_TOKENS,
    ),
    Api(
        "gemini-count", ("POST /models/{model*}:countTokens", "POST /tunedModels/{model*}:countTokens"), "gemini",
        request=_GEMINI_PLACES, response=_GEMINI_ANSWERS, has_resource_names=True, local="count_tokens",
    ),
    Api(
        "gemini",
        ("POST /models/{model*}:*", "POST /tunedModels/{model*}:*", "/models/{model*}/operations/*",
         "/cachedContents", "/cachedContents/*"),
        "gemini", request=_GEMINI_PLACES, response=_GEMINI_ANSWERS, has_resource_names=True,
    ),
    Api("model", ("/models/{model*}",), response=(("id",),), local="model"),
    Api("models", ("/models",), local="models"),
)  # fmt: skip
TOKENS = tuple(dict.fromkeys(api.tokens for api in APIS))
OTHER = Api("other", ())
"""Any other request: JSON with a top-level `model`."""

# The vendors' own hosts, for endpoints that several APIs share.
_FORMS: tuple[tuple[Form, re.Pattern[str]], ...] = (
    ("openai", re.compile(r"api\.openai\.com|.+\.openai\.azure\.com")),
    ("gemini", re.compile(r"generativelanguage\.googleapis\.com|(?:.+-)?aiplatform(?:\..+\.rep)?\.googleapis\.com")),
    ("bedrock", re.compile(r"bedrock-runtime[\w-]*\..+")),
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
        if self.api.query is None or "?" not in target:
            return []
        at, spans = target.index("?") + 1, []
        for pair in target[at:].split("&"):
            name, mark, _ = pair.partition("=")
            if mark and unquote_plus(name) == self.api.query:
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


_MAX_CACHED = 256


def _identify(host: str, method: str, path: str) -> Call:
    # Servers differ in case sensitivity, and no name may pass unnoticed.
    lowered = (path.lower() if path.isascii() else path.translate(_LOWER)).rstrip("/")
    for endpoint in ENDPOINTS:
        if endpoint.method in (None, method) and (span := endpoint.find(lowered)):
            return Call(
                endpoint.api, endpoint.api.form or form_on(host), path, span if span[0] >= 0 else None
            )
    return Call(OTHER, form_on(host), path)


_identify_short = lru_cache(maxsize=2048)(_identify)
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_NO_MODEL = (-1, -1)


@lru_cache(maxsize=256)
def form_on(host: str) -> Form:
    """Return the form of a host's errors, for requests that no entry tells it of."""
    return next((form for form, hosts in _FORMS if hosts.fullmatch(host)), "anthropic")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, compiled: its literals in lower case, and the patterns of the wildcards between them."""

    api: Api
    method: str | None
    literals: tuple[str, ...]
    wildcards: tuple[str, ...]
    form: re.Pattern[str] | None = field(repr=False)

    @property
    def start(self) -> str:
        """The fixed text that it starts with."""
        return self.literals[0]

    def find(self, path: str) -> tuple[int, int] | None:
        """Return the place of the model in a path that has this endpoint, or `_NO_MODEL`; None in other paths."""
        if self.form is None:
            return _NO_MODEL if path.endswith(self.start) else None
        # The first place only: to try them all would take quadratic time on a hostile path.
        at = path.find(self.start)
        found = self.form.fullmatch(path, at) if at >= 0 else None
        if not found:
            return None
        return found.span(1) if self.form.groups else _NO_MODEL


# No two of these can match the same text in many ways, so that a match takes linear time: `*` stops at the colon that
# a model with a method is tried at. Lua reads these patterns as `re` does.
_WILDCARDS = {"{model*}": "(.+)", "{model}": "([^/]+)", "**": ".*", "*": "[^/:]*"}
_WILDCARD = re.compile("|".join(map(re.escape, _WILDCARDS)))


def _compiled(apis: tuple[Api, ...]) -> Iterator[Endpoint]:
    for api in apis:
        for text in api.endpoints:
            method, _, path = text.rpartition(" ")
            path = path.lower()
            literals = tuple(_WILDCARD.split(path))
            wild = tuple(_WILDCARDS[mark] for mark in _WILDCARD.findall(path))
            pattern = "".join(map(str.__add__, map(re.escape, literals), (*wild, "")))
            form = re.compile(pattern, re.DOTALL) if wild else None
            yield Endpoint(api, method or None, literals, wild, form)


ENDPOINTS = tuple(_compiled(APIS))
