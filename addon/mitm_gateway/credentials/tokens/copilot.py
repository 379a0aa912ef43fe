"""Exchange of a GitHub token for a Copilot token, and GitHub's device flow to obtain the former.

GitHub does not document it: taken from the code of vscode-copilot-chat (2026-03-29) and copilot-api (2025-10-05).
"""

from collections.abc import Callable
from typing import Any

from .http_client import Answer, TokenError, ask

API_URL = "https://api.github.com"
GITHUB_URL = "https://github.com"
# The client id of Copilot's editors.
_CLIENT_ID = "Iv1.b507a08c87ecfe98"
_SCOPE = "read:user"
_EDITOR = {
    "Editor-Version": "vscode/1.104.0",
    "Editor-Plugin-Version": "copilot-chat/0.31.0",
    "User-Agent": "GitHubCopilotChat/0.31.0",
    "X-GitHub-Api-Version": "2025-04-01",
}
_REFUSED = {
    "ghp_": "a classic personal access token",
    "github_pat_": "a fine-grained personal access token",
    "ghs_": "an Actions or app installation token",
}
_SLOW_DOWN_S = 5.0


def check_github_token(token: str) -> None:
    """Raise TokenError for kinds of tokens that Copilot refuses."""
    for prefix, kind in _REFUSED.items():
        if token.startswith(prefix):
            raise TokenError(
                f"Copilot does not accept {kind} ({prefix}…); sign in with "
                "`mitm-gateway token github-copilot --login`"
            )


def exchange_token(github_token: str, now: float, api_url: str) -> dict[str, Any]:
    """Return the helper's JSON: Copilot token, time of the next exchange, and the API host for the token."""
    check_github_token(github_token)
    answer = ask(
        f"{api_url}/copilot_internal/v2/token", headers={"Authorization": f"token {github_token}", **_EDITOR}
    )
    token = answer.text("token")
    if answer.status != 200 or not token:
        raise TokenError(_refusal(answer))
    result: dict[str, Any] = {"token": token, "expires_at": _expiry(answer, now)}
    endpoints = answer.data.get("endpoints")
    if isinstance(endpoints, dict) and isinstance(endpoints.get("api"), str):
        result["api"] = endpoints["api"]
    return result


def _expiry(answer: Answer, now: float) -> int:
    """Return the time of the next exchange: `refresh_in` is earlier than `expires_at`, as clocks may differ."""
    refresh_in_s, expires_at = answer.seconds("refresh_in"), answer.seconds("expires_at")
    moments = [now + refresh_in_s] if refresh_in_s is not None else []
    moments += [expires_at] if expires_at is not None else []
    return int(min(moments, default=now + 25 * 60))


def _refusal(answer: Answer) -> str:
    details = answer.data.get("error_details")
    reason = details.get("message") if isinstance(details, dict) else answer.text("message")
    text = f"GitHub returned no Copilot token (status {answer.status})"
    if isinstance(reason, str) and reason.isprintable() and reason:
        text += f": {reason[:200]}"
    if answer.status in (401, 403, 404):
        text += "; does this account have Copilot? `mitm-gateway token github-copilot --login` signs in to another"
    return text


def device_flow(say: Callable[[str], None], sleep: Callable[[float], None], github_url: str) -> str:
    """Return a GitHub token after the user has entered a code in a browser; `say` shows the code."""
    started = ask(
        f"{github_url}/login/device/code", form={"client_id": _CLIENT_ID, "scope": _SCOPE}, headers=_EDITOR
    )
    code, place = started.text("device_code"), started.text("verification_uri")
    if not code or not place:
        raise TokenError(f"GitHub did not start a sign-in (status {started.status})")
    say(f"Open {place} and enter the code {started.text('user_code')}")
    pause_s, left_s = _seconds(started, "interval", 5.0), _seconds(started, "expires_in", 900.0)
    while left_s > 0:
        sleep(pause_s)
        left_s -= pause_s
        answer = ask(
            f"{github_url}/login/oauth/access_token",
            form={
                "client_id": _CLIENT_ID,
                "device_code": code,
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            },
            headers=_EDITOR,
        )
        if token := answer.text("access_token"):
            return token
        match answer.text("error"):
            case "authorization_pending":
                say(f"waiting; the code is valid for another {max(1, round(left_s / 60))} min")
            case "slow_down":
                pause_s += _SLOW_DOWN_S
            case "expired_token":
                break
            case "access_denied":
                raise TokenError("the sign-in was declined in the browser")
            case error:
                raise TokenError(f"GitHub ended the sign-in (status {answer.status}, {error or 'no reason'})")
    raise TokenError("the code expired before it was entered; start again")


def _seconds(answer: Answer, key: str, default: float) -> float:
    value = answer.seconds(key)
    return value if value is not None and value > 0 else default
