"""The plan for a request: a value that can be printed, compared and carried out.

A plan names credentials and never contains one; the client's own key stays in the request's fields until
`headers.outgoing_fields` removes it.
"""

from dataclasses import dataclass, field
from itertools import islice

from ..llm.calls import Call, call_of
from ..llm.hints import base_url_mistake
from ..rules.ruleset import Asked, DependsOnModel, RuleSet
from ..rules.schema import Auth, Rule
from ..text.printable import visible
from ..text.redact import MASK, masked_text, without_query_keys
from ..wire.addresses import Upstream, hostport, place
from ..wire.refusal import Refusal
from ..wire.request import Arrival, Fields, RequestHead
from .client_keys import USUAL_SLOTS, key_to_move
from .front_page import Greeting, greeting

# Stands for the demo gateway when nothing is sent.
NOWHERE = Upstream("http", "127.0.0.1", 1)
_KEEP, _STRIP = Auth.model_construct(scheme="keep"), Auth.model_construct(scheme="none")
# Betas of this kind (oauth-2025-04-20) belong to an OAuth token; upstreams refuse them without it.
TOKEN_BETAS = "oauth-"
ANTHROPIC_KEY = "sk-ant-"
# A refusal shows at most this much of a path, and this many hosts.
_SHOWN_PATH, _SHOWN_HOSTS = 200, 8
# Reasons that the Envoy filter gives as well.
NO_KEY_TO_MOVE = "this rule moves the client's key, and the client sent none that is usable"
SEVERAL_MODELS = "the query names more than one model"
DIFFERENT_RULES = "the models in this request belong to different rules; send one request for each"
FOREIGN_KEY = (
    "an Anthropic key does not go to another vendor; name a credential, or allow_anthropic_key: true"
)


@dataclass(frozen=True, slots=True)
class Pass:
    """No rule takes the request; it is forwarded with these fields, and this authority if the client named a listener."""

    target: str = field(repr=False)
    fields: Fields = field(repr=False)
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that happens to one request: the rule, the destination and the target there."""

    rule: Rule
    destination: Upstream
    demo: bool
    target: str
    auth: Auth
    model: str | None = None
    """The model in the path, as the client wrote it."""
    model_sent: str | None = None
    """The model in the path that is sent."""


Decision = Plan | Refusal | Pass | DependsOnModel | Greeting


def decide(
    ruleset: RuleSet,
    head: RequestHead,
    arrival: Arrival,
    models: tuple[str, ...] | None = None,
    demo: Upstream | None = None,
    *,
    is_sent: bool = True,
) -> Decision:
    """Return the outcome for a request that passed the guard.

    `models` are those that the body names; None if it has not been read yet. `demo` is the address of the demo gateway.
    Without `is_sent` a recording answers, so the request needs no key.
    """
    call = call_of(head)
    if call.api.query and len(call.query_spans(head.target)) > 1:
        return Refusal(400, SEVERAL_MODELS)
    if (asked := call.model_in(head.target)) is not None:
        models = (asked,)
    rule = ruleset.find(head) if models is None else _find(ruleset, head, models)
    match rule:
        case Rule():
            return _plan(rule, head, call, asked, arrival, demo, is_sent=is_sent)
        case None:
            return _unmatched(ruleset, head, arrival)
        case _:
            return rule


def _find(
    ruleset: RuleSet, head: RequestHead, models: tuple[str, ...]
) -> Rule | Refusal | DependsOnModel | None:
    """Return the rule that takes every model of a request."""
    first, *others = [ruleset.find(head, Asked(name)) for name in models or (None,)]
    if any(other is not first for other in others):
        return Refusal(400, DIFFERENT_RULES)
    return first


def _unmatched(ruleset: RuleSet, head: RequestHead, arrival: Arrival) -> Refusal | Pass | Greeting:
    is_reverse = arrival.mode == "reverse"
    if ruleset.unmatched == "block" or (ruleset.unmatched == "auto" and is_reverse):
        return greeting(head, arrival) or Refusal(
            404, f"no rule matches this request, and unmatched requests are blocked: {_lookup(ruleset, head)}"
        )
    authority = hostport(head.host, head.port, head.scheme) if is_reverse else None
    return Pass(head.target, head.fields, authority)


def _lookup(ruleset: RuleSet, head: RequestHead) -> str:
    """Return the URL for which no rule was found, without its query, and the hosts that rules are about."""
    host = hostport(head.host, head.port, head.scheme)
    path = visible(masked_text(head.target.partition("?")[0][:_SHOWN_PATH]))
    hosts = dict.fromkeys(pattern.text for rule in ruleset.rules for pattern in rule.match.host)
    named = ", ".join(islice(hosts, _SHOWN_HOSTS)) + (", …" if len(hosts) > _SHOWN_HOSTS else "")
    url = f"{visible(head.method[:_SHOWN_PATH])} {head.scheme}://{host}{path}"
    mistake = base_url_mistake(head.path)
    return f"{url}; " + (f"{mistake}; " if mistake else "") + f"the rules cover {named}"


def _plan(
    rule: Rule,
    head: RequestHead,
    call: Call,
    asked: str | None,
    arrival: Arrival,
    demo: Upstream | None,
    *,
    is_sent: bool,
) -> Plan | Refusal:
    demo = demo or (None if is_sent else NOWHERE)
    destination = destination_of(rule, head.scheme, head.host, head.port, demo)
    if destination is None:
        return Refusal(503, "the demo gateway is not running yet", rule.name, retry=True)
    auth = auth_of(rule, destination, head.host)
    if is_sent and (refusal := _check_keys(rule, auth, head, destination, arrival)):
        return refusal
    sent = rule.models.sent_for(asked) if rule.models and asked is not None else asked
    path, query = head.path, head.query
    if sent is not None and sent != asked:
        path, query = call.path_with(sent) if call.span else path, call.query_with(query, sent)
    if query and auth.scheme != "keep":
        query = without_query_keys(query)
    target = destination.join(path) + query
    return Plan(rule, destination, rule.upstream == "demo", target, auth, asked, sent)


def destination_of(
    rule: Rule, scheme: str, host: str, port: int, demo: Upstream | None = None
) -> Upstream | None:
    """Return where the rule sends requests for this host; None while the demo gateway is not running."""
    if rule.upstream == "demo":
        return demo
    if rule.upstream is not None:
        return rule.upstream
    return place(scheme, host, port)


def auth_of(rule: Rule, destination: Upstream, host: str) -> Auth:
    """Return the rule's auth; by default keys are kept on the same host and stripped for any other."""
    return rule.auth or (_KEEP if destination.host == host else _STRIP)


