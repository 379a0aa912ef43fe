"""The table of APIs: endpoints, places of model names, error form, token counts and local answers.

Adding an API takes one entry in `APIS` and its data in `tests/data/streams`.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["anthropic", "openai", "gemini", "bedrock"]
"""The vendor whose shapes an API uses for errors and lists."""
LocalAnswerKind = Literal["models", "model", "count_tokens"]
Place = tuple[str | None, ...]
"""Keys from the top of a JSON document to a model name; None selects every element of a list."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The names of an API's token counts. A name with a dot leads into an object; several names are summed."""

    within: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    cache_read: str
    cache_creation: str | None = None
    input_includes_cached: bool = False
    cache_creation_long: str | None = None
    """The part of `cache_creation` that stays longer than usual, at a higher price."""


ANTHROPIC_TOKENS = Tokens(
    "usage", ("input_tokens",), ("output_tokens",), "cache_read_input_tokens", "cache_creation_input_tokens",
    cache_creation_long="cache_creation.ephemeral_1h_input_tokens",
)  # fmt: skip
CHAT_TOKENS = Tokens(
    "usage", ("prompt_tokens",), ("completion_tokens",), "prompt_tokens_details.cached_tokens",
    "prompt_tokens_details.cache_write_tokens", input_includes_cached=True,
    cache_creation_long="prompt_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
)  # fmt: skip
RESPONSES_TOKENS = Tokens(
    "usage", ("input_tokens",), ("output_tokens",), "input_tokens_details.cached_tokens",
    "input_tokens_details.cache_write_tokens", input_includes_cached=True,
    cache_creation_long="input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
)  # fmt: skip
REALTIME_TOKENS = Tokens(
    "usage", ("input_tokens",), ("output_tokens",), "input_token_details.cached_tokens", input_includes_cached=True
)  # fmt: skip
CONVERSE_TOKENS = Tokens(
    "usage", ("inputTokens",), ("outputTokens",), "cacheReadInputTokens", "cacheWriteInputTokens"
)
GEMINI_TOKENS = Tokens(
    "usageMetadata", ("promptTokenCount", "toolUsePromptTokenCount"),
    ("candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount"),
    "cachedContentTokenCount", input_includes_cached=True,
)  # fmt: skip
INTERACTION_TOKENS = Tokens(
    "usage", ("total_input_tokens", "total_tool_use_tokens"), ("total_output_tokens", "total_thought_tokens"),
    "total_cached_tokens", input_includes_cached=True,
)  # fmt: skip
# The place of a response's stop reason; a number selects an element of a list.
STOP_REASONS: tuple[tuple[str | int, ...], ...] = (
    ("stop_reason",), ("choices", 0, "finish_reason"), ("candidates", 0, "finishReason"), ("stopReason",),
    ("promptFeedback", "blockReason"),
)  # fmt: skip

_TOP: tuple[Place, ...] = (("model",), ("model", "id"))
# Models beside the one that a call is for: to fall back to, to give advice, to draw, to moderate.
_FURTHER: tuple[Place, ...] = (
    ("fallbacks", None, "model"), ("tools", None, "model"), ("moderation", "model"),
)  # fmt: skip
_CALL = (*_TOP, *_FURTHER, ("models", None), ("fallbacks", None))
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
    query: tuple[str, ...] = ()
    """The query parameters that name the model."""
    request: tuple[Place, ...] = _TOP
    response: tuple[Place, ...] = _ANSWERED
    takes_files: bool = False
    """True if a body is a file or describes one, and names no model, whatever its type says."""
    has_resource_names: bool = False
    """True if a body writes a model as a resource, `models/NAME`; only the name is mapped."""
    tokens: Tokens = ANTHROPIC_TOKENS
    is_json_lines: bool = False
    """True if each line of a response is a document."""
    is_about_earlier: bool = False
    """True if responses are about an earlier request, and name its model."""
    local: LocalAnswerKind | None = None


