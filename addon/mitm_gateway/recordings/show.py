"""A recorded request as text: its facts, and the conversation as the LLM view shows it."""

from collections.abc import Iterator

from ..llm import conversation
from ..text.printable import one_line
from .listing import cost, models, token_counts, when
from .recorded import Part, Recorded

# Nothing is left out of a body that a recording can contain.
_LIMIT = 256 << 20


def whole(recorded: Recorded, width: int | None) -> str:
    """Return the whole request and its answer, with lines of at most this width."""
    return "\n\n".join(["\n".join(facts(recorded)), *_parts(recorded, width)])


def _parts(recorded: Recorded, width: int | None) -> Iterator[str]:
    yield "==== request ===="
    yield from body_sections(recorded, recorded.request, width)
    yield "==== answer ===="
    yield from answer(recorded, width)


def answer(recorded: Recorded, width: int | None = conversation.WIDTH) -> list[str]:
    """Return the sections of the answer: of the response, or of a WebSocket's messages."""
    if recorded.messages:
        return list(_messages(recorded, width))
    if recorded.response is None:
        return [f"no answer: {recorded.error or 'the recording contains none'}"]
    return body_sections(recorded, recorded.response, width)


def facts(recorded: Recorded) -> Iterator[str]:
    """Yield the lines about a request, apart from its conversation."""
    entry = recorded.entry
    yield _line(recorded, f"{recorded.number}. {recorded.head.method} {recorded.url}")
    named = (
        ("time", when(recorded)),
        ("session", " agent ".join(filter(None, (recorded.session, str(entry.get("agent") or ""))))),
        ("rule", entry.get("rule")),
        ("upstream", entry.get("upstream")),
        ("auth", entry.get("auth")),
        ("model", models(entry)),
        ("tokens", token_counts(entry)),
        ("cost", cost(entry)),
        ("status", f"{recorded.status or 'none'}, {entry.get('outcome') or 'unknown'}"),
        ("refusal", entry.get("refusal")),
        ("error", recorded.error),
        ("hint", entry.get("hint")),
    )
    yield from (
        _line(recorded, f"{name + ':':<10}{value}") for name, value in named if value not in (None, "", "-")
    )


def _line(recorded: Recorded, text: str) -> str:
    return one_line(recorded.masks.text(text))


def body_sections(recorded: Recorded, part: Part, width: int | None = conversation.WIDTH) -> list[str]:
    """Return the sections of a body, printable and without secrets."""
    if not part.body:
        return ["(no body)"]
    found = conversation.sections(part.body, part.content_type, lambda: 0.0, _LIMIT)
    return [conversation.for_terminal(recorded.masks.text(section), width) for section in found]


def _messages(recorded: Recorded, width: int | None) -> Iterator[str]:
    for message in recorded.messages:
        sender = "client" if message.from_client else "server"
        body = "\n".join(body_sections(recorded, Part((), message.content), width))
        yield f"{sender}:\n{body}"
