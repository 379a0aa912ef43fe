"""The vocabulary of a rules file: frozen models of the file, its credentials and its rules.

The text under each field is the reference: `rules.schema.json` and the table in docs/rules.md are generated from it.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from ..text.redact import Secret
from .edits import Beta, BodyEdits, HeaderEdits, Models, QueryEdits
from .fields import (
    CLIENT,
    CREDENTIAL_REFERENCE,
    Arguments,
    CredentialName,
    Duration,
    EditedHeaderName,
    EnvironmentName,
    HeaderName,
    HeaderTest,
    HeaderValue,
    Host,
    Method,
    Model,
    ModelGlob,
    OneOrMany,
    Path,
    Text,
    UpstreamUrl,
    Version,
    as_tuple,
    one_of,
)
from .model_map import base_name

AuthScheme = Literal[
    "bearer", "x-api-key", "api-key", "x-goog-api-key", "basic", "token", "header", "sigv4", "none", "keep"
]
AUTH_SCHEMES: tuple[str, ...] = get_args(AuthScheme)
PreferredHeader = Literal["x-api-key", "authorization"]
_PREFIXES = {"bearer": "Bearer ", "basic": "Basic ", "token": "token "}


_SOURCES = ("env", "file", "command", "aws")


class Credential(Model):
    """A named secret and its source: exactly one of `env`, `file`, `command` and `aws`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [source]} for source in _SOURCES]})

    env: EnvironmentName | None = None
    """Environment variable that contains the secret."""
    default: Text | None = None
    """With `env`: the value if the variable is not set; for demos, not for secrets."""
    file: Text | None = None
    """File that contains the secret and nothing else; it is read again when it changes."""
    command: Arguments | None = None
    """Helper program as a list of arguments, run without a shell; it prints the secret, or JSON with `token`."""
    aws: Text | None = None
    """AWS profile whose credentials sign requests (`auth.scheme: sigv4`); `default` is the usual chain."""
    ttl_s: Annotated[Duration, Field(alias="ttl")] = 300.0
    """With `command`: how long a value is used before the helper runs again."""
    timeout_s: Annotated[Duration, Field(alias="timeout")] = 10.0
    """With `command`: how long the helper may run."""
    _value: Secret | None = PrivateAttr(default=None)

    @classmethod
    def literal(cls, value: Secret) -> Credential:
        """Return a credential with a known value, as from a Desktop file; a rules file cannot contain one."""
        credential: Credential = cls.model_construct()
        credential._value = value
        return credential

    @property
    def value(self) -> Secret | None:
        """The secret itself, if it is known without any source."""
        return self._value

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        sources = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(
                f"has {len(sources) or 'no'} {'sources' if sources else 'source'}; "
                'expected exactly one of "env", "file", "command", "aws"'
            )
        for name, key, source in (
            ("default", "default", "env"), ("ttl_s", "ttl", "command"), ("timeout_s", "timeout", "command"),
        ):  # fmt: skip
            if name in self.model_fields_set and source not in sources:
                raise ValueError(f'has "{key}", which requires "{source}"')
        return self


# A rule with a preset may leave out what other rules must have: the schema of `Rule` states that.
_PART_OF_A_RULE = ConfigDict(json_schema_extra={"required": []})


class Match(Model):
    """The requests that a rule takes: all keys must match, and of a list any entry."""

    model_config = _PART_OF_A_RULE

    host: OneOrMany[Host]
    """Host that the client asks for: a name, `*.example.com` (any depth below), `*` in or for one label,
    `*` alone for any host; with `:port` only on that port."""
    path: OneOrMany[Path] | None = None
    """Path without its query; `*` stays inside a segment, `**` crosses segments."""
    method: OneOrMany[Method] | None = None
    """Request method, such as `POST`."""
    header: dict[HeaderName, HeaderTest] | None = None
    """Header names, each with a glob that one of its values matches, or `true` for present and `false` for absent."""
    model: OneOrMany[ModelGlob] | None = None
    """Model that the client asks for, in the body or the path; `[1m]` at its end may be left out."""

    def covers_model(self, name: str | None) -> bool:
        """Return whether the model of a request matches; None is a request without one."""
        if self.model is None:
            return True
        names = () if name is None else (name, base_name(name))
        return any(glob.covers(each) for each in names for glob in self.model)