_GEMINI_PLACES: tuple[Place, ...] = (
    ("model",), ("requests", None, "model"), ("baseModel",), ("base_model",),
    ("generateContentRequest", "model"), ("generate_content_request", "model"), ("batch", "model"),
    *(("batch", config, "requests", "requests", None, "request", "model") for config in ("inputConfig", "input_config")),
)  # fmt: skip
_GEMINI_ANSWERS: tuple[Place, ...] = (("modelVersion",), (None, "modelVersion"), ("model",))
_TRANSCRIBED: tuple[Place, ...] = (
    ("audio", "input", "transcription", "model"), ("input_audio_transcription", "model"),
)  # fmt: skip


def _azure(path: str) -> tuple[str, ...]:
    """Return the paths of an endpoint of OpenAI's with the model in front, as on Azure and similar servers."""
    return tuple(
        f"/{parent}{path}"
        for parent in ("deployments/{model*}/v1", "deployments/{model*}", "engines/{model*}")
    )


# The first entry that has the endpoint wins.
APIS: tuple[Api, ...] = (
    # The usage of an organization, of one model if the query names it.
    Api(
        "usage", ("GET /organization/usage/*", "GET /organizations/usage_report/*"), query=("models", "models[]"),
        response=(("data", None, "results", None, "model"),), is_about_earlier=True,
    ),
    Api(
        "chat-completions",
        ("/deployments/{model*}/extensions/chat/completions", *_azure("/chat/completions"), "POST /chat/completions"),
        "openai", "chat", is_conversation=True, request=_CALL, tokens=CHAT_TOKENS,
    ),
    Api(
        "chat-completions-list", ("GET /chat/completions",), "openai", query=("model",),
        response=(("data", None, "model"),), is_about_earlier=True,
    ),
    Api(
        "completions", (*_azure("/completions"), "/completions"), "openai", "text_completion",
        request=_CALL, tokens=CHAT_TOKENS,
    ),
    Api(
        "responses", (*_azure("/responses"), "/responses"), "openai", "chat",
        is_conversation=True, request=_CALL, tokens=RESPONSES_TOKENS,
    ),
    Api("embeddings", (*_azure("/embeddings"), "/embeddings"), "openai", "embeddings", tokens=CHAT_TOKENS),
    Api(
        "azure-deployments",
        (*_azure("/images/*"), *_azure("/audio/*"), "/openai/deployments/{model}/**"),
        "openai", request=_CALL,
    ),
    Api("messages", ("/messages",), "anthropic", "chat", is_conversation=True, request=_CALL),
    Api(
        "messages-count", ("/messages/count_tokens",), "anthropic", is_conversation=True, request=_CALL,
        local="count_tokens",
    ),
    Api(
        "message-batches", ("/messages/batches",), "anthropic",
        request=tuple(("requests", None, "params", *place) for place in (("model",), *_FURTHER)),
    ),
    Api(
        "message-batch-results", ("/messages/batches/*/results",), "anthropic",
        response=(("result", "message", "model"),), is_json_lines=True, is_about_earlier=True,
    ),
    Api("batch-jobs", ("/batch/jobs",), "openai", request=(*_TOP, ("requests", None, "body", "model"))),  # of Mistral
    Api("message-batch", ("/messages/batches/**",), "anthropic"),
    Api(
        "agents", ("/agents", "/agents/*", "/sessions"), request=(
            *_TOP, ("agent", "model"), ("agent", "model", "id"), ("multiagent", "agents", None, "model"),
        ),
    ),
    Api("chat-completion", ("/chat/completions/**",), "openai", is_about_earlier=True),
    Api(
        "response", ("/responses/*",), "openai", is_conversation=True, request=_CALL, tokens=RESPONSES_TOKENS,
        is_about_earlier=True,
    ),
    Api("response-parts", ("/responses/**",), "openai", is_about_earlier=True),
    Api(
        "realtime", ("/realtime", "/realtime/**"), "openai", query=("model", "deployment"),
        request=(
            *_TOP, ("session", "model"), *_TRANSCRIBED, *(("session", *place) for place in _TRANSCRIBED),
        ),
        response=(("session", "model"), ("response", "model")), tokens=REALTIME_TOKENS,
    ),
    Api(
        "gemini-live",
        ("/ws/*BidiGenerateContent", "/ws/*BidiGenerateContentConstrained", "/ws/*/BidiGenerateContent"),
        "gemini", tokens=GEMINI_TOKENS,
    ),
    Api(
        "openai-media",
        ("/images/**", "/audio/**", "/moderations", "/moderations/**", "/completions/**", "/embeddings/**"),
        "openai",
    ),
    Api(
        "openai-training", ("/evals", "/evals/**", "/fine_tuning/**"), "openai",
        request=(
            *_TOP, ("data_source", "model"), ("data_source", "source", "model"), ("testing_criteria", None, "model"),
            ("testing_criteria", None, "graders", "model"), ("grader", "model"), ("grader", "graders", "model"),
            ("method", "reinforcement", "grader", "model"), ("method", "reinforcement", "grader", "graders", "model"),
        ),
    ),
    Api("bedrock-invoke", ("/model/{model*}/invoke*",), "bedrock", "chat", is_conversation=True),
    Api(
        "bedrock-converse", ("/model/{model*}/converse*",), "bedrock", "chat", is_conversation=True, tokens=CONVERSE_TOKENS
    ),
    Api("bedrock-count", ("/model/{model*}/count-tokens",), "bedrock"),
    Api("bedrock-jobs", ("/async-invoke", "/model-invocation-job"), "bedrock", request=(("modelId",),)),
    # Vertex counts tokens at a model's place, with the model in the body.
    Api("vertex-count", ("POST /models/count-tokens:rawPredict",), "anthropic", request=_CALL, local="count_tokens"),
    Api(
        "vertex-messages", ("POST /models/{model*}:rawPredict", "POST /models/{model*}:streamRawPredict"),
        "anthropic", "chat", is_conversation=True, request=_CALL,
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
         "/cachedContents", "/cachedContents/*", "POST /tunedModels", "/tuningJobs", "/batchPredictionJobs"),
        "gemini", request=_GEMINI_PLACES, response=_GEMINI_ANSWERS, has_resource_names=True,
    ),
    # Google's SDKs call each piece of a file JSON.
    Api(
        "gemini-files", ("POST /upload/*/files", "POST /upload/*/fileSearchStores/*:uploadToFileSearchStore"), "gemini",
        request=(), response=(), takes_files=True,
    ),
    # The API of Gemini's programs behind a Google login.
    Api(
        "code-assist", ("POST /v1internal:*",), "gemini", request=(("model",), ("request", "model")),
        response=(("response", "modelVersion"), (None, "response", "modelVersion")), has_resource_names=True,
        tokens=GEMINI_TOKENS,
    ),
    Api(
        "interactions", ("/interactions", "/interactions/*"), has_resource_names=True,
        response=(("model",), ("interaction", "model")), is_about_earlier=True,
        tokens=INTERACTION_TOKENS,
    ),
    # Cloudflare's Workers AI.
    Api("workers-ai", ("/ai/run/{model*}",)),
    # OpenRouter lists who serves a model behind its name.
    Api("model-endpoints", ("GET /models/{model*}/endpoints",), response=(("data", "id"),)),
    # Google gives the name as a resource.
    Api(
        "model", ("GET /models/{model*}",), response=(("id",), ("name",)), has_resource_names=True, local="model"
    ),
    Api("model-change", ("/models/{model*}",), response=(("id",),)),
    Api("models", ("/models",), local="models"),
)  # fmt: skip
# Counts within `usage` come before those within `usageMetadata`: of a count under both, the first is used.
TOKENS = tuple(sorted(dict.fromkeys(api.tokens for api in APIS), key=lambda tokens: tokens.within))
OTHER = Api("other", ())
"""Any other request: JSON with a top-level `model`."""
