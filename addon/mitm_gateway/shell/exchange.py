"""One request and its answer, step by step: who asks, which rule, the edits, the answer's way back.

Each step is called by one hook and raises `Refused` where the request ends here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from mitmproxy import http

from .. import guard
from ..addresses import Upstream
from ..body import Body, BodyError, scan
from ..decoding import DecodingError, TooLarge, decode, decode_prefix
from ..head import Arrival, RequestHead
from ..headers import Secrets
from ..hints import MAX_BODY, hint
from ..hints import Answer as Answered
from ..matching import Asked, NeedsBody
from ..plan import Pass, Plan, applied_edits, body_bytes, client_key, decide
from ..record import ANSWERED_HERE, Record
from ..redact import Secret
from ..refusals import Refusal, Refused
from ..respond import Answer, to_body, to_head, to_probe
from ..restore import JsonRestorer, SseRestorer
from ..usage import Usage, reader_for
from ..values import CredentialError
from .flows import apply, head_of, mask, mask_backup, mask_echo, pass_on, refuse, set_body, sign
from .handling import Handling, Loaded
from .insides import too_large
from .live import Live
from .replay import is_replay, remember, remember_sent, restore_original, restore_original_model
from .settings import Settings
from .stream import Restorer, Tee

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
    ) -> None:
        self.loaded: Loaded | None = None
        self.settings = Settings()
        self._demo = demo
        self._progressed = progressed
        self._finished = finished
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

    async def open(self, flow: http.HTTPFlow, arrival: Arrival) -> None:
        """Everything that the head alone decides. Raises Refused."""
        if is_replay(flow):
            restore_original(flow)
        if self.loaded is None:
            raise Refused(NO_RULES)
        head = head_of(flow, arrival)
        handling = Handling(self.loaded, head, arrival, Record.opened(head, time.time()), flow)
        self._handlings[flow.id] = handling
        handling.client_keys = tuple(key for key in guard.keys_in(head) if key)
        self._let_in(handling)
        self._check_announced_size(handling)
        if probe := to_probe(self.loaded.ruleset, handling.head):
            self._answer_here(flow, handling, probe)
            return
        outcome = decide(self.loaded.ruleset, handling.head, arrival, demo=self._demo())
        if isinstance(outcome, NeedsBody):
            flow.request.stream = False
            return
        await self._follow(flow, handling, outcome)

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

    async def _follow(self, flow: http.HTTPFlow, handling: Handling, outcome: Plan | Refusal | Pass) -> None:
        match outcome:
            case Refusal():
                raise Refused(outcome)
            case Pass():
                pass_on(flow, handling.head, handling.arrival)
                del self._handlings[flow.id]
                self._passing[flow.id] = flow
            case Plan():
                handling.plan = outcome
                handling.record.plan(outcome, handling.head)
                if outcome.rule.reads_body:
                    flow.request.stream = False
                if answer := to_head(outcome.rule, handling.loaded.ruleset, handling.head):
                    self._answer_here(flow, handling, answer)
                    return
                handling.secrets = await self._secrets(handling, outcome)
                remember(flow, handling.head)
                apply(outcome, handling.head, handling.secrets, flow)
                self._show_state(flow, handling, "waiting")
            case _:
                assert_never(outcome)

    async def _secrets(self, handling: Handling, plan: Plan) -> Secrets:
        """The secrets that a plan needs. Raises Refused: without them the request does not leave."""
        if plan.auth.credential == "client":
            key = client_key(handling.head, plan.auth)
            own = Secret(key) if key else None
        else:
            own = None
        credentials = handling.loaded.credentials
        try:
            async with asyncio.timeout(credentials.patience_s + CREDENTIAL_MARGIN_S):
                named = {name: await credentials.get(name) for name in plan.rule.credential_names}
        except CredentialError as fault:
            raise Refused(Refusal(502, str(fault), plan.rule.name)) from None
        except TimeoutError:
            raise Refused(Refusal(502, "the credential took too long", plan.rule.name)) from None
        name = plan.auth.credential
        if name in named:
            age = time.monotonic() - named[name].read_at
            handling.record.credential_age_s = round(age, 1)
        extra = named[name].headers if name in named else ()
        auth = own or (named[name].secret if name in named and not plan.rule.signs else None)
        signing = named[name].signing if name in named and plan.rule.signs else None
        return Secrets(auth, {key: value.secret for key, value in named.items()}, extra, signing)

    async def read_body(self, flow: http.HTTPFlow) -> None:
        """Everything that needs the request's body, which is complete now. Raises Refused."""
        handling = self._handlings.get(flow.id)
        if handling is None:
            return
        if is_replay(flow):
            restore_original_model(flow)
        content = flow.request.raw_content or b""
        if not handling.reads_body:
            if content:
                set_body(flow, content, edited=False)
            handling.record.bytes_out = len(content)
            return
        body = self._body(flow, handling.head, content)
        if handling.plan is None:
            asked = Asked(body.model if body else None)
            outcome = decide(handling.loaded.ruleset, handling.head, handling.arrival, asked, self._demo())
            if isinstance(outcome, NeedsBody):
                raise AssertionError("a body was read and is still needed")
            await self._follow(flow, handling, outcome)
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
        record = handling.record
        if body is not None:
            try:
                edited, sent = body_bytes(plan.rule, body)
            except BodyError as fault:
                raise Refused(Refusal(400, str(fault), plan.rule.name)) from None
            if edited is not body.raw:
                record.bytes_came = len(content)
                record.applied = applied_edits(plan.rule, body) if self._live.is_watched else None
                content = edited
                set_body(flow, content, edited=True)
            if body.model is not None and record.model is None:
                record.model, record.model_sent = body.model, sent
        if content:
            set_body(flow, content, edited=False)
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
        self._note_rejection(flow.response, handling, handling.plan)
        self._hide_from_pages(flow.response, handling, handling.plan)
        if flow.response.status_code != 101:
            handling.tee = self._tee(flow, handling)
            flow.response.stream = handling.tee.feed

    def _note_rejection(self, response: http.Response, handling: Handling, plan: Plan) -> None:
        """After a 401, has the value dropped, and the client try again where that may bring a fresh one."""
        if response.status_code != 401:
            return
        credentials = handling.loaded.credentials
        fresh = [
            credentials.reject(name, secret)
            for name, secret in handling.secrets.named.items()
            if name == plan.auth.credential
        ]
        if any(fresh):
            response.headers["x-should-retry"] = "true"

    def _hide_from_pages(self, response: http.Response, handling: Handling, plan: Plan) -> None:
        origin = handling.head.get("origin")
        listed = origin is not None and guard.listed_origin(origin, self.settings.policy)
        if plan.puts_in_credential and not listed:
            response.headers.fields = tuple(
                (name, value)
                for name, value in response.headers.fields
                if not name.lower().startswith(b"access-control-")
            )

    def _tee(self, flow: http.HTTPFlow, handling: Handling) -> Tee:
        response = flow.response
        assert response is not None
        restorer = _restorer(flow, handling)
        if restorer is not None:
            # The name's length differs, so the answer's length is not known before its end.
            response.headers.pop("content-length", None)
            if flow.request.http_version == "HTTP/1.1":
                response.headers["transfer-encoding"] = "chunked"
        encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
        usage = None if encoded else reader_for(response.headers.get("content-type", ""))
        return Tee(self.settings.capture, restorer, usage, lambda: self._live.changed(flow))

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
        if handling.plan is not None:
            remember_sent(flow, handling.record.model, handling.record.model_sent)
        self._finished(flow, self._complete(flow, handling))

    def _complete(self, flow: http.HTTPFlow, handling: Handling) -> Record:
        tee, response = handling.tee, flow.response
        first = tee.first_chunk_at if tee else None
        record = handling.record
        record.status = response.status_code if response else None
        record.total_s = time.monotonic() - handling.started
        record.first_event_s = first - handling.started if first is not None else None
        record.usage = _usage(tee, response)
        record.bytes_in = tee.size if tee else None
        record.error = flow.error.msg if flow.error else None
        if tee and tee.is_cut:
            record.notes = (*record.notes, "the rest is not kept")
        record.hint = _hint(handling, response)
        return record

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

    def _answer_here(self, flow: http.HTTPFlow, handling: Handling, answer: Answer) -> None:
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