class Auth(Model):
    """Form of the gateway's key in a request. Every scheme but `keep` first removes all keys of the client."""

    model_config = _PART_OF_A_RULE

    scheme: Annotated[AuthScheme, one_of(*AUTH_SCHEMES)]
    """Slot of the key: `bearer`, `basic` and `token` use `Authorization`, `header` uses the header `name`;
    `none` only removes the client's keys, `keep` leaves them as they are."""
    credential: Text | None = None
    """Name under `credentials`, or `client` to move the client's own key from wherever clients send one."""
    prefer: Annotated[PreferredHeader, one_of("x-api-key", "authorization")] | None = None
    """With `credential: client`: the header to read if the client sends keys in both `x-api-key` and `Authorization`."""
    name: EditedHeaderName | None = None
    """With `scheme: header`: the name of the header."""
    prefix: HeaderValue | None = None
    """With `scheme: header`: text in front of the key, used exactly as written."""
    service: Text | None = None
    """With `scheme: sigv4`: the AWS service, such as `bedrock`."""
    region: Text | None = None
    """With `scheme: sigv4`: the AWS region, such as `eu-central-1`."""

    @model_validator(mode="after")
    def _fits_scheme(self) -> Self:
        if self.scheme in ("none", "keep"):
            if self.credential is not None:
                raise ValueError(f'has "credential", but scheme "{self.scheme}" sends none')
        elif self.credential is None:
            raise ValueError(
                f'has no "credential", which scheme "{self.scheme}" requires; expected credential: NAME'
            )
        if self.credential == CLIENT and self.scheme in ("basic", "sigv4"):
            verb = "sign with" if self.scheme == "sigv4" else "make a user and a password of"
            raise ValueError(f'cannot {verb} the key of the client; expected a name under "credentials"')
        self._check_scheme_keys()
        if self.prefer and self.credential != CLIENT:
            raise ValueError('has "prefer", which requires "credential: client"')
        return self

    @property
    def header(self) -> str | None:
        """Name of the header that the key is written to; None for a scheme that writes none."""
        match self.scheme:
            case "bearer" | "basic" | "token" | "sigv4":
                return "Authorization"
            case "header":
                return self.name
            case "none" | "keep":
                return None
            case _:
                return self.scheme

    @cached_property
    def slot(self) -> tuple[str, str]:
        """Name of the header that the key is written to, and the text in front of the key."""
        return self.header or "", self.prefix or _PREFIXES.get(self.scheme, "")

    def _check_scheme_keys(self) -> None:
        for key, scheme, is_required in (
            ("name", "header", True),
            ("prefix", "header", False),
            ("service", "sigv4", True),
            ("region", "sigv4", True),
        ):
            is_given = getattr(self, key) is not None
            if is_given and self.scheme != scheme:
                raise ValueError(f'has "{key}", which requires scheme "{scheme}"')
            if is_required and not is_given and self.scheme == scheme:
                raise ValueError(f'has no "{key}", which scheme "{scheme}" requires')


class Respond(Model):
    """Requests answered locally, without the upstream; all off by default."""

    models: bool = False
    """Answer `GET /v1/models` with the exact names of `models.map`."""
    count_tokens: Annotated[Literal["estimate"], one_of("estimate")] | None = None
    """Answer `/v1/messages/count_tokens` with an estimate."""
    head: bool = False
    """Answer any `HEAD` on the rule's host with 200, as Claude Code's probe expects."""


def _require_unless_preset(schema: dict[str, Any]) -> None:
    schema["required"] = []
    schema["if"] = {"not": {"required": ["preset"]}}
    schema["then"] = {
        "required": ["match"],
        "properties": {"match": {"required": ["host"]}, "auth": {"required": ["scheme"]}},
    }