def _check_keys(
    rule: Rule, auth: Auth, head: RequestHead, destination: Upstream, arrival: Arrival
) -> Refusal | None:
    """Refuse to send a key where it must not go, or one that the request does not have."""
    is_private = destination.is_private and not (arrival.goes_to_proxy and destination.scheme == "http")
    if not (is_private or rule.allow_http) and (refusal := _check_plain_http(rule, auth, arrival)):
        return refusal
    if auth.credential == "client":
        return _check_key_to_move(rule, auth, head, destination, arrival)
    if (
        arrival.replay
        and auth.scheme == "keep"
        and any(MASK in (head.get(name) or "") for name in USUAL_SLOTS)
    ):
        return Refusal(400, "a replay has no key of the client's to send", rule.name)
    return None


def _check_plain_http(rule: Rule, auth: Auth, arrival: Arrival) -> Refusal | None:
    """Refuse to send a credential, or the client's own key, over a connection that others can read."""
    if rule.credential_names or auth.credential == "client":
        way, remedy = "over plain http", "use an https upstream"
        if arrival.goes_to_proxy:
            way, remedy = f"{way} to the proxy of upstream mode", "name that proxy in gateway_proxy instead"
        return Refusal(
            502, f"the credential would travel {way}; {remedy}, or set allow_http: true", rule.name
        )
    if auth.scheme == "keep" and arrival.mode != "reverse":
        return Refusal(403, "plain http to this host is not forwarded; ask for it over https", rule.name)
    return None


def _check_key_to_move(
    rule: Rule, auth: Auth, head: RequestHead, destination: Upstream, arrival: Arrival
) -> Refusal | None:
    if arrival.replay:
        return Refusal(400, "a replay has no key of the client's to move", rule.name)
    key = key_to_move(head, auth.prefer)
    if key is None:
        return Refusal(401, NO_KEY_TO_MOVE, rule.name)
    if key.startswith(ANTHROPIC_KEY) and not takes_anthropic_key(rule, destination):
        return Refusal(403, FOREIGN_KEY, rule.name)
    return None


def takes_anthropic_key(rule: Rule, destination: Upstream) -> bool:
    """Report whether the rule may move a client's Anthropic key to this destination."""
    return rule.allow_anthropic_key or f".{destination.host}".endswith(".anthropic.com")


def is_token_beta(name: str) -> bool:
    """Report whether a beta name belongs to an OAuth token."""
    return name.strip().lower().startswith(TOKEN_BETAS)
