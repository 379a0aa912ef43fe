"""Responses that call a token expired or invalid, in contrast to those that lack a permission."""

import re

# Words of prose and of names such as ExpiredTokenException or invalid_token.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SUBJECTS = frozenset({"token", "credential", "credentials", "jwt", "session", "key"})
_VERDICTS = frozenset({"expired", "invalid", "revoked", "blacklisted", "stale"})
# Words that may stand between the two: "The security token included in the request is expired".
_DISTANCE = 6
# AWS's other names for a token that it does not accept.
_AWS_ERRORS = ("UnrecognizedClient", "InvalidClientTokenId")
MAX_REJECTION_BYTES = 16 * 1024


def is_token_rejected(error_type: str, body: bytes) -> bool:
    """Return whether a 403 reports an expired or invalid token, in its `x-amzn-errortype` or its body."""
    if error_type.startswith(_AWS_ERRORS) or _speaks_of_a_token(error_type):
        return True
    return _speaks_of_a_token(body[:MAX_REJECTION_BYTES].decode(errors="replace"))


def _speaks_of_a_token(text: str) -> bool:
    last: dict[frozenset[str], int] = {}
    for place, found in enumerate(_WORD.finditer(text)):
        for kind, other in ((_SUBJECTS, _VERDICTS), (_VERDICTS, _SUBJECTS)):
            if found[0].lower() in kind:
                last[kind] = place
                if place - last.get(other, -_DISTANCE - 1) <= _DISTANCE:
                    return True
    return False
