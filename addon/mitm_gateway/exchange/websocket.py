"""WebSockets: which upgrades are forwarded, which are refused, and the token counts in their messages."""

from dataclasses import replace

from ..llm.usage import MAX_JSON_BYTES, Usage, read_json
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..wire.refusal import Refusal
from ..wire.request import RequestHead
from .headers import without_nominations

_FIELDS = (b"upgrade", b"http2-settings")
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens",
           "cache_creation_long_tokens")  # fmt: skip

# The names of the objects with counts, in the APIs that have WebSockets.
_MARKS = (b'"usage"', b'"usageMetadata"')

UNREADABLE_SOCKET = "this rule reads bodies, and messages of a WebSocket are not edited; use HTTP"


def is_websocket(head: RequestHead) -> bool:
    """Return whether a request asks for a WebSocket, in the only version that mitmproxy speaks."""
    return _asks_for_socket(head) and head.method == "GET" and head.all("sec-websocket-version") == ("13",)


def _asks_for_socket(head: RequestHead) -> bool:
    return [value.strip().lower() for value in head.all("upgrade")] == ["websocket"]


def without_other_upgrade(head: RequestHead) -> RequestHead:
    """Return the head without a request for any other protocol: the connection would become a raw pipe."""
    if not head.all("upgrade") or is_websocket(head):
        return head
    fields = tuple(item for item in head.fields if item[0].lower() not in _FIELDS)
    return replace(head, fields=without_nominations(fields, ("upgrade", "http2-settings")))


def refuse_socket(ruleset: RuleSet, head: RequestHead) -> Refusal | None:
    """Return the refusal of a WebSocket, of any version, whose messages a rule would have to read.

    Clients such as Codex then use HTTP. The model could be in any message, so no such rule is passed over.
    """
    if not _asks_for_socket(head):
        return None
    for rule in ruleset.covering(head):
        if reads_messages(rule):
            return Refusal(426, UNREADABLE_SOCKET, rule.name)
        if rule.match.model is None:
            return None
    return None


def reads_messages(rule: Rule) -> bool:
    """Report whether a rule would have to read the messages of a WebSocket."""
    return bool(rule.models or rule.beta or rule.body.remove or rule.body.set or rule.match.model)


class MessageUsage:
    """Sums the bytes and token counts of the messages that an upstream sends: each response reports its own counts."""

    def __init__(self) -> None:
        self.size = 0
        self._total: Usage | None = None

    def feed(self, message: bytes) -> None:
        """Add a message; only those with counts are parsed."""
        self.size += len(message)
        if not any(mark in message for mark in _MARKS) or len(message) > MAX_JSON_BYTES:
            return
        found = Usage().updated(read_json(message))
        total = self._total or Usage()
        changes = {name: value for name, value in found._asdict().items() if value is not None}
        for name in _COUNTS:
            if (before := getattr(total, name)) is not None:
                changes[name] = before + changes.get(name, 0)
        self._total = total._replace(**changes)

    def finish(self) -> Usage | None:
        """Return the sum, or None without any count."""
        return self._total
