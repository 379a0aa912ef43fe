"""The body of a request, read for the models that it names."""

from ..llm.body_kind import media_type
from ..llm.calls import call_of
from ..text.turns import Turns, finish
from ..wire import aws_eventstream
from ..wire.content_encoding import TooLarge, decode_in_turns
from ..wire.request import RequestHead
from .form_body import FormBody, read_form
from .json_body import Body, is_json, scan_in_turns

_DIALOGUES = ("application/grpc", aws_eventstream.CONTENT_TYPE)


def read_request_body(head: RequestHead, content: bytes, limit: int) -> Body | FormBody | None:
    """Return JSON or a form with models; None for any other body. Raises BodyError, DecodingError and TooLarge."""
    return finish(read_in_turns(head, content, limit))


def read_in_turns(head: RequestHead, content: bytes, limit: int) -> Turns[Body | FormBody | None]:
    """Read a request body; a large one takes several turns."""
    if not content:
        return None
    if len(content) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    api = call_of(head).api
    if api.takes_files:
        return None
    raw = yield from decode_in_turns(content, head.get("content-encoding") or "", limit)
    content_type = head.get("content-type") or ""
    if is_json(content_type, raw):
        return (yield from scan_in_turns(raw, api))
    return read_form(raw, content_type, api)


def is_dialogue(head: RequestHead) -> bool:
    """Return whether the peers of a request may talk in turns: calls of gRPC, and two-way streams of AWS."""
    return media_type(head.get("content-type") or "").startswith(_DIALOGUES)


def announces_more_than(limit: int, head: RequestHead) -> bool:
    """Return whether a request says that its body is larger than this many bytes."""
    announced = head.get("content-length")
    return bool(announced and announced.isdecimal() and int(announced) > limit)
