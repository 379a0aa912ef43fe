"""Rules applied to recorded requests: the rule that takes each, its changes, and the difference to another file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..exchange.body_edits import body_bytes
from ..exchange.body_error import BodyError
from ..exchange.explain import Explanation, explain
from ..exchange.json_body import Body
from ..exchange.request_body import read_request_body
from ..rules.ruleset import RuleSet
from ..text.printable import one_line
from ..wire.addresses import hostport
from ..wire.content_encoding import DecodingError
from ..wire.request import RequestHead, as_bytes, lower_name
from .recorded import MAX_BODY_BYTES, Recorded

# They belong to the listener and the page, not to the rules.
_NOT_OF_RULES = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "content-encoding")


@dataclass(slots=True)
class Case:
    """Requests with the same outcome."""

    first: int
    lines: tuple[str, ...]
    others: tuple[str, ...] = ()
    """The outcome under the other rules, where there are some."""
    is_refused: bool = False
    count: int = 1

    @property
    def differs(self) -> bool:
        """True if the other rules have another outcome."""
        return self.lines != self.others


def cases(requests: Iterable[Recorded], rules: RuleSet, other: RuleSet | None = None) -> list[Case]:
    """Return the different outcomes, in the order in which the requests have them first."""
    found: dict[tuple[str, ...], Case] = {}
    for each in requests:
        outcome = _outcome(each, rules)
        lines = _lines(each, outcome)
        others = _lines(each, _outcome(each, other)) if other is not None else ()
        key = (*lines, "", *others)
        if key in found:
            found[key].count += 1
        else:
            found[key] = Case(each.number, lines, others, outcome.verdict == "refuse")
    return list(found.values())


def outcomes(found: Iterable[Case]) -> Iterator[str]:
    """Yield the lines about these outcomes."""
    for case in found:
        more = f" and {case.count - 1} more" if case.count > 1 else ""
        yield f"{case.lines[0]} (request {case.first}{more})"
        yield from case.lines[1:]


def differences(found: Iterable[Case]) -> Iterator[str]:
    """Yield the lines about the outcomes that differ under the other rules."""
    for case in found:
        if case.differs:
            more = f" and {case.count - 1} more" if case.count > 1 else ""
            yield f"{case.lines[0]} (request {case.first}{more})"
            yield from (f"- {line}" for line in case.lines[1:] if line not in case.others)
            yield from (f"+ {line}" for line in case.others[1:] if line not in case.lines)


def _outcome(recorded: Recorded, rules: RuleSet) -> Explanation:
    """Return the effect of the rules on a request; a body that cannot be read makes it a refusal."""
    head = _without_admission(recorded.head)
    found = explain(rules, head, recorded.asked_model, recorded.arrival)
    rule = next((rule for rule in rules.rules if rule.name == found.rule), None)
    if found.verdict != "forward" or rule is None or not rule.reads_body:
        return found
    try:
        if isinstance(body := read_request_body(head, recorded.request.raw, MAX_BODY_BYTES), Body):
            body_bytes(rule, body)
    except (BodyError, DecodingError) as fault:
        return Explanation(found.request, "refuse", rule.name, status=400, reason=str(fault))
    return found


def _without_admission(head: RequestHead) -> RequestHead:
    authority = hostport(head.host, head.port, head.scheme)
    fields = tuple(field for field in head.fields if lower_name(field[0]) not in _NOT_OF_RULES)
    named = ((b"Host", as_bytes(authority)), *fields)
    return replace(head, fields=named, authority=authority if head.authority else "")


def _lines(recorded: Recorded, found: Explanation) -> tuple[str, ...]:
    shown = replace(found, why_not=() if found.verdict == "forward" else found.why_not)
    return tuple(recorded.masks.text(one_line(line)) for line in shown.lines())
