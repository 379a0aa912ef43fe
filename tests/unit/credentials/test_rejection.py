"""403 responses: an expired or invalid token, or a missing permission."""

from mitm_gateway.credentials.rejection import is_token_rejected
from support.table import table


@table(
    "body",
    [
        '{"message":"Invalid Token"}', '{"message":"The security token included in the request is expired"}',
        '{"error":"invalid_token"}', '{"__type":"ExpiredTokenException"}', '{"code":"TOKEN_EXPIRED"}',
        '{"fault":{"faultstring":"Access Token expired"}}', '{"message":"jwt expired"}', "Session expired",
        '{"message":"The provided API key is invalid"}', "token has been revoked", "Invalid or expired credentials",
        '{"detail":"Token has been blacklisted"}', "Authentication token is stale",
    ],
)  # fmt: skip
def test_a_dead_token_is_recognised(body: str) -> None:
    assert is_token_rejected("", body.encode())


@table(
    "body",
    [
        "", "{}", '{"message":"You do not have access to the model"}', '{"type":"permission_error"}',
        '{"message":"User is not authorized to perform: bedrock:InvokeModel"}', '{"message":"quota exceeded"}',
        '{"message":"max_tokens is invalid"}', '{"message":"token quota of this plan was used up"}', "Forbidden",
        '{"message":"your subscription has expired"}',
    ],
)  # fmt: skip
def test_a_missing_permission_is_not_a_dead_token(body: str) -> None:
    assert not is_token_rejected("", body.encode())


@table(
    ("error_type", "is_rejected"),
    [
        ("ExpiredTokenException", True), ("UnrecognizedClientException:http://aws", True),
        ("InvalidClientTokenId", True), ("AccessDeniedException", False), ("", False),
    ],
)  # fmt: skip
def test_aws_names_the_error_in_a_header(error_type: str, is_rejected: bool) -> None:
    assert is_token_rejected(error_type, b"") is is_rejected