def _restorer(flow: http.HTTPFlow, handling: Handling) -> Restorer | None:
    """What puts the client's model name back, or None where there is nothing to put back."""
    plan, response, model = handling.plan, flow.response, handling.record.model
    if (
        plan is None
        or response is None
        or model is None
        or not plan.rule.models
        or not plan.rule.models.restore
    ):
        return None
    if not 200 <= response.status_code < 300 or flow.request.method == "HEAD" or response.status_code == 204:
        return None
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        handling.record.notes = ("compressed: model not restored",)
        return None
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SseRestorer(model)
    return JsonRestorer(model) if kind == "application/json" or kind.endswith("+json") else None


def _usage(tee: Tee | None, response: http.Response | None) -> Usage | None:
    if tee is None or response is None:
        return None
    if usage := tee.usage():
        return usage
    reader = reader_for(response.headers.get("content-type", ""))
    reader.feed(decode_prefix(tee.kept(), response.headers.get("content-encoding", ""), 8 << 20))
    return reader.finish()


def _hint(handling: Handling, response: http.Response | None) -> str | None:
    """What to put into the rule, where the upstream's answer tells it."""
    plan, tee = handling.plan, handling.tee
    if plan is None or tee is None or response is None:
        return None
    if 200 <= response.status_code < 300:
        return None
    body = decode_prefix(tee.kept()[:MAX_BODY], response.headers.get("content-encoding", ""), MAX_BODY)
    return hint(
        Answered(
            status=response.status_code,
            content_type=response.headers.get("content-type", ""),
            body=body,
            path=handling.head.path,
            location=response.headers.get("location", ""),
            scheme=plan.auth.scheme,
            credential=plan.auth.credential if plan.auth.credential != "client" else None,
            model=handling.record.model_sent,
        )
    )
