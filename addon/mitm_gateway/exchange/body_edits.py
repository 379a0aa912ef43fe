"""A rule's edits of a request body, and the notes about them in the record."""

from collections.abc import Callable
from typing import Any

from ..rules.edits import Beta
from ..rules.schema import Rule
from ..wire.request import RequestHead
from .body_error import BodyError
from .form_body import FormBody
from .headers import drops_token
from .json_body import Body
from .json_edits import BETA_KEYS, edit
from .plan import TOKEN_BETAS, Plan, is_token_beta
from .record import Record


def edited_json(
    plan: Plan, head: RequestHead, body: Body, record: Record, *, is_watched: bool
) -> bytes | None:
    """Return the JSON to send, None if it stays as it is, and note its models. Raises BodyError."""
    drops = may_have_token_betas(body) and drops_token(plan, head)
    edited, sent = body_bytes(plan.rule, body, drops_token=drops)
    record.note_models(plan, body.models)
    if body.model is not None and record.model is None:
        record.model, record.model_sent = body.model, sent
    if edited is body.raw:
        return None
    record.applied = applied_edits(plan.rule, body) if is_watched else None
    return edited


def edited_form(plan: Plan, form: FormBody, record: Record) -> bytes | None:
    """Return the form to send, None if it stays as it is, and note its models."""
    if plan.rule.models is None:
        return None
    sent_for = plan.rule.models.sent_for
    record.note_models(plan, form.models)
    if record.model is None:
        record.model, record.model_sent = form.models[0], sent_for(form.models[0])
    edited = form.renamed(sent_for)
    return None if edited is form.raw else edited


def applied_edits(rule: Rule, body: Body) -> tuple[str, ...]:
    """Describe the edits of a rule that change this body, model names apart. For display only: each edit is tried."""
    tried = {f"remove {path}": _changes(body, remove=(path,)) for path in rule.body.remove}
    tried |= {f"set {path}": _changes(body, set_=((path, value),)) for path, value in rule.body.set_texts}
    tried["edit anthropic_beta"] = rule.beta is not None and _changes(body, betas=rule.beta.edited)
    return tuple(words for words, changes in tried.items() if changes)


def _changes(body: Body, **edits: Any) -> bool:
    try:
        return edit(body, **edits) != body.raw
    except BodyError:
        return True  # possible only after the edits before it, which have been made


def body_bytes(rule: Rule, body: Body, *, drops_token: bool = False) -> tuple[bytes, str | None]:
    """Return the request body to send and the model in it; the same object if nothing is edited.

    With `drops_token` the betas that belong to the client's token are removed, as from the header. Raises BodyError if an
    edit cannot be made.
    """
    sent = rule.models.sent_for(body.model) if rule.models and body.model is not None else body.model
    edited = edit(
        body,
        model=rule.models.sent_for if rule.models else None,
        betas=_beta_edit(rule.beta, drops_token=drops_token),
        needs_betas=rule.beta is not None,
        remove=rule.body.remove,
        set_=rule.body.set_texts,
    )
    return edited, sent


def may_have_token_betas(body: Body) -> bool:
    """Report whether a body may name betas that belong to an OAuth token."""
    return bool(BETA_KEYS & body.keys) and TOKEN_BETAS.encode() in body.raw


def _beta_edit(
    beta: Beta | None, *, drops_token: bool
) -> Callable[[tuple[str, ...]], tuple[str, ...]] | None:
    edited = beta.edited if beta else None
    if not drops_token:
        return edited

    def without_token(names: tuple[str, ...]) -> tuple[str, ...]:
        kept = tuple([name for name in names if not is_token_beta(name)])
        return edited(kept) if edited else kept

    return without_token
