"""A Google access token from the application default credentials, through google-auth (extra `google`)."""

import datetime
from typing import Any

from ...rules.extras import installing
from .http_client import TokenError

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


def access_token(scope: str) -> dict[str, Any]:
    """Return the helper's JSON. Raises TokenError."""
    try:
        import google.auth
        import google.auth.exceptions
        from google.auth.transport.requests import Request

        from ...wire.no_netrc import NoNetrcSession
    except ImportError:
        raise TokenError(f"needs google-auth; {installing('google')}") from None
    try:
        credentials, _ = google.auth.default(scopes=[scope])
        credentials.refresh(Request(NoNetrcSession()))
    except google.auth.exceptions.DefaultCredentialsError:
        raise TokenError(
            "no application default credentials; run `gcloud auth application-default login`, "
            "or point GOOGLE_APPLICATION_CREDENTIALS at a key file"
        ) from None
    except google.auth.exceptions.GoogleAuthError as fault:
        raise TokenError(f"Google returned no token ({type(fault).__name__})") from None
    result: dict[str, Any] = {"token": credentials.token}
    if credentials.expiry is not None:
        result["expires_at"] = int(credentials.expiry.replace(tzinfo=datetime.UTC).timestamp())
    return result
