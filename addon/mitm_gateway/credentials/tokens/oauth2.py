"""OAuth 2.0 client credentials (RFC 6749, 4.4): an access token for an id and a secret."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from .http_client import TokenError, ask


def client_credentials(
    token_url: str,
    client_id: str,
    secret: str,
    *,
    in_body: bool = False,
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the helper's JSON; the secret is sent as HTTP Basic, or in the body with `in_body`."""
    form = {"grant_type": "client_credentials", **(parameters or {})}
    headers = {}
    if in_body:
        form |= {"client_id": client_id, "client_secret": secret}
    else:
        # RFC 6749, 2.3.1: both are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    answer = ask(token_url, headers=headers, form=form)
    token = answer.text("access_token")
    if answer.status != 200 or not token:
        # "error" is a word of a fixed list; "error_description" is free text and may quote the request.
        raise TokenError(
            f"the token server answered {answer.text('error') or 'without a token'} (status {answer.status})"
        )
    result: dict[str, Any] = {"token": token}
    life_s = answer.seconds("expires_in")
    if life_s is not None:
        result["expires_in"] = int(life_s)
    return result
