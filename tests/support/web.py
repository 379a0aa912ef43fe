"""mitmweb's web interface for scripts."""

from __future__ import annotations

from typing import Any

import httpx

from support.processes import WEB_PASSWORD, Mitmdump


class Web:
    """A session with mitmweb, logged in where the version asks for it."""

    def __init__(self, proxy: Mitmdump) -> None:
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{proxy.web_port}",
            trust_env=False,
            follow_redirects=True,
            limits=httpx.Limits(
                max_keepalive_connections=0
            ),  # nothing stays open, so nothing has to be closed
        )
        self._client.get("/", params={"token": WEB_PASSWORD})
        self._client.get("/updates")  # where mitmproxy 12 gives the token that changes need
        names = [name for name in self._client.cookies if "xsrf" in name]
        self._headers = {"X-XSRFToken": self._client.cookies[names[0]]} if names else {}

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def post(self, path: str) -> httpx.Response:
        return self._client.post(path, headers=self._headers)

    def put(self, path: str, changes: dict[str, Any]) -> httpx.Response:
        """Edit a flow."""
        return self._client.put(path, json=changes, headers=self._headers)

    def set_option(self, name: str, value: Any) -> httpx.Response:
        """Set an option as the options dialog does."""
        return self.put("/options", {name: value})
