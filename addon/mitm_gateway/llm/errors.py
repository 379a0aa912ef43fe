"""Refusals as error responses, in the form of the API that the client asked."""

import json
from typing import assert_never

from ..wire.refusal import Refusal
from .apis import Form

# https://docs.anthropic.com/en/api/errors; 421, 502 and 503 have no type there.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    421: "invalid_request_error",
    431: "request_too_large",
}
# https://cloud.google.com/apis/design/errors
_GEMINI_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    424: "FAILED_PRECONDITION",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_BEDROCK_TYPES = {
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    424: "ModelErrorException",
    502: "InternalServerException",
    503: "ServiceUnavailableException",
}


def error_headers(refusal: Refusal, form: Form) -> dict[str, str]:
    """Return the headers of the response."""
    headers = {"content-type": "application/json"}
    if form == "bedrock":
        headers["x-amzn-errortype"] = _BEDROCK_TYPES.get(refusal.status, "ValidationException")
    if not refusal.retry:
        headers["x-should-retry"] = "false"
    return headers


def error_body(refusal: Refusal, form: Form) -> bytes:
    """Return the JSON of the response."""
    return json.dumps(_error(refusal, form), ensure_ascii=False).encode()


def _error(refusal: Refusal, form: Form) -> dict[str, object]:
    kind, message = ERROR_TYPES.get(refusal.status, "api_error"), refusal.message
    match form:
        case "anthropic":
            return {"type": "error", "error": {"type": kind, "message": message}}
        case "openai":
            return {"error": {"message": message, "type": kind, "param": None, "code": None}}
        case "gemini":
            status = _GEMINI_STATUSES.get(refusal.status, "INVALID_ARGUMENT")
            return {"error": {"code": refusal.status, "message": message, "status": status}}
        case "bedrock":
            return {"message": message}
        case _:
            assert_never(form)
