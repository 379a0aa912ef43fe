"""One request and its answer, step by step: who asks, which rule, the edits, the answer's way back.

Each step is called by one hook and raises `Refused` where the request ends here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import assert_never

from mitmproxy import http

from ..credentials.value import CredentialError, Value
from ..exchange import guard
from ..exchange.headers import Secrets
from ..exchange.json_body import Body, BodyError, scan
from ..exchange.local_answers import LocalAnswer, to_body, to_head, to_probe
from ..exchange.plan import Pass, Plan, applied_edits, body_bytes, client_key, decide
from ..exchange.record import ANSWERED_HERE, Record
from ..patches.safety.bounds import too_large
from ..rules.ruleset import Asked, NeedsBody
from ..text.redact import Secret
from ..wire.addresses import Upstream
from ..wire.content_encoding import DecodingError, TooLarge, decode
from ..wire.refusal import Refusal, Refused
from ..wire.request import Arrival, RequestHead
from .answering import completed, hide_from_pages, note_rejection, tee_for
from .flows import apply, head_of, mask, mask_backup, mask_echo, pass_on, refuse, set_body, sign
from .handling import Handling, Loaded
from .live_view import Live
from .log_filter import unquoted
from .options import Settings
from .replay import is_replay, remember, remember_sent, restore_original, restore_original_model

logger = logging.getLogger(__name__)

# The rule's own limits end a helper; this ends what they do not cover.
CREDENTIAL_MARGIN_S = 5.0
NO_RULES = Refusal(503, "no rules are loaded yet; try again", retry=True)


class Exchange:
    """The flows under way, and what is done with them. `demo` gives the demo gateway's address."""

    def __init__(
        self,
        demo: Callable[[], Upstream | None],
        progressed: Callable[[http.HTTPFlow, Record], None],
        finished: Callable[[http.HTTPFlow, Record], None],
        after_answer: Callable[[Callable[[], None]], None],
    ) -> None:
        self.loaded: Loaded | None = None
        self.settings = Settings()
        self._demo = demo
        self._progressed = progressed
        self._finished = finished
        self._after_answer = after_answer
        self._live = Live(self._show)
        self._handlings: dict[str, Handling] = {}
        self._passing: dict[str, http.HTTPFlow] = {}

    def get(self, flow: http.HTTPFlow) -> Handling | None:
        """What is known of a flow; None where no rule handles it."""
        return self._handlings.get(flow.id)

    def planned_for(self, client_id: str) -> list[Handling]:
        """The flows under way of a client connection that a rule sends somewhere."""
        handlings = self._handlings.values()
        return [each for each in handlings if each.plan and each.flow.client_conn.id == client_id]

    def passing_for(self, client_id: str) -> list[http.HTTPFlow]:
        """The flows under way of a client connection that no rule takes."""
        return [flow for flow in self._passing.values() if flow.client_conn.id == client_id]

    # ---- request ----

    def open(self, flow: http.HTTPFlow, arrival: Arrival) -> Awaitable[None] | None:
        """Everything that the head alone decides; gives what has to be waited for. Raises Refused."""
        if is_replay(flow):
            restore_original(flow)
        if self.loaded is None:
            raise Refused(NO_RULES)
        head = head_of(flow, arrival)
        handling = Handling(self.loaded, head, arrival, Record.opened(head, time.time()), flow)
        self._handlings[flow.id] = handling
        handling.hidden = tuple(filter(None, guard.keys_in(head)))
        self._let_in(handling)
        self._check_announced_size(handling)
        if probe := to_probe(self.loaded.ruleset, handling.head):
            self._answer_here(flow, handling, probe)
            return None
        outcome = decide(self.loaded.ruleset, handling.head, arrival, demo=self._demo())
        if isinstance(outcome, NeedsBody):
            flow.request.stream = False
            return None
        return self._follow(flow, handling, outcome)

    def _let_in(self, handling: Handling) -> None:
        policy, ruleset = self.settings.policy, handling.loaded.ruleset
        refusal = None
        if not handling.arrival.replay:
            refusal = guard.check(handling.head, handling.arrival, policy, ruleset.knows_host)
        if refusal is None and to_probe(ruleset, handling.head) is None:
            refusal = guard.check_client_key(handling.head, handling.arrival, policy)
        if refusal:
            raise Refused(refusal)
        handling.head = guard.without_client_key(handling.head, policy)

    def _check_announced_size(self, handling: Handling) -> None:
        announced = handling.head.get("content-length")
        too_long = announced and announced.isdecimal() and int(announced) > self.settings.body_limit
        if too_long and handling.loaded.ruleset.knows_host(handling.head.host, handling.head.port):
            raise Refused(too_large(self.settings.body_limit))

    def _follow(
        self, flow: http.HTTPFlow, handling: Handling, outcome: Plan | Refusal | Pass
    ) -> Awaitable[None] | None:
        match outcome:
            case Refusal():
                raise Refused(outcome)
            case Pass():
                pass_on(flow, handling.head, handling.arrival)
                del self._handlings[flow.id]
                self._passing[flow.id] = flow
                return None
            case Plan():
                return self._carry_out(flow, handling, outcome)
            case _:
                assert_never(outcome)

    def _carry_out(self, flow: http.HTTPFlow, handling: Handling, plan: Plan) -> Awaitable[None] | None:
        handling.plan = plan
        handling.record.plan(plan, handling.head)
        if plan.rule.reads_body:
            flow.request.stream = False
        if answer := to_head(plan.rule, handling.loaded.ruleset, handling.head):
            self._answer_here(flow, handling, answer)
            return None
        values = _at_hand(handling, plan)
        if values is None:
            return self._carry_out_later(flow, handling, plan)
        self._apply(flow, handling, plan, values)
        return None

    async def _carry_out_later(self, flow: http.HTTPFlow, handling: Handling, plan: Plan) -> None:
        self._apply(flow, handling, plan, await _fetched(handling, plan))

    def _apply(
        self, flow: http.HTTPFlow, handling: Handling, plan: Plan, values: Mapping[str, Value]
    ) -> None:
        handling.secrets = _secrets(handling, plan, values)
        handling.hidden = (*handling.secrets.values, *handling.hidden)
        remember(flow, handling.head, handling.hidden)
        apply(plan, handling.head, handling.secrets, flow)
        self._show_state(flow, handling, "waiting")

    def read_body(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """Everything that needs the request's body, which is complete now. As `open`."""
        handling = self._handlings.get(flow.id)
        if handling is None:
            return None
        if is_replay(flow):
            restore_original_model(flow)
        content = flow.request.raw_content or b""
        if not handling.reads_body:
            if content:
                set_body(flow, content, edited=False)
            handling.record.bytes_out = len(content)
            return None
        body = self._body(flow, handling.head, content)
        if handling.plan is None:
            asked = Asked(body.model if body else None)
            outcome = decide(handling.loaded.ruleset, handling.head, handling.arrival, asked, self._demo())
            if isinstance(outcome, NeedsBody):
                raise AssertionError("a body was read and is still needed")
            if waiting := self._follow(flow, handling, outcome):
                return self._send_after(waiting, flow, handling, content, body)
        self._send_body(flow, handling, content, body)
        return None

    async def _send_after(
        self,
        waiting: Awaitable[None],
        flow: http.HTTPFlow,
        handling: Handling,
        content: bytes,
        body: Body | None,
    ) -> None:
        await waiting
        self._send_body(flow, handling, content, body)

    def _send_body(self, flow: http.HTTPFlow, handling: Handling, content: bytes, body: Body | None) -> None:
        if handling.plan is None or flow.response:
            return
        answer = to_body(handling.plan.rule, handling.head, body.raw if body else b"")
        if answer:
            self._answer_here(flow, handling, answer)
        else:
            self._edit(flow, handling, handling.plan, content, body)

    def _body(self, flow: http.HTTPFlow, head: RequestHead, content: bytes) -> Body | None:
        """The request body taken apart; None where there is none, or where it is a form with files."""
        if not content or (head.get("content-type") or "").lower().startswith("multipart/"):
            return None
        limit = self.settings.body_limit
        if len(content) > limit:
            raise Refused(too_large(limit))
        try:
            return scan(decode(content, head.get("content-encoding") or "", limit))
        except TooLarge:
            raise Refused(too_large(limit)) from None
        except DecodingError as fault:
            # What could not be unpacked here, mitmproxy's views and its HAR export would stumble over.
            flow.request.headers.pop("content-encoding", None)
            raise Refused(Refusal(400, str(fault))) from None
        except BodyError as fault:
            raise Refused(Refusal(400, str(fault))) from None

    def _edit(
        self, flow: http.HTTPFlow, handling: Handling, plan: Plan, content: bytes, body: Body | None
    ) -> None:
        record, is_edited = handling.record, False
        if body is not None:
            try:
                edited, sent = body_bytes(plan.rule, body)
            except BodyError as fault:
                raise Refused(Refusal(400, str(fault), plan.rule.name)) from None
            if edited is not body.raw:
                record.bytes_came = len(content)
                record.applied = applied_edits(plan.rule, body) if self._live.is_watched else None
                content, is_edited = edited, True
            if body.model is not None and record.model is None:
                record.model, record.model_sent = body.model, sent
        if content:
            set_body(flow, content, edited=is_edited)
        record.bytes_out = len(content)
        self._show_state(flow, handling, "waiting")

    def _show_state(self, flow: http.HTTPFlow, handling: Handling, state: str) -> None:
        """Puts what is known so far where people look, if anybody looks."""
        if self._live.is_watched:
            self._progressed(flow, handling.under_way(state))

    def sign(self, flow: http.HTTPFlow) -> None:
        """Signs what will leave, where the rule says so: the very last step. What fails is refused."""
        handling = self._handlings.get(flow.id)
        if handling is None or handling.plan is None or handling.secrets.signing is None:
            return
        try:
            sign(flow, handling.plan, handling.secrets.signing)
        except Exception as fault:
            refusal = Refusal(502, f"the request could not be signed ({type(fault).__name__})")
            self.refuse(flow, replace(refusal, rule=handling.plan.rule.name))

    # ---- answer ----

    def answer(self, flow: http.HTTPFlow) -> None:
        """The upstream's head has come: let the body stream, and hide what has been sent."""
        handling = self._handlings.get(flow.id)
        if handling is None or handling.answered_here or not flow.response or handling.plan is None:
            return
        self._hide(handling)
        note_rejection(flow.response, handling, handling.plan)
        hide_from_pages(flow.response, handling, handling.plan, self.settings)
        if flow.response.status_code != 101:
            handling.tee = tee_for(flow, handling, self.settings, lambda: self._live.changed(flow))
            flow.response.stream = handling.tee.feed

    def _show(self, flow: http.HTTPFlow) -> bool:
        """Makes what has passed so far visible; whether there is anything to show."""
        handling, response = self._handlings.get(flow.id), flow.response
        if handling is None or handling.tee is None or response is None:
            return False
        response.raw_content = handling.tee.kept()
        self._progressed(flow, handling.under_way("streaming"))
        return True

    def finish(self, flow: http.HTTPFlow) -> None:
        """The flow has ended, well or not: keep what passed, say what happened, hide every secret."""
        self._passing.pop(flow.id, None)
        handling = self._handlings.pop(flow.id, None)
        if handling is None:
            return
        self._hide(handling)  # first: whatever fails below, no key is kept
        self._live.ended(flow)
        tee, response, streamed = handling.tee, flow.response, False
        # Another addon may have put an answer of its own in the place of the one that was to stream.
        if tee is not None and response is not None and (tee.has_fed or response.raw_content is None):
            response.raw_content = tee.kept()
            streamed = True
        if response is not None and not self.settings.reveal:
            # What did not stream is sent after this, so nothing but the keys themselves is taken out of it.
            mask(response, handling.hidden) if streamed else mask_echo(response, handling.hidden)
        if flow.error is not None and not self.settings.reveal:
            # It quotes what a peer sent.
            flow.error.msg = unquoted(flow.error.msg, handling.hidden)
        if handling.plan is not None:
            remember_sent(flow, handling.record.model, handling.record.model_sent)
        self._after_answer(lambda: self._note(flow, handling))

    def _note(self, flow: http.HTTPFlow, handling: Handling) -> None:
        self._finished(flow, completed(flow, handling))
        if handling.tee is not None:
            handling.tee.close()

    # ---- ends ----

    def refuse(self, flow: http.HTTPFlow, refusal: Refusal) -> None:
        """Answers a flow here and notes why."""
        handling = self._handlings.get(flow.id)
        if handling is not None:
            handling.answered_here = True
            rule = handling.plan.rule.name if handling.plan else refusal.rule
            refusal = replace(refusal, rule=refusal.rule or rule)
            handling.record.refusal = refusal.reason
            handling.record.rule = handling.record.rule or refusal.rule
        if refusal.status == 413:
            # mitmproxy's views would unpack it whole.
            flow.request.raw_content = None
        refuse(flow, refusal, reveal=self.settings.reveal)

    def _answer_here(self, flow: http.HTTPFlow, handling: Handling, answer: LocalAnswer) -> None:
        """Gives an answer that a rule lets the gateway give."""
        handling.answered_here = True
        handling.record.notes = (ANSWERED_HERE,)
        flow.request.stream = False
        flow.response = http.Response.make(answer.status, answer.body, {"content-type": answer.content_type})

    def hide_all(self) -> None:
        """Masks the flows that are still under way: the program ends and writes them as they stand."""
        for handling in self._handlings.values():
            self._hide(handling)
            if handling.flow.response is not None and not self.settings.reveal:
                mask(handling.flow.response, handling.hidden)

    def _hide(self, handling: Handling) -> None:
        """Masks what is kept of a request, once, and what a user's edit has put aside, again and again."""
        if self.settings.reveal:
            return
        mask_backup(handling.flow, handling.hidden)
        if not handling.is_hidden:
            mask(handling.flow.request, handling.hidden)
            handling.is_hidden = True

    def body_limit(self, flow: http.HTTPFlow) -> int | None:
        """How many bytes a request's body may have, None where the gateway does not handle it."""
        return self.settings.body_limit if flow.id in self._handlings else None


def _at_hand(handling: Handling, plan: Plan) -> Mapping[str, Value] | None:
    """The credentials that a plan needs, or None where one has to be waited for. Raises Refused."""
    values = {}
    try:
        for name in plan.rule.credential_names:
            value = handling.loaded.credentials.at_hand(name)
            if value is None:
                return None
            values[name] = value
    except CredentialError as fault:
        raise Refused(Refusal(502, str(fault), plan.rule.name)) from None
    return values


async def _fetched(handling: Handling, plan: Plan) -> Mapping[str, Value]:
    """The credentials that a plan needs, waited for. Raises Refused: without them the request does not leave."""
    credentials = handling.loaded.credentials
    try:
        async with asyncio.timeout(credentials.patience_s + CREDENTIAL_MARGIN_S):
            return {name: await credentials.get(name) for name in plan.rule.credential_names}
    except CredentialError as fault:
        raise Refused(Refusal(502, str(fault), plan.rule.name)) from None
    except TimeoutError:
        raise Refused(Refusal(502, "the credential took too long", plan.rule.name)) from None


def _secrets(handling: Handling, plan: Plan, values: Mapping[str, Value]) -> Secrets:
    """What a planned request takes along; a key of the client's is one of its secrets too."""
    named = {name: value.secret for name, value in values.items()}
    if plan.auth.credential == "client":
        key = client_key(handling.head, plan.auth)
        return Secrets(Secret(key) if key else None, named)
    if (own := values.get(plan.auth.credential or "")) is None:
        return Secrets(None, named)
    handling.record.credential_age_s = round(time.monotonic() - own.read_at, 1)
    if plan.rule.signs:
        return Secrets(None, named, own.headers, own.signing)
    return Secrets(own.secret, named, own.headers)
