"""The vocabulary of a rules file: frozen models whose values are parsed once and trusted afterwards.

A validator's ValueError says what is wrong in the words of the user's file; `load` adds the place.
The field descriptions are the reference: `rules.schema.json` and the README are generated from them.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from ..text.redact import Secret, looks_like_key
from ..wire.addresses import Upstream, has_odd_segments
from .field_paths import FieldPath, parse_path
from .patterns import Glob, HostPattern, PathGlob

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)?")
_SIZE_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# RFC 9110, 5.6.2.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a name in messages, comments and logs may not hold, nor text that ends up in a header.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
CREDENTIAL_REFERENCE = re.compile(r"\$\{credential:([^}]*)\}")
# Set from the rule's upstream and the final body; a rule that set them would break the request's framing.
FRAMING_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "trailer", "te"})

AUTH_SCHEMES = (
    "bearer", "x-api-key", "api-key", "x-goog-api-key", "basic", "token", "header", "sigv4", "none", "keep",
)  # fmt: skip
AuthScheme = Literal[
    "bearer", "x-api-key", "api-key", "x-goog-api-key", "basic", "token", "header", "sigv4", "none", "keep"
]
PreferredHeader = Literal["x-api-key", "authorization"]
# The value of `auth.credential` that stands for what the client sent.
CLIENT = "client"


def parse_duration(text: str) -> float:
    """Seconds from `500ms`, `30s`, `5m` or `1h`. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if not found or not float(found[1]):
        raise ValueError('is not a duration; expected a form such as "500ms", "30s", "5m" or "1h"')
    return float(found[1]) * _DURATION_S[found[2]]


def parse_size(text: str) -> int:
    """Bytes from `64KiB`, `8MiB` or a plain number. Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError('is not a size; expected a form such as "64KiB" or "8MiB"')
    return int(found[1]) * _SIZE_BYTES[found[2]]


def _parsed(parse: Callable[[str], object], example: str) -> Any:
    """The annotation of a value that is text in the file and something better in memory."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise PydanticCustomError("string_type", "expected text")
        return parse(value)

    return PlainValidator(validate), WithJsonSchema({"type": "string", "examples": [example]})


def _parse_path(text: str) -> PathGlob:
    if not text.startswith(("/", "*")):
        raise ValueError('does not start with "/"; expected a form such as "/v1/**"')
    if any(mark in text for mark in "?# ") or _CONTROL.search(text):
        raise ValueError("holds a query, a fragment or a blank; a path is matched without its query")
    if has_odd_segments(text):
        raise ValueError("can never match: it has dot or empty segments, and such requests are refused")
    return PathGlob(text)


def _parse_method(text: str) -> str:
    method = text.upper()
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a method; expected a word such as "POST"')
    if method in ("TRACE", "CONNECT"):
        raise ValueError(f"can never match: {method} requests do not reach the rules")
    return method


def _parse_upstream(text: str) -> Upstream | Literal["demo"]:
    return "demo" if text == "demo" else Upstream.parse(text)


def _parse_header_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a header name; expected letters, digits and "-"')
    return text


def _parse_edited_header_name(text: str) -> str:
    if text.lower() in FRAMING_HEADERS:
        raise ValueError("is set from the upstream and the body; expected another header")
    return _parse_header_name(text)


def _parse_header_value(text: str) -> str:
    if _CONTROL.search(text.replace("\t", " ")):
        raise ValueError("holds a line break or a control character")
    if looks_like_key(text):
        raise ValueError('holds a secret; name it under "credentials" and write "${credential:NAME}" here')
    return text


def _parse_header_glob(text: str) -> Glob:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a header name or glob; expected a form such as "x-stainless-*"')
    return Glob(text.lower())


def _parse_beta_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError('is not a beta name; expected a form such as "context-1m-2025-08-07"')
    return text


def _parse_environment_name(text: str) -> str:
    if looks_like_key(text):
        raise ValueError("is a secret; expected the name of an environment variable that holds it")
    if not _ENVIRONMENT_NAME.fullmatch(text):
        raise ValueError("is not the name of an environment variable; expected letters, digits and _")
    return text


def _parse_body_path(text: str) -> FieldPath:
    try:
        return parse_path(text)
    except ValueError as fault:
        raise ValueError(f"is not a path into a body; {fault}") from None


