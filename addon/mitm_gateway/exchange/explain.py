"""The dry run: the rule that takes a request and every edit it makes, or why none does. No secret is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any, Literal
from urllib.parse import urlsplit

from ..rules.ruleset import DependsOnModel, RuleSet
from ..rules.schema import Match, Rule
from ..text.redact import Secret, masked_fields, masked_target, masked_text
from ..text.turns import finish
from ..wire.addresses import DEFAULT_PORTS, hostport, is_loopback, normal_host
from ..wire.refusal import Refusal
from ..wire.request import Arrival, Fields, RequestHead, as_bytes, as_text
from .front_page import Greeting
from .guard import Policy, check_admission
from .headers import Secrets, outgoing_fields
from .local_answers import answer_to_body, answer_to_head, answer_to_probe
from .plan import NOWHERE, Pass, Plan, decide
from .query import edited_target
from .record import auth_change
from .websocket import refuse_socket

_MAX_REASONS = 20
Verdict = Literal["forward", "pass", "refuse", "answer"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The outcome for one request, without sending it."""

    request: str
    verdict: Verdict
    rule: str | None = None
    place: str | None = None
    destination: str | None = None
    status: int | None = None
    reason: str | None = None
    auth: str | None = None
    credential: str | None = None
    model: str | None = None
    model_sent: str | None = None
    removed: tuple[str, ...] = ()
    put_in: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    why_not: tuple[str, ...] = ()
    elsewhere: str | None = None
    """The outcome on a reverse listener, if it is another one."""

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as plain data without empty entries."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
            if value not in (None, ())
        }

    def lines(self) -> list[str]:
        """Return the explanation as text."""
        credential = f" (credential {self.credential})" if self.credential else ""
        change = f" → {self.model_sent}" if self.model_sent != self.model else ", unchanged"
        outcomes = {
            "forward": ("upstream", self.destination),
            "pass": ("no rule", "forwarded unchanged to its own host"),
            "refuse": ("refused", f"{self.status}: {self.reason}"),
            "answer": ("answered", f"here with {self.status}: {self.reason}"),
        }
        rows = [
            ("rule", f"{self.rule} ({self.place})" if self.place else self.rule),
            outcomes[self.verdict],
            ("auth", self.auth and self.auth + credential),
            ("model", self.model and self.model + change),
            *(("remove", line) for line in self.removed),
            *(("set", line) for line in self.put_in),
            *(("query", line) for line in self.query),
            *(("body", line) for line in self.body),
            *(("not", line) for line in self.why_not),
            ("but", self.elsewhere),
        ]
        return [self.request, *(f"  {name:<10} {value}" for name, value in rows if value)]

    def outcome(self) -> str:
        """Return the outcome in a few words."""
        match self.verdict:
            case "forward":
                return f"forwarded to {self.destination}"
            case "pass":
                return "forwarded unchanged"
            case "answer":
                return f"answered here with {self.status}: {self.reason}"
        return f"refused with {self.status}: {self.reason}"


_verdict = attrgetter("verdict", "status", "destination")


def explain_url(
    ruleset: RuleSet, method: str, url: str, headers: Sequence[tuple[str, str]] = (), model: str | None = None
) -> Explanation:
    """Explain a request to a URL, on every kind of listener.

    A loopback URL that no rule covers is a reverse listener in front of the first host of the rules. Raises ValueError
    if the text is no URL.
    """
    head = _head(method, url, headers)
    if host := _host_behind(head, ruleset):
        return explain(ruleset, _head(method, _moved(url, host), headers), model, Arrival("reverse"))
    found = explain(ruleset, head, model, Arrival(sni=head.host, tls=head.scheme == "https"))
    other = explain(ruleset, head, model, Arrival("reverse"))
    is_same = _verdict(found) == _verdict(other)
    return found if is_same else replace(found, elsewhere=f"on a reverse listener: {other.outcome()}")


def _host_behind(head: RequestHead, ruleset: RuleSet) -> str | None:
    """Return the host that a listener on this machine stands for; None if the request names another host."""
    is_here = head.host == "localhost" or is_loopback(head.host)
    if not is_here or ruleset.knows_host(head.host, head.port):
        return None
    patterns = (pattern for rule in ruleset.rules for pattern in rule.match.host)
    return next((pattern.name for pattern in patterns if pattern.is_exact), None)


def _moved(url: str, host: str) -> str:
    return urlsplit(url if "://" in url else f"http://{url}")._replace(scheme="https", netloc=host).geturl()


def _head(method: str, url: str, headers: Sequence[tuple[str, str]]) -> RequestHead:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, port = normal_host(parts.hostname or ""), parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise ValueError('expected a URL such as "https://api.anthropic.com/v1/messages"') from None
    fields: Fields = tuple((as_bytes(name), as_bytes(value)) for name, value in headers)
    if not any(name.lower() == b"host" for name, _ in fields):
        fields = ((b"Host", as_bytes(hostport(host, port, parts.scheme))), *fields)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return RequestHead(method.upper(), parts.scheme, host, port, target, fields)


