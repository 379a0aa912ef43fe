"""One request and its response as a state machine without I/O: every decision, in the order in which it is made.

The caller reports what has arrived and performs the step that it gets back. A request is admitted, matched with a
rule and planned; its body is edited; its credentials are requested; the destination is set and the secret last.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never

from ..credentials.clock import elapsed_s
from ..credentials.value import Value
from ..llm.session import session_in_bytes
from ..rules.ruleset import DependsOnModel
from ..text.redact import Secret
from ..text.turns import Turns
from ..wire.addresses import Upstream
from ..wire.content_encoding import DecodingError
from ..wire.refusal import Refusal
from ..wire.request import Arrival, Fields, RequestHead
from . import guard
from .body_edits import edited_form, edited_json
from .body_error import BodyError
from .client_keys import every_key_in, key_to_move
from .config import Config
from .form_body import FormBody
from .front_page import Greeting, greet
from .headers import Secrets, outgoing_fields, signed_fields
from .json_body import Body
from .local_answers import LocalAnswer, answer_to_body, answer_to_head, answer_to_probe
from .masked_head import MaskedHead
from .plan import Pass, Plan, decide
from .query import edited_target
from .record import ANSWERED_HERE, REPLAYED, Ending, Record
from .request_body import announces_more_than, is_dialogue, read_in_turns
from .response_plan import (
    SWITCHING,
    ResponseHead,
    ResponsePlan,
    plan_response,
    rejected_by_body,
    summarize,
    tee_of_recording,
)
from .steps import (
    AnswerFromRecording,
    Forward,
    NeedBody,
    NeedCredentials,
    NeedTurn,
    Step,
    too_large,
    unreadable,
)
from .tee import Tee
from .web_pages import fields_for_pages, page_headers, preflight
from .websocket import MessageUsage, refuse_socket, without_other_upgrade

_NO_HEAD = RequestHead("", "", "", 0, "", ())


class Exchange:
    """One request and its response, from the request head to the record."""

    def __init__(
        self,
        config: Config,
        arrival: Arrival,
        now: Callable[[], float] = elapsed_s,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.arrival = arrival
        self.head = self._arrived = _NO_HEAD
        self.plan: Plan | None = None
        self.record = Record(wall())
        self.all_keys: tuple[str, ...] = ()
        """Every key that must not be shown: the client's, and the gateway's once they are obtained."""
        self.is_held = False
        """The caller has performed `NeedBody`: the body may be reported."""
        self.is_released = False
        """The caller has performed `Forward` or `Pass`; before that nothing may leave."""
        self.is_answered = False
        """The client gets a local answer."""
        self._now = now
        self._started = now()
        self._secrets: Secrets | None = None
        self._sent: MaskedHead | None = None
        self._has_body = False
        self._edited: bytes | None = None
        self._messages: MessageUsage | None = None
        self._response: ResponseHead | None = None
        self.tee: Tee | None = None

    # ---- the request ----

    def on_request_head(self, head: RequestHead) -> Step:
        """Admit the request, then decide as far as its head allows."""
        self.head = self._arrived = head
        self.all_keys = every_key_in(head)
        if refusal := self._check_admission(head):
            return self.refuse(refusal)
        if head.verb in ("OPTIONS", "HEAD") and (answer := self._answer_without_key(head)):
            return self._answer(answer)
        if refusal := guard.check_client_key(head, self.arrival, self.config.policy):
            return self.refuse(refusal)
        self.head = guard.without_proxy_keys(head, self.config.policy)
        if announces_more_than(self.config.body_limit, head) and self._knows_host(head):
            return self.refuse(too_large(self.config.body_limit))
        if "upgrade" in head.values:
            if refusal := refuse_socket(self.config.ruleset, self.head):
                return self.refuse(refusal)
            self.head = without_other_upgrade(self.head)
        return self._match() or self._proceed()

    def _check_admission(self, head: RequestHead) -> Refusal | None:
        if self.arrival.replay:
            return guard.check_replay(head, self.config.ruleset.knows_host)
        return guard.check_admission(head, self.arrival, self.config.policy, self.config.ruleset.knows_host)

    def _answer_without_key(self, head: RequestHead) -> LocalAnswer | None:
        if self.arrival.mode == "reverse" or self._knows_host(head):
            return preflight(head, self.config.policy) or answer_to_probe(self.config.ruleset, head)
        return None

    def _knows_host(self, head: RequestHead) -> bool:
        return self.config.ruleset.knows_host(head.host, head.port)

    def _match(self, models: tuple[str, ...] | None = None) -> Step | None:
        """Find the rule and plan its changes; return None if the request needs its credentials next."""
        config = self.config
        outcome = decide(
            config.ruleset, self.head, self.arrival, models, config.demo, is_sent=not config.has_recording
        )
        match outcome:
            case Plan():
                self.plan = outcome
                self.record.model, self.record.model_sent = outcome.model, outcome.model_sent
                answer = answer_to_head(outcome.rule, self.config.ruleset, self.head)
                return self._answer(answer) if answer else None
            case DependsOnModel():
                if self._has_body:
                    raise AssertionError("a body was read and is still needed")
                return self._need_body()
            case Refusal():
                return self.refuse(outcome)
            case Pass():
                return outcome
            case Greeting():
                return self._greet()
            case _:
                assert_never(outcome)

    def _need_body(self) -> NeedBody:
        return NeedBody(self._mask_head(None, self.head.target, self.head.fields))

    def on_request_body(self, content: bytes) -> Step:
        """Decide what depends on the body, and edit it."""
        self._has_body = True
        self.record.bytes_out = len(content)
        if self.plan is not None and not self.plan.rule.reads_body:  # it leaves as it is
            self.record.session = session_in_bytes(content)
            return self._proceed() if self.config.has_recording else Forward()
        return self.on_turn(NeedTurn(self._decide_by_body(content)))

    def on_turn(self, turn: NeedTurn) -> Step:
        """Go on reading the body; a large one takes several turns."""
        try:
            next(turn.rest)
        except StopIteration as end:
            step: Step = end.value
            return step
        except (DecodingError, BodyError) as fault:
            return self.refuse(unreadable(fault, self.config.body_limit))
        return turn

    def _decide_by_body(self, content: bytes) -> Turns[Step]:
        """Find the rule if it depends on a model, answer here if the rule does so, and edit the body."""
        body = yield from read_in_turns(self.head, content, self.config.body_limit)
        self.record.session = body.session if isinstance(body, Body) else None
        if self.plan is None and (step := self._match(body.models if body else ())):
            return step
        assert self.plan is not None
        if answer := (
            yield from answer_to_body(self.plan.rule, self.head, body.raw if isinstance(body, Body) else b"")
        ):
            return self._answer(answer)
        if body is not None:
            self._edit_body(self.plan, body, content)
        if self._secrets is None:  # the body chose the rule, so its credentials are still to come
            return self._proceed()
        return Forward(body=self._edited)

    def _edit_body(self, plan: Plan, body: Body | FormBody, content: bytes) -> None:
        record = self.record
        if isinstance(body, Body):
            edited = edited_json(plan, self.head, body, record, is_watched=self.config.is_watched)
        else:
            edited = edited_form(plan, body, record)
        if edited is not None:
            self._edited = edited
            record.bytes_received, record.bytes_out = len(content), len(edited)

    def _proceed(self) -> Step:
        """Request the credentials of the plan; with a recording there is nothing to send them with."""
        assert self.plan is not None
        if self.config.has_recording:
            return AnswerFromRecording(self._edited) if self._has_body else self._need_body()
        names = self.plan.rule.credential_names
        return NeedCredentials(names) if names else self.on_credentials({})

    def on_credentials(self, values: Mapping[str, Value]) -> Step:
        """Build the head: the destination first, the secret last."""
        plan = self.plan
        assert plan is not None
        self._secrets = secrets = self._gather_secrets(plan, values)
        self.all_keys = (*secrets.values, *self.all_keys)
        target = edited_target(plan.target, plan.rule.query, secrets.named)
        head = self._mask_head(plan.destination, target, outgoing_fields(plan, self.head, secrets))
        if plan.rule.reads_body and not self._has_body:
            return NeedBody(head)
        return Forward(head, self._edited)

    def _gather_secrets(self, plan: Plan, values: Mapping[str, Value]) -> Secrets:
        """Return the secrets that the request takes along; a key of the client's may be one."""
        named = {name: value.secret for name, value in values.items()}
        if plan.auth.credential == "client":
            key = key_to_move(self.head, plan.auth.prefer)
            return Secrets(Secret(key) if key else None, named)
        if (own := values.get(plan.auth.credential or "")) is None:
            return Secrets(None, named)
        self.record.note_credential(own, plan, self._now())
        if plan.rule.signs:
            return Secrets(None, named, own.headers, own.signing)
        return Secrets(own.secret, named, own.headers)

    def _mask_head(self, destination: Upstream | None, target: str, fields: Fields) -> MaskedHead:
        """Return the head with its secrets masked, and keep both for `with_secrets`."""
        self._sent = MaskedHead(destination, target, fields, self.all_keys, reveal=self.config.reveal)
        return self._sent

    def with_secrets(self, target: str, fields: Fields) -> tuple[str, Fields]:
        """Return target and fields with their secrets, as they are written to the upstream."""
        return self._sent.with_secrets(target, fields) if self._sent else (target, fields)

    @property
    def signs(self) -> bool:
        """The request leaves with a signature over its final bytes."""
        return self._secrets is not None and self._secrets.signing is not None

    def sign(self, method: str, target: str, fields: Fields, body: bytes) -> Fields:
        """Return the fields with a signature over the final request, masked."""
        plan, keys = self.plan, self._secrets.signing if self._secrets else None
        assert plan is not None
        assert keys is not None
        target, fields = self.with_secrets(target, fields)
        result = signed_fields(plan, self.head, method, target, fields, body, keys)
        return self._mask_head(plan.destination, target, result).fields

    # ---- state that others read and set ----

    @property
    def hidden(self) -> tuple[str, ...]:
        """The keys that are masked where the upstream echoes them."""
        return () if self.config.reveal else self.all_keys

    @property
    def is_passing(self) -> bool:
        """No rule takes the request, and it has been released."""
        return self.is_released and self.plan is None

    @property
    def takes_body(self) -> bool:
        """The body is to be reported: the step for the head has been performed, and a rule may take the request."""
        return (self.is_held or self.is_released) and not self.is_answered and not self.streams_body

    @property
    def streams_body(self) -> bool:
        """The body is forwarded while it arrives: no rule takes the request, or the upstream answers before its end."""
        if self.plan is None or not self.is_released:
            return self.is_passing
        rule = self.plan.rule
        return not (rule.reads_body or rule.signs or self._has_body) and is_dialogue(self.head)

    def withhold(self) -> None:
        """Let nothing leave: the caller answers locally."""
        self.is_released, self.is_answered = False, True

    def allows(self, destination: Upstream) -> bool:
        """Return whether a request may go there: where a rule takes it, to the rule's upstream only."""
        if self.plan is None:
            return True
        ours = self.plan.destination
        return (ours.scheme, ours.host, ours.port) == (destination.scheme, destination.host, destination.port)

    # ---- local answers ----

    @property
    def page_headers(self) -> dict[str, str]:
        """The headers that let the page of a listed origin read a local answer."""
        return page_headers(self.head, self.config.policy)

    def refuse(self, refusal: Refusal) -> Refusal:
        """Note that the request ends here, and return the refusal with its rule's name."""
        rule = self.plan.rule.name if self.plan else None
        refusal = replace(refusal, rule=refusal.rule or rule)
        self.is_answered = True
        self.record.refusal = refusal.reason
        self.record.rule = self.record.rule or refusal.rule
        return refusal

    def _answer(self, answer: LocalAnswer) -> LocalAnswer:
        self.is_answered = True
        self.record.notes = (answer.note, ANSWERED_HERE) if answer.note else (ANSWERED_HERE,)
        return answer

    def _greet(self) -> LocalAnswer:
        config, needs_key = self.config, self.config.policy.client_keys is not None
        return self._answer(
            greet(config.ruleset, self.head, self.arrival, config.variables, needs_key=needs_key)
        )

    def on_recorded_response(self, fields: Fields, body: bytes) -> Fields:
        """Note the recorded response that answers the request; return its fields for this client."""
        assert self.plan is not None
        self.is_answered = True
        self.record.notes = (REPLAYED,)
        self.tee = tee_of_recording(ResponseHead(200, fields), body)
        return fields_for_pages(fields, self.plan, self.head, self.config.policy)

    # ---- the response ----

    def on_response_head(self, head: ResponseHead) -> ResponsePlan | None:
        """Plan the way back; None where the response is a local answer."""
        if self.is_passing and head.status != SWITCHING:
            self.tee = Tee(self.config.capture, None, None)
            return ResponsePlan(head.fields, head.reason, self.tee)
        if self.is_answered or self.plan is None or self._secrets is None:
            return None
        plan = plan_response(self.plan, self.head, self._secrets, self.record, head, self.config, self.hidden)
        self.tee = plan.tee
        return plan

    def on_message(self, content: bytes, *, from_client: bool) -> None:
        """Count a message of a WebSocket and the tokens that it reports."""
        if from_client:
            self.record.bytes_out = (self.record.bytes_out or 0) + len(content)
        elif not self.is_passing:
            self._messages = self._messages or MessageUsage()
            self._messages.feed(content)

    def on_end(
        self, response: ResponseHead | None, error: str | None = None, ending: Ending = "complete"
    ) -> None:
        """Note the end of the flow, successful or not; `complete` may follow later."""
        self._response, self.record.error, self.record.ending = response, error, ending
        self.record.total_s = self._now() - self._started

    def rejected_credential(self) -> tuple[str, Secret] | None:
        """Return the credential whose token the body of a 403 calls expired or invalid."""
        response = self._response
        if response is None or response.status != 403 or not (self.plan and self._secrets and self.tee):
            return None
        return rejected_by_body(self.plan, self._secrets, self.tee, response)

    def complete(self) -> Record:
        """Complete the record of a flow that has ended, and release the copy of its response."""
        self._describe()
        record, tee = self.record, self.tee
        if tee is not None and tee.first_chunk_at is not None:
            record.first_event_s = tee.first_chunk_at - self._started
        summarize(record, self.plan, self.head, tee, self._response)
        if tee is not None:
            tee.close()
        if self._messages:
            record.bytes_in, record.usage = self._messages.size, self._messages.finish()
        record.hide(self.hidden)
        return record

    def _describe(self) -> None:
        """Note in the record what follows from the request's head and the plan."""
        self.record.note_head(self._arrived)
        if self.plan is not None:
            self.record.note_plan(self.plan, self.head)

    @property
    def silence_s(self) -> float:
        """Seconds since the last part of the response arrived, or since the request if none has."""
        last = self.tee.last_chunk_at if self.tee else None
        return self._now() - (self._started if last is None else last)

    def progress(self, state: str, status: int | None) -> Record:
        """Return the record as it stands before the end."""
        self._describe()
        bytes_in = self.tee.size if self.tee else None
        record = replace(self.record, status=status, bytes_in=bytes_in, notes=(*self.record.notes, state))
        record.hide(self.hidden)
        return record