def _parse_credential_name(text: str) -> str:
    if text == CLIENT:
        raise ValueError("is reserved for the key that the client sent; expected another name")
    if "{" in text or "}" in text:
        raise ValueError("is not a credential name; expected letters, digits, - and _")
    return _plain_text(text)


def _plain_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; expected text")
    if _CONTROL.search(text):
        raise ValueError("holds a line break or a control character")
    return text


def _parse_version(value: object) -> int:
    if type(value) is not int:
        raise PydanticCustomError("version_type", "expected 1")
    if value != 1:
        raise ValueError("is not known; expected 1")
    return value


def _parse_header_test(value: object) -> bool | tuple[Glob, ...]:
    """What a header's value must be: a glob, a list of globs, or true and false for present and absent."""
    if isinstance(value, bool):
        return value
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError("is empty; expected at least one entry")
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise PydanticCustomError("header_test_type", "expected text, a list of texts, true or false")
    return tuple(Glob(_plain_text(text)) for text in texts)


def _one_or_many(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _some(value: T) -> T:
    if not value:
        raise ValueError("is empty; expected at least one entry, or leave the key out")
    return value


def _some_rules(value: T) -> T:
    if not value:
        raise ValueError("is empty; expected at least one rule")
    return value


def _json_value(value: object) -> object:
    if not all(map(math.isfinite, _numbers(value))):
        raise ValueError("holds a number that JSON does not know")
    return value


def _numbers(value: object) -> list[float]:
    match value:
        case float():
            return [value]
        case list():
            return [number for item in value for number in _numbers(item)]
        case dict():
            return [number for item in value.values() for number in _numbers(item)]
        case _:
            return []


_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}


def _many_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


def _one_of(*names: str) -> WithJsonSchema:
    # A name may also come out of the environment, as in "${SCHEME:-bearer}".
    return WithJsonSchema({"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": r"^\$\{"}]})


OneOrMany = Annotated[
    tuple[T, ...],
    BeforeValidator(_one_or_many),
    AfterValidator(_some),
    WithJsonSchema(_many_schema(_TEXT_SCHEMA)),
]
Listed = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), AfterValidator(_some)]

Text = Annotated[str, AfterValidator(_plain_text), WithJsonSchema(_TEXT_SCHEMA)]
CredentialName = Annotated[str, *_parsed(_parse_credential_name, "gateway")]
Host = Annotated[HostPattern, *_parsed(HostPattern.parse, "api.anthropic.com")]
Path = Annotated[PathGlob, *_parsed(_parse_path, "/v1/**")]
Method = Annotated[str, *_parsed(_parse_method, "POST")]
TextGlob = Annotated[Glob, *_parsed(lambda text: Glob(_plain_text(text)), "claude-*")]
HeaderName = Annotated[str, *_parsed(_parse_header_name, "anthropic-beta")]
HeaderTest = Annotated[
    bool | tuple[Glob, ...],
    PlainValidator(_parse_header_test),
    WithJsonSchema({"anyOf": [*_many_schema(_TEXT_SCHEMA)["anyOf"], {"type": "boolean"}]}),
]
EditedHeaderName = Annotated[str, *_parsed(_parse_edited_header_name, "Editor-Version")]
HeaderValue = Annotated[str, *_parsed(_parse_header_value, "vscode/1.104.0")]
HeaderGlob = Annotated[Glob, *_parsed(_parse_header_glob, "x-stainless-*")]
BetaName = Annotated[str, *_parsed(_parse_beta_name, "context-1m-2025-08-07")]
BodyPath = Annotated[FieldPath, *_parsed(_parse_body_path, "tools[*].defer_loading")]
Duration = Annotated[float, *_parsed(parse_duration, "30s")]
EnvironmentName = Annotated[str, *_parsed(_parse_environment_name, "GATEWAY_API_KEY")]
UpstreamUrl = Annotated[
    Upstream | Literal["demo"], *_parsed(_parse_upstream, "https://gateway.example.com/anthropic")
]
BodyValue = Annotated[Any, PlainValidator(_json_value), WithJsonSchema({})]
Version = Annotated[int, PlainValidator(_parse_version), WithJsonSchema({"const": 1})]


