"""mitmweb's web interface for scripts."""

from collections.abc import Callable
from typing import Any

import httpx

from support.mitmdump import WEB_PASSWORD, Mitmdump
from support.waiting import wait_until


class Web:
    """A session with mitmweb, logged in where the version asks for it."""

    def __init__(self, proxy: Mitmdump) -> None:
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{proxy.web_port}",
            trust_env=False,
            verify=False,  # or it loads all certificates of this machine, for a page without TLS
            follow_redirects=True,
            # Nothing stays open, so nothing has to be closed.
            limits=httpx.Limits(max_keepalive_connections=0),
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

    def command(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run a command as the command bar does; the value is the result or the error."""
        made = self._client.post(f"/commands/{name}", json={"arguments": arguments}, headers=self._headers)
        result: dict[str, Any] = made.json()
        return result

    def set_option(self, name: str, value: Any) -> httpx.Response:
        """Set an option as the options dialog does."""
        return self.put("/options", {name: value})


Flow = dict[str, Any]


def flows_of(proxy: Mitmdump) -> list[Flow]:
    """The flows that mitmweb shows."""
    flows: list[Flow] = Web(proxy).get("/flows").json()
    return flows


def wait_for_flow(proxy: Mitmdump, fits: Callable[[Flow], bool]) -> Flow:
    """The first flow in mitmweb that fits."""
    web = Web(proxy)

    def found() -> list[Flow]:
        return [flow for flow in web.get("/flows").json() if fits(flow)]

    return wait_until(found, lambda: web.get("/flows").text)[0]


def has_ended(flow: Flow) -> bool:
    return bool(flow["marked"])


def replay(proxy: Mitmdump, flow: Flow) -> None:
    """Replay a flow as its button does."""
    Web(proxy).post(f"/flows/{flow['id']}/replay").raise_for_status()


def view(proxy: Mitmdump, flow: Flow, part: str, name: str) -> str:
    """The text of a content view; mitmproxy 11 gives lines, 12 the text."""
    shown = Web(proxy).get(f"/flows/{flow['id']}/{part}/content/{name}.json").json()
    if "text" in shown:
        return str(shown["text"])
    lines = ["".join(text for _, text in line) for line in shown["lines"]]
    assert all(lines), "mitmweb 11 gives an empty line no height"
    return "\n".join("" if line == " " else line for line in lines)
