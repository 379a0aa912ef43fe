"""Answers of other addons, which mitmproxy's server replay would overwrite."""

from mitmproxy import http
from mitmproxy.addons.serverplayback import ServerPlayback

from ..patch import Patches


def keep_answers(patches: Patches) -> None:
    """Keep the response of a request that another addon has answered or refused."""
    original = ServerPlayback.request

    def request(self: ServerPlayback, f: http.HTTPFlow) -> None:
        if f.response is None:
            original(self, f)

    patches.set(ServerPlayback, "request", request)