class Model(BaseModel):
    """What all parts of the file share: no unknown keys, no silent conversions, no changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # `use_attribute_docstrings` would do it too, at every start: a tenth of a second on Python 3.11.
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, text in field_texts(cls).items():
            schema["properties"][name]["description"] = text
        return schema


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The string under each field of a model, which describes it."""
    [definition] = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, under in pairwise(definition.body):
        match field, under:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = inspect.cleandoc(text)
    return texts


_SOURCES = ("env", "file", "command", "aws")


class Credential(Model):
    """A named secret: where it comes from. Exactly one of `env`, `file`, `command` and `aws`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [source]} for source in _SOURCES]})

    env: EnvironmentName | None = None
    """Environment variable that holds the secret."""
    default: Text | None = None
    """With `env`: the value where the variable is not set; for demos, not for secrets."""
    file: Text | None = None
    """File that holds the secret and nothing else; read again when it changes."""
    command: Listed[Text] | None = None
    """Helper program as a list of arguments, run without a shell; prints the secret, or JSON with `token`."""
    aws: Text | None = None
    """AWS profile whose credentials sign requests (`auth.scheme: sigv4`); `default` for the usual chain."""
    ttl: Duration = 300.0
    """With `command`: how long a value serves before the helper runs again."""
    timeout: Duration = 10.0
    """With `command`: how long the helper may take."""
    _value: Secret | None = PrivateAttr(default=None)

    @classmethod
    def literal(cls, value: Secret) -> Credential:
        """A credential whose value is at hand, as in a Desktop file; no rules file can write one."""
        credential: Credential = cls.model_construct()
        credential._value = value
        return credential

    @property
    def value(self) -> Secret | None:
        """The secret itself, where it comes from none of the sources."""
        return self._value

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        sources = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(
                f"has {len(sources) or 'no'} {'sources' if sources else 'source'}; "
                'expected exactly one of "env", "file", "command", "aws"'
            )
        for key, source in (("default", "env"), ("ttl", "command"), ("timeout", "command")):
            if key in self.model_fields_set and source not in sources:
                raise ValueError(f'has "{key}", which goes with "{source}" only')
        return self


# A rule with a preset may leave out what the others must give: `Rule` says so in its own schema.
_PART_OF_A_RULE = ConfigDict(json_schema_extra={"required": []})


class Match(Model):
    """Which requests a rule takes; all that is given must hold, and of a list any entry."""

    model_config = _PART_OF_A_RULE

    host: OneOrMany[Host]
    """Host that the client asks for: a name, `*.example.com` (any depth below), `*` for a whole label,
    `*` alone for any; with `:port` that port only."""
    path: OneOrMany[Path] | None = None
    """Path without its query; `*` stays inside a segment, `**` crosses segments."""
    method: OneOrMany[Method] | None = None
    """Request method, such as `POST`."""
    header: dict[HeaderName, HeaderTest] | None = None
    """Header names, each with a glob for its value, or `true` / `false` for present / absent."""
    model: OneOrMany[TextGlob] | None = None
    """Model that the client asks for, in the body or the path."""


class Auth(Model):
    """How the gateway's key is sent. Every scheme but `keep` first strips all keys of the client."""

    model_config = _PART_OF_A_RULE

    scheme: Annotated[AuthScheme, _one_of(*AUTH_SCHEMES)]
    """Where the key goes: `bearer`, `basic` and `token` into `Authorization`, `header` into the header
    `name`; `none` strips only, `keep` leaves what the client sent."""
    credential: Text | None = None
    """Name under `credentials`, or `client` to move the client's own key."""
    prefer: Annotated[PreferredHeader, _one_of("x-api-key", "authorization")] | None = None
    """With `credential: client`: which of two real keys is taken."""
    name: EditedHeaderName | None = None
    """With `scheme: header`: the header's name."""
    prefix: HeaderValue | None = None
    """With `scheme: header`: text in front of the key, taken as written."""
    service: Text | None = None
    """With `scheme: sigv4`: the AWS service, such as `bedrock`."""
    region: Text | None = None
    """With `scheme: sigv4`: the AWS region, such as `eu-central-1`."""

    @model_validator(mode="after")
    def _fits_scheme(self) -> Self:
        if self.scheme in ("none", "keep"):
            if self.credential is not None:
                raise ValueError(f'has "credential", which scheme "{self.scheme}" does not send')
        elif self.credential is None:
            raise ValueError(f'has no "credential", which scheme "{self.scheme}" sends')
        if self.scheme == "sigv4" and self.credential == CLIENT:
            raise ValueError('cannot sign with the key of the client; expected a name under "credentials"')
        for key, scheme, needed in (
            ("name", "header", True),
            ("prefix", "header", False),
            ("service", "sigv4", True),
            ("region", "sigv4", True),
        ):
            given = getattr(self, key) is not None
            if given and self.scheme != scheme:
                raise ValueError(f'has "{key}", which goes with scheme "{scheme}" only')
            if needed and not given and self.scheme == scheme:
                raise ValueError(f'has no "{key}", which scheme "{scheme}" needs')
        if self.prefer and self.credential != CLIENT:
            raise ValueError('has "prefer", which goes with "credential: client" only')
        return self


