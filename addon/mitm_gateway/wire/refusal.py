"""Local answers to requests that are not forwarded, in the error form of the API that was asked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# https://docs.anthropic.com/en/api/errors; 421, 502 and 503 have no type of their own there.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    421: "invalid_request_error",
    431: "request_too_large",
    502: "api_error",
    503: "api_error",
}
OPENAI_PATHS = (
    "chat/completions",
    "completions",
    "responses",
    "embeddings",
    "images",
    "audio",
    "moderations",
)
_OPENAI_PATH = re.compile(rf"/(?:.*/)?(?:{'|'.join(OPENAI_PATHS)})(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request answered here: status, what is wrong and what to do. Holds no secret and no text of the client's."""

    status: int
    reason: str
    rule: str | None = None
    retry: bool = False

    @property
    def message(self) -> str:
        """The text that the client shows."""
        rule = f' (rule "{self.rule}")' if self.rule else ""
        return f"mitm-gateway: {self.reason}{rule}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {"content-type": "application/json"}
        if not self.retry:
            headers["x-should-retry"] = "false"
        return headers

    def body(self, path: str) -> bytes:
        """The answer's JSON, in OpenAI's form on OpenAI's paths, else in Anthropic's."""
        kind = ERROR_TYPES.get(self.status, "api_error")
        if _OPENAI_PATH.fullmatch(path.partition("?")[0]):
            answer: dict[str, object] = {
                "error": {"message": self.message, "type": kind, "param": None, "code": None}
            }
        else:
            answer = {"type": "error", "error": {"type": kind, "message": self.message}}
        return json.dumps(answer, ensure_ascii=False).encode()


class Refused(Exception):
    """Carries a refusal to the hook that answers it."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)
