"""Types of the values in a rules file: each is parsed once and trusted afterwards.

The ValueError of a parser gives the reason in the words of the user's file; `messages` adds the position.
"""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..text.redact import looks_like_key, normal_name
from ..wire.addresses import Upstream, has_odd_segments, normal_path
from .field_paths import FieldPath, parse_path
from .patterns import Glob, HostPattern, PathGlob

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)?")
_SIZE_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# RFC 9110, 5.6.2.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Variables as a shell, Windows, templates and LiteLLM write them.
_OTHER_VARIABLE = re.compile(r"\$[A-Za-z_{]|^%\w+%|\{\{|^env\(|^os\.environ")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Not allowed in names that appear in messages, comments and logs, nor in text for a header.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Set from the upstream and the final body, or about one connection only (RFC 9110, 7.6.1): setting them would
# break the request's framing.
FRAMING_HEADERS = frozenset(
    {
        "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_FRAMING_NAMES = frozenset(map(normal_name, FRAMING_HEADERS))
# The value of `auth.credential` for the client's own key.
CLIENT = "client"
CREDENTIAL_REFERENCE = re.compile(r"\$\{credential:([^}]{0,256}+)\}")


class Model(BaseModel):
    """Base of all parts of the file: no unknown keys, no silent conversions, no later changes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, defer_build=True
    )


class Parsed:
    """A value that one function validates. pydantic's PlainValidator also builds the schema of the result's type."""

    def __init__(self, validate: Callable[[object], object]) -> None:
        self._validate = validate

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys that a part of the file may have."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def is_framing_header(name: str) -> bool:
    """Return whether a header frames a request or a connection, in any spelling that a lenient server accepts."""
    return normal_name(name) in _FRAMING_NAMES


def parse_duration(text: str) -> float:
    """Return the seconds of `500ms`, `30s`, `5m` or `1h`. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if not found or not float(found[1]):
        raise ValueError('is not a duration; expected a form such as "500ms", "30s", "5m" or "1h"')
    return float(found[1]) * _DURATION_S[found[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `64KiB`, `8MiB` or a plain number. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError('is not a size; expected a form such as "64KiB" or "8MiB"')
    return int(found[1]) * _SIZE_BYTES[found[2]]


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _parse_path(text: str) -> PathGlob:
    if "/.*" in text or "\\" in text or "^" in text:
        raise ValueError('is a regular expression; expected a glob such as "/v1/**"')
    if not text.startswith(("/", "*")):
        raise ValueError('does not start with "/"; expected a form such as "/v1/**"')
    if "/" not in text and "**" not in text:
        raise ValueError('can never match: "*" stays inside a segment; expected "/**" for every path')
    if any(mark in text for mark in "?# ") or _CONTROL.search(text):
        raise ValueError("contains a query, a fragment or a space; a path is matched without its query")
    if has_odd_segments(text):
        raise ValueError("can never match: it has dot or empty segments, and such requests are refused")
    encoded = _NOT_ASCII.sub(lambda found: quote(found[0]), text)
    return PathGlob(normal_path(encoded))  # the form in which requests are matched


def _parse_method(text: str) -> str:
    method = text.upper()
    if not HEADER_NAME.fullmatch(text) or "|" in text:
        raise ValueError('is not a method; expected a word such as "POST", or a list such as [GET, POST]')
    if method in ("TRACE", "CONNECT"):
        raise ValueError(f"can never match: {method} requests do not reach the rules")
    return method


def parse_upstream(text: str) -> Upstream | Literal["demo"]:
    """Return the destination that a rule names. Raises ValueError with the reason."""
    if text.lower() == "demo":
        if text != "demo":
            raise ValueError('is not a URL; expected "demo" in small letters')
        return "demo"
    if _OTHER_VARIABLE.search(text):
        raise ValueError('contains a variable in another notation; expected "${NAME}"')
    if "*" in text:
        raise ValueError(
            'contains "*"; expected "https://host[:port][/base]", and the request\'s path is added'
        )
    return Upstream.parse(text)


def _parse_host(text: str) -> HostPattern:
    if re.search(r"^\.\*|[\\^$()|]", text):
        raise ValueError('is a regular expression; expected a name, or a glob such as "*.example.com"')
    return HostPattern.parse(text)


def _parse_header_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a header name; expected letters, digits and "-"')
    return text


def _parse_edited_header_name(text: str) -> str:
    if is_framing_header(text):
        raise ValueError("belongs to the connection or the framing of the body; expected another header")
    return _parse_header_name(text)


def _parse_header_value(text: str) -> str:
    if _CONTROL.search(text.replace("\t", " ")):
        raise ValueError("contains a line break or a control character; expected one line of text")
    if looks_like_key(text):
        raise ValueError('contains a secret; name it under "credentials" and write "${credential:NAME}" here')
    return text


def _parse_header_glob(text: str) -> Glob:
    if _REGEX.search(text):
        raise ValueError('is a regular expression; expected a glob such as "x-stainless-*"')
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a header name or glob; expected a form such as "x-stainless-*"')
    return Glob(text.lower())


def _parse_beta_name(text: str) -> str:
    if "*" in text:
        raise ValueError('contains "*"; expected a whole name, such as "context-1m-2025-08-07"')
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a beta name; expected a form such as "context-1m-2025-08-07"')
    return text


def _parse_environment_name(text: str) -> str:
    if looks_like_key(text):
        raise ValueError("is a secret; expected the name of the environment variable that contains it")
    if not _ENVIRONMENT_NAME.fullmatch(text):
        raise ValueError(
            'is not the name of an environment variable; expected letters, digits and _, such as "GATEWAY_KEY"'
        )
    return text


def _parse_body_path(text: str) -> FieldPath:
    try:
        return parse_path(text)
    except ValueError as fault:
        raise ValueError(f"is not a path into a body; {fault}") from None


# Anchors, classes and alternatives, which no name has.
_MARKS = r"^\^|\$\Z|\\|\([^()|]*\||\[[^\[\]]-[^\[\]]\]|\.\+"
_REGEX = re.compile(rf"{_MARKS}|(?<![0-9*])\.\*")
# Names of models have dots behind a vendor ("us.anthropic.*") and a number ("gpt-4.*"), but not behind a family.
_MODEL_REGEX = re.compile(rf"{_MARKS}|(?<![0-9A-Za-z*])\.\*|(?:claude|opus|sonnet|haiku|gpt|gemini)\.\*")


def _parse_glob(text: str, regex: re.Pattern[str] = _REGEX) -> Glob:
    if regex.search(text):
        raise ValueError('is a regular expression; expected a glob such as "claude-*", whose "*" is any text')
    return Glob(_parse_text(text))


def _parse_model_glob(text: str) -> Glob:
    return _parse_glob(text, _MODEL_REGEX)


def _parse_model_target(text: str) -> str:
    if "*" in text:
        raise ValueError(
            'contains "*"; expected a name, with {1} for the text of the first star of its pattern'
        )
    return _parse_text(text)


def _parse_credential_name(text: str) -> str:
    if text == CLIENT:
        raise ValueError("is reserved for the client's own key; expected another name")
    # A name is also that of a file, for Envoy.
    if text.startswith(".") or any(mark in text for mark in "{}/\\"):
        raise ValueError("is not a credential name; expected letters, digits, - and _")
    return _parse_text(text)


def _parse_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; expected text")
    if _CONTROL.search(text):
        raise ValueError("contains a line break or a control character; expected one line of text")
    return text


def _parse_version(value: object) -> int:
    if type(value) is not int:
        raise PydanticCustomError("version_type", "expected 1")
    if value != 1:
        raise ValueError("is not a known version; expected 1")
    return value


def _parse_header_test(value: object) -> bool | tuple[Glob, ...]:
    """Return the test of a header: globs for its value, or true and false for present and absent."""
    if isinstance(value, bool):
        return value
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError("is empty; expected at least one entry")
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise PydanticCustomError("header_test_type", "expected text, a list of texts, true or false")
    return tuple(Glob(_parse_text(text)) for text in texts)


def as_tuple(value: object) -> object:
    """Return a list as a tuple, and anything else unchanged."""
    return tuple(value) if isinstance(value, list) else value


def one_or_many(value: object) -> object:
    """Return a list as a tuple, and a single value as a tuple of one."""
    return tuple(value) if isinstance(value, list) else (value,)


def _arguments(value: object) -> object:
    if isinstance(value, str) and re.search(r"\s", value.strip()):
        raise ValueError("is a line for a shell; expected a list of arguments, such as [program, argument]")
    return one_or_many(value)


def _not_empty(value: T) -> T:
    if not value:
        raise ValueError("is empty; expected at least one entry, or leave the key out")
    return value


def _json_value(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("contains a number that JSON does not have") from None
    return value


def _parsed(parse: Callable[[str], object], example: str) -> Any:
    """Return the annotation of a value that is text in the file and parsed in memory."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "expected text")
        return parse(value)

    return Parsed(validate), WithJsonSchema({"type": "string", "examples": [example]})


_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}


def _one_or_many_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


def one_of(*names: str) -> WithJsonSchema:
    """Return the schema of a choice; a variable such as `${SCHEME:-bearer}` may also give the name."""
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": r"^\$\{"}]})


OneOrMany = Annotated[
    tuple[T, ...],
    BeforeValidator(one_or_many),
    AfterValidator(_not_empty),
    WithJsonSchema(_one_or_many_schema(_TEXT_SCHEMA)),
]
Text = Annotated[str, AfterValidator(_parse_text), WithJsonSchema(_TEXT_SCHEMA)]
Arguments = Annotated[
    tuple[Text, ...],
    BeforeValidator(_arguments),
    AfterValidator(_not_empty),
    WithJsonSchema(_one_or_many_schema(_TEXT_SCHEMA)),
]
CredentialName = Annotated[str, *_parsed(_parse_credential_name, "gateway")]
Host = Annotated[HostPattern, *_parsed(_parse_host, "api.anthropic.com")]
Path = Annotated[PathGlob, *_parsed(_parse_path, "/v1/**")]
Method = Annotated[str, *_parsed(_parse_method, "POST")]
TextGlob = Annotated[Glob, *_parsed(_parse_glob, "claude-*")]
ModelGlob = Annotated[Glob, *_parsed(_parse_model_glob, "claude-*")]
ModelPattern = Annotated[str, *_parsed(lambda text: _parse_model_glob(text).text, "claude-*")]
ModelTarget = Annotated[str, *_parsed(_parse_model_target, "anthropic/claude-{1}-4.{2}")]
# Of an empty list, nothing is kept.
KeptGlobs = Annotated[
    tuple[TextGlob, ...],
    BeforeValidator(one_or_many),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, {"type": "array", "items": _TEXT_SCHEMA}]}),
]
HeaderName = Annotated[str, *_parsed(_parse_header_name, "anthropic-beta")]
HeaderTest = Annotated[
    bool | tuple[Glob, ...],
    Parsed(_parse_header_test),
    WithJsonSchema({"anyOf": [*_one_or_many_schema(_TEXT_SCHEMA)["anyOf"], {"type": "boolean"}]}),
]
EditedHeaderName = Annotated[str, *_parsed(_parse_edited_header_name, "Editor-Version")]
HeaderValue = Annotated[str, *_parsed(_parse_header_value, "vscode/1.104.0")]
HeaderGlob = Annotated[Glob, *_parsed(_parse_header_glob, "x-stainless-*")]
QueryName = Annotated[str, *_parsed(_parse_text, "api-version")]
QueryGlob = Annotated[Glob, *_parsed(lambda text: Glob(_parse_text(text)), "utm_*")]
BetaName = Annotated[str, *_parsed(_parse_beta_name, "context-1m-2025-08-07")]
BodyPath = Annotated[FieldPath, *_parsed(_parse_body_path, "tools[*].defer_loading")]
Duration = Annotated[float, *_parsed(parse_duration, "30s")]
EnvironmentName = Annotated[str, *_parsed(_parse_environment_name, "GATEWAY_API_KEY")]
UpstreamUrl = Annotated[
    Upstream | Literal["demo"], *_parsed(parse_upstream, "https://gateway.example.com/anthropic")
]
BodyValue = Annotated[Any, Parsed(_json_value), WithJsonSchema({})]
Version = Annotated[int, Parsed(_parse_version), WithJsonSchema({"const": 1})]