class Headers(Model):
    """Edits of request headers, in the order remove, set, add."""

    set: dict[EditedHeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers that get exactly this value; `${credential:NAME}` puts a secret in."""
    add: dict[EditedHeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers that get this value in addition to what the client sent."""
    remove: Listed[HeaderGlob] = ()
    """Names or globs of headers to take out."""


class Beta(Model):
    """Edits of the beta names in the `anthropic-beta` header and in a body's `anthropic_beta` array."""

    keep: Annotated[tuple[TextGlob, ...], BeforeValidator(_as_tuple)] | None = None
    """Only names that fit one of these stay; of an empty list, none."""
    drop: Listed[TextGlob] = ()
    """Names that fit one of these go."""
    rename: dict[BetaName, BetaName] = Field(default_factory=dict)
    """Old name to new name, after keep and drop."""
    add: Listed[BetaName] = ()
    """Names that are always sent."""

    def edited(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names to send for those that the client sent, each once, in order."""
        kept = [name for name in names if self._keeps(name)]
        renamed = [self.rename.get(name, name) for name in kept]
        return tuple(dict.fromkeys([*renamed, *self.add]))

    def _keeps(self, name: str) -> bool:
        if self.keep is not None and not any(glob.covers(name) for glob in self.keep):
            return False
        return not any(glob.covers(name) for glob in self.drop)


class Body(Model):
    """Edits of a JSON request body."""

    remove: Listed[BodyPath] = ()
    """Fields to take out, such as `context_management` or `tools[*].defer_loading`."""
    set: dict[BodyPath, BodyValue] = Field(default_factory=dict)
    """Fields that get this value."""

    @cached_property
    def set_texts(self) -> tuple[tuple[FieldPath, str], ...]:
        """The fields of `set` with their values as JSON texts."""
        return tuple((path, json.dumps(value, ensure_ascii=False)) for path, value in self.set.items())


class Models(Model):
    """Model names: what the client says to what the upstream knows, and back in the answer."""

    map: dict[Text, Text] = Field(default_factory=dict)
    """Name or glob to name; an exact name wins, then file order."""
    default: Text | None = None
    """Name for all that `map` does not cover."""
    restore: bool = True
    """Whether answers show the name that the client asked for."""

    @cached_property
    def _globs(self) -> tuple[tuple[Glob, str], ...]:
        return tuple((Glob(name), sent) for name, sent in self.map.items() if "*" in name)

    @cached_property
    def exact_names(self) -> tuple[str, ...]:
        """The names of `map` that hold no star."""
        return tuple(name for name in self.map if "*" not in name)

    def sent_for(self, name: str) -> str:
        """The name that the upstream gets for one that the client asked for."""
        if name in self.map and "*" not in name:
            return self.map[name]
        for glob, sent in self._globs:
            if glob.covers(name):
                return sent
        return self.default if self.default is not None else name


class Respond(Model):
    """Answers given here, without the upstream; all off by default."""

    models: bool = False
    """`GET /v1/models` lists the exact names of `models.map`."""
    count_tokens: Annotated[Literal["estimate"], _one_of("estimate")] | None = None
    """An approximate answer to `/v1/messages/count_tokens`."""
    head: bool = False
    """200 to any `HEAD` on the rule's host, as Claude Code's probe expects."""


def _without_what_a_preset_gives(schema: dict[str, Any]) -> None:
    schema["required"] = []
    schema["if"] = {"not": {"required": ["preset"]}}
    schema["then"] = {
        "required": ["match"],
        "properties": {"match": {"required": ["host"]}, "auth": {"required": ["scheme"]}},
    }


class Rule(Model):
    """One entry of `rules`: the first in file order that matches a request edits it."""

    model_config = ConfigDict(json_schema_extra=_without_what_a_preset_gives)

    name: Text
    """Name for messages, comments and logs; must be unique. Left out, it is `rule N`."""
    preset: Text | None = None
    """Preset that fills what this rule leaves out."""
    match: Match
    """Which requests this rule takes."""
    upstream: UpstreamUrl | None = None
    """Where the request goes instead: `https://host[:port][/base]`, or `demo`."""
    allow_http: bool = False
    """Allow a credential over plain `http://` to another machine."""
    allow_anthropic_key: bool = False
    """Allow a client's `sk-ant-` key to go to a host outside `anthropic.com`."""
    auth: Auth | None = None
    """How the key is sent; left out: nothing where the host changes, else what the client sent."""
    headers: Headers = Field(default_factory=Headers)
    """Request headers to set, add and remove."""
    beta: Beta | None = None
    """Beta names to keep, drop, rename and add."""
    body: Body = Field(default_factory=Body)
    """Body fields to remove and set."""
    models: Models | None = None
    """Model names to map, and to restore in the answer."""
    respond: Respond = Field(default_factory=Respond)
    """Answers given here, without the upstream."""

    @cached_property
    def reads_body(self) -> bool:
        """Whether the request body must be read before the request may leave."""
        return bool(
            self.models
            or self.beta
            or self.body.remove
            or self.body.set
            or self.match.model
            or self.respond.count_tokens
            or self.signs
        )

    @property
    def signs(self) -> bool:
        """Whether the request is signed over its final bytes."""
        return self.auth is not None and self.auth.scheme == "sigv4"

    @cached_property
    def header_credentials(self) -> tuple[str, ...]:
        """Names of the credentials that `headers` puts in."""
        values = [*self.headers.set.values(), *self.headers.add.values()]
        return tuple(dict.fromkeys(name for value in values for name in CREDENTIAL_REFERENCE.findall(value)))

    @cached_property
    def credential_names(self) -> tuple[str, ...]:
        """Names of all credentials that this rule sends, `client` not among them."""
        own = self.auth.credential if self.auth else None
        names = ([own] if own and own != CLIENT else []) + list(self.header_credentials)
        return tuple(dict.fromkeys(names))


class RulesFile(Model):
    """A rules file."""

    version: Version = 1
    """Version of this format."""
    credentials: dict[CredentialName, Credential] = Field(default_factory=dict)
    """Named secrets: where each comes from; a value never stands in the file."""
    unmatched: Literal["auto", "pass", "block"] = "auto"
    """Requests that no rule takes: `pass` untouched, `block` with 404, `auto`: block on a reverse listener,
    pass otherwise."""
    rules: Annotated[
        tuple[Rule, ...],
        BeforeValidator(_as_tuple),
        AfterValidator(_some_rules),
        Field(json_schema_extra={"minItems": 1}),
    ]
    """The rules, in the order in which they are tried."""
    _listed_models: tuple[str, ...] = PrivateAttr(default=())

    def listing(self, names: tuple[str, ...]) -> Self:
        """The same rules, and further model names that a Desktop file gives to `GET /v1/models`."""
        listing = self.model_copy()
        listing._listed_models = names
        return listing

    @property
    def listed_models(self) -> tuple[str, ...]:
        """Model names for `GET /v1/models` that are not in any rule."""
        return self._listed_models


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a rules file, for editors."""
    schema: dict[str, Any] = _tidied(RulesFile.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mitmproxy-gateway rules"
    return schema


def _tidied(node: Any) -> Any:
    """A schema without null, which no key of the file takes, and with each description on one line."""
    match node:
        case {"anyOf": [*others, {"type": "null"}], **rest}:
            rest.pop("default", None)
            return _tidied((others[0] if len(others) == 1 else {"anyOf": others}) | rest)
        case dict():
            return {key: _tidied(value) for key, value in node.items()}
        case list():
            return [_tidied(item) for item in node]
        case str():
            return " ".join(node.split())
        case _:
            return node
