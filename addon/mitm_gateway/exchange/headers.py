"""Header edits on raw fields: order, case and bytes of all other fields stay as the client sent them."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..rules.edits import Beta, HeaderEdits
from ..rules.fields import CLIENT, FRAMING_HEADERS
from ..rules.schema import Auth
from ..text.redact import Secret, is_key_header, normal_name
from ..wire.request import Fields, RequestHead, as_bytes, as_text, lower_name
from ..wire.sigv4 import AwsKeys, signed
from .client_keys import PROTOCOL, bare_key, key_to_move, without_protocol_keys
from .plan import Plan, is_token_beta
from .query import encoded, filled

_BETA = b"anthropic-beta"
Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one request: for its auth header, by name for `headers` and `query`, and headers of a helper.

    With `signing` the request contains none of them, but a signature over its final bytes.
    """

    auth: Secret | None = None
    named: Mapping[str, Secret] = field(default_factory=dict)
    extra: tuple[tuple[str, Secret], ...] = ()
    signing: AwsKeys | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """All secrets, for masking; those in the query also as they are written there."""
        own = [*([self.auth] if self.auth else ()), *(self.signing.secrets if self.signing else ())]
        every = [*own, *self.named.values(), *[secret for _, secret in self.extra]]
        revealed = dict.fromkeys([secret.reveal() for secret in every])
        return tuple(dict.fromkeys([*revealed, *map(encoded, revealed)]))


def outgoing_fields(plan: Plan, head: RequestHead, secrets: Secrets) -> Fields:
    """Return the fields to send for a plan; the secrets are added last."""
    rule, fields = plan.rule, head.fields
    if plan.auth.scheme != "keep":
        fields = stripped(fields)
    if "anthropic-beta" in head.values and drops_token(plan, head):
        fields = without_token_betas(fields)
    if rule.edits_headers:
        fields = edited(fields, rule.headers, rule.beta, secrets.named)
    secret_fields = _secret_fields(plan.auth, secrets)
    fields = put(fields, [*_own_fields(plan, head), *secret_fields])
    if "connection" in head.values:
        names = [as_text(name) for name, _ in secret_fields]
        fields = without_nominations(fields, (*names, *rule.headers.set, *rule.headers.add))
    # HTTP/2 names the host in a pseudo-header.
    return tuple([item for item in _lowered(fields) if item[0] != b"host"]) if head.authority else fields


def _lowered(fields: Fields) -> Fields:
    """Return the fields with lower-case names, the only ones that HTTP/2 knows (RFC 9113, 8.2)."""
    return tuple([(name.lower(), value) for name, value in fields])


def _own_fields(plan: Plan, head: RequestHead) -> list[Field]:
    """Return the fields that the gateway sets, apart from those with a secret."""
    host = (b"Host", as_bytes(plan.destination.authority))
    if plan.rule.models and plan.rule.models.restore and "accept-encoding" in head.values:
        # The model's name in the response is edited while it streams, which a compressed stream does not allow.
        return [(b"Accept-Encoding", b"identity"), host]
    return [host]


def _secret_fields(auth: Auth, secrets: Secrets) -> list[Field]:
    fields = [(as_bytes(name), as_bytes(secret.reveal())) for name, secret in secrets.extra]
    if secrets.auth is not None:
        (name, prefix), key = auth.slot, as_bytes(secrets.auth.reveal())
        value = base64.b64encode(key) if auth.scheme == "basic" else key
        fields.append((as_bytes(name), as_bytes(prefix) + value))
    return fields


def put(fields: Iterable[Field], new: Iterable[Field]) -> Fields:
    """Return the fields with the new ones instead of all fields of their names, at the first's position or at the end."""
    wanted = {item[0].lower(): item for item in new}
    left, result = dict(wanted), []
    for item in fields:
        name = item[0].lower()
        if name not in wanted:
            result.append(item)
        elif name in left:
            result.append(left.pop(name))
    return (*result, *left.values())


def edited(fields: Fields, headers: HeaderEdits, beta: Beta | None, secrets: Mapping[str, Secret]) -> Fields:
    """Return the fields after remove, set, add and beta. `secrets` are those that `headers` names."""

    def written(edits: Mapping[str, str]) -> list[Field]:
        return [(as_bytes(name), as_bytes(filled(value, secrets))) for name, value in edits.items()]

    kept = [item for item in fields if not _is_removed(item, headers)]
    fields = (*put(kept, written(headers.set)), *written(headers.add))
    return _with_betas(fields, beta) if beta else fields


def _is_removed(item: Field, headers: HeaderEdits) -> bool:
    name = lower_name(item[0])
    return name not in FRAMING_HEADERS and any(glob.covers(name) for glob in headers.remove)


def _with_betas(fields: Fields, beta: Beta) -> Fields:
    values = [as_text(value) for name, value in fields if name.lower() == _BETA]
    before = tuple(name.strip() for value in values for name in value.split(","))
    after = beta.edited(tuple(filter(None, before)))
    if after == before:
        return fields
    if not after:
        return tuple([item for item in fields if item[0].lower() != _BETA])
    return put(fields, [(_BETA, as_bytes(",".join(after)))])


def drops_token(plan: Plan, head: RequestHead) -> bool:
    """Report whether a token of the client in `Authorization` does not leave: it is neither kept nor moved."""
    if plan.auth.scheme == "keep":
        return False
    if plan.auth.credential != CLIENT:
        return True
    key = key_to_move(head, plan.auth.prefer)
    return all(bare_key(value) != key for value in head.all("authorization"))


def without_token_betas(fields: Fields) -> Fields:
    """Return the fields without the beta names that belong to a token."""
    return _without_parts(fields, _BETA, is_token_beta)


def without_nominations(fields: Fields, names: Sequence[str]) -> Fields:
    """Return the fields with these names removed from `Connection`: the next hop would drop the headers it names."""
    hidden = {normal_name(name) for name in names}
    return _without_parts(fields, b"connection", lambda option: normal_name(option) in hidden)


def _without_parts(fields: Fields, name: bytes, drops: Callable[[str], bool]) -> Fields:
    """Return the fields without some parts of a header with a list; all other bytes stay, unless no part is left."""
    result = []
    for item in fields:
        parts = as_text(item[1]).split(",") if item[0].lower() == name else []
        kept = [part for part in parts if not drops(part)]
        if len(kept) == len(parts):
            result.append(item)
        elif any(map(str.strip, kept)):
            result.append((item[0], as_bytes(",".join(kept).strip())))
    return tuple(result)


def stripped(fields: Fields) -> Fields:
    """Return the fields without any key of the client, in any header and spelling."""
    names = [lower_name(name) for name, _ in fields]
    kept = [item for item, name in zip(fields, names, strict=True) if not is_key_header(name)]
    return tuple(filter(None, map(without_protocol_keys, kept)) if PROTOCOL in names else kept)


def signed_fields(
    plan: Plan, head: RequestHead, method: str, target: str, fields: Fields, body: bytes, keys: AwsKeys
) -> Fields:
    """Return the fields with an AWS signature over the final request."""
    url = f"{plan.destination.scheme}://{plan.destination.authority}{target}"
    service, region = plan.auth.service or "", plan.auth.region or ""
    result = signed(fields, method, url, body, keys, service=service, region=region)
    return _lowered(result) if head.authority else result