def explain(ruleset: RuleSet, head: RequestHead, model: str | None, arrival: Arrival) -> Explanation:
    """Explain a request with this head and, in its body, this model."""
    host = hostport(head.host, head.port, head.scheme)
    request = f"{head.method} {head.scheme}://{host}{masked_text(head.path)}"
    refusal = check_admission(head, arrival, Policy(), ruleset.knows_host) or refuse_socket(ruleset, head)
    if refusal:
        return Explanation(request, "refuse", refusal.rule, status=refusal.status, reason=refusal.reason)
    if answer := answer_to_probe(ruleset, head):
        return Explanation(request, "answer", status=answer.status, reason=answer.note)
    outcome = decide(ruleset, head, arrival, (model,) if model else (), demo=NOWHERE)
    match outcome:
        case Plan(rule):
            if key := _answered_by(rule, ruleset, head):
                place = _place(ruleset, rule)
                return Explanation(request, "answer", rule.name, place, status=200, reason=key)
            return _forwarded(request, ruleset, outcome, head, model)
        case Refusal():
            return Explanation(
                request, "refuse", outcome.rule, status=outcome.status, reason=outcome.reason,
                why_not=_reasons(ruleset, head, model) if outcome.rule is None else (),
            )  # fmt: skip
        case Greeting(note):
            return Explanation(request, "answer", status=200, reason=note)
        case Pass() | DependsOnModel():
            return Explanation(request, "pass", why_not=_reasons(ruleset, head, model))


def _answered_by(rule: Rule, ruleset: RuleSet, head: RequestHead) -> str | None:
    """Return the key of the rule for which the request is answered locally."""
    if answer_to_head(rule, ruleset, head):
        return "respond.models"
    return "respond.count_tokens" if finish(answer_to_body(rule, head, b"")) else None


def _place(ruleset: RuleSet, rule: Rule) -> str:
    return f"number {ruleset.rules.index(rule) + 1} of {len(ruleset.rules)}"


def _forwarded(
    request: str, ruleset: RuleSet, plan: Plan, head: RequestHead, model: str | None
) -> Explanation:
    rule = plan.rule
    asked = plan.model or model
    sent = rule.models.sent_for(asked) if rule.models and asked else asked
    before, after = _shown(head.fields), _shown(outgoing_fields(plan, head, _named_only(plan)))
    kept = {name.lower() for name in after}
    credential = plan.auth.credential
    return Explanation(
        request,
        "forward",
        rule.name,
        destination=f"demo{plan.target}" if plan.demo else _url(plan),
        auth=auth_change(plan, head),
        credential=credential,
        model=asked,
        model_sent=sent,
        removed=tuple(name for name in before if name.lower() not in kept),
        put_in=tuple(
            f"{name}: {value}"
            for name, value in after.items()
            if before.get(name) != value and name.lower() != "host"
        ),
        query=(
            *(f"remove {glob.text}" for glob in rule.query.remove),
            *(f"set {name}" for name in rule.query.set),
        ),
        body=rule.body.described,
        place=_place(ruleset, rule),
        why_not=_reasons(ruleset, head, asked, before=rule),
    )


def _url(plan: Plan) -> str:
    target = edited_target(plan.target, plan.rule.query, _named_only(plan).named)
    return f"{plan.destination.scheme}://{plan.destination.authority}{masked_target(target)}"


def _shown(fields: Fields) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in masked_fields(fields)}


def _named_only(plan: Plan) -> Secrets:
    """Return the names of the credentials instead of their values."""
    stand_in = {name: Secret(f"<{name}>") for name in plan.rule.credential_names}
    own = plan.auth.credential
    return Secrets(Secret(f"<{own}>") if own and plan.auth.scheme != "sigv4" else None, stand_in)


def _reasons(
    ruleset: RuleSet, head: RequestHead, model: str | None, before: Rule | None = None
) -> tuple[str, ...]:
    """Return why the rules, or those before this one, do not take the request."""
    tried = takewhile(lambda rule: rule is not before, ruleset.rules)
    return tuple(
        f'rule "{rule.name}": {_reason(rule.match, head, model)}' for rule in islice(tried, _MAX_REASONS)
    )


def _reason(match: Match, head: RequestHead, model: str | None) -> str:
    if not any(pattern.covers(head.host, head.port) for pattern in match.host):
        return f"host {head.host} is not {_listed(match.host)}"
    if match.path is not None and not any(pattern.covers(head.matched_path) for pattern in match.path):
        return f"path {head.path} does not match {_listed(match.path)}"
    if match.method is not None and head.method not in match.method:
        return f"method {head.method} is not {' or '.join(match.method)}"
    if match.model is not None and not match.covers_model(model):
        return f"model {model or '(none)'} does not match {_listed(match.model)}"
    return "a header does not match"


def _listed(patterns: Sequence[Any]) -> str:
    return " or ".join(pattern.text for pattern in patterns)


def describe_rules(ruleset: RuleSet) -> list[str]:
    """Return one line for each rule."""
    return [
        f"{number}. {rule.name}: {_listed(rule.match.host)}"
        + (f" {_listed(rule.match.path)}" if rule.match.path else "")
        + f" → {rule.upstream or 'stays'}"
        for number, rule in enumerate(ruleset.rules, 1)
    ]