class Rule(Model):
    """One entry of `rules`: the first in file order that matches a request edits it."""

    model_config = ConfigDict(json_schema_extra=_require_unless_preset)

    name: Text
    """Name in messages, comments and logs; must be unique. The default is `rule N`."""
    preset: Text | None = None
    """Preset that provides what this rule leaves out."""
    match: Match
    """Requests that this rule takes."""
    upstream: UpstreamUrl | None = None
    """New destination of the request: `https://host[:port][/base]`, or `demo`. The path of the request follows the
    base; a version segment such as `/v1` at the end of the base is not doubled."""
    allow_http: bool = False
    """Allow a credential over plain `http://` to another machine."""
    allow_anthropic_key: bool = False
    """Allow a client's `sk-ant-` key to leave `anthropic.com`."""
    auth: Auth | None = None
    """Form of the key. The default is `none` for another host, `keep` for the same host."""
    headers: HeaderEdits = Field(default_factory=cache(HeaderEdits.model_construct))
    """Request headers to set, add and remove."""
    query: QueryEdits = Field(default_factory=cache(QueryEdits.model_construct))
    """Query parameters to set and remove."""
    beta: Beta | None = None
    """Beta names to keep, drop, rename and add."""
    body: BodyEdits = Field(default_factory=cache(BodyEdits.model_construct))
    """Body fields to remove and set."""
    models: Models | None = None
    """Model names to map, and to restore in the response."""
    respond: Respond = Field(default_factory=cache(Respond.model_construct))
    """Requests answered locally, without the upstream."""

    @cached_property
    def reads_body(self) -> bool:
        """True for a rule that needs the request body before the request is forwarded."""
        return bool(
            self.models
            or self.beta
            or self.body.remove
            or self.body.set
            or self.match.model
            or self.respond.count_tokens
            or self.signs
        )

    @cached_property
    def edits_headers(self) -> bool:
        """True for a rule that sets, adds or removes headers, or edits the beta names in one."""
        return bool(self.headers.set or self.headers.add or self.headers.remove or self.beta)

    @cached_property
    def signs(self) -> bool:
        """True for a rule that signs the final bytes of a request."""
        return self.auth is not None and self.auth.scheme == "sigv4"

    @cached_property
    def written(self) -> tuple[tuple[tuple[str, str, str], str], ...]:
        """The values that `headers` and `query` write, each with its path in the rule."""
        parts = (
            ("headers", "set", self.headers.set),
            ("headers", "add", self.headers.add),
            ("query", "set", self.query.set),
        )
        return tuple(
            ((part, edit, name), value) for part, edit, values in parts for name, value in values.items()
        )

    @cached_property
    def inserted_credentials(self) -> tuple[str, ...]:
        """Names of the credentials that `headers` and `query` insert."""
        return tuple(
            dict.fromkeys(name for _, value in self.written for name in CREDENTIAL_REFERENCE.findall(value))
        )

    @cached_property
    def credential_names(self) -> tuple[str, ...]:
        """Names of all credentials that this rule sends, except `client`."""
        own = self.auth.credential if self.auth else None
        names = ([own] if own and own != CLIENT else []) + list(self.inserted_credentials)
        return tuple(dict.fromkeys(names))


def _at_least_one_rule(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if not rules:
        raise ValueError("is empty; expected at least one rule")
    return rules


class RulesFile(Model):
    """A rules file."""

    version: Version = 1
    """Version of this format."""
    credentials: dict[CredentialName, Credential] = Field(default_factory=dict)
    """Named secrets and their sources; the file itself never contains a secret."""
    unmatched: Literal["auto", "pass", "block"] = "auto"
    """Requests that no rule takes: `pass` forwards them unchanged, `block` answers 404, `auto` blocks on a
    reverse listener and passes otherwise."""
    rules: Annotated[
        tuple[Rule, ...],
        BeforeValidator(as_tuple),
        AfterValidator(_at_least_one_rule),
        Field(json_schema_extra={"minItems": 1}),
    ]
    """The rules, in the order in which they are tried."""
