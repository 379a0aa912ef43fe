"""A gateway with the rule of one preset, and its provider."""

from collections.abc import Callable, Mapping
from typing import Any

from support.answers import Seen
from support.constants import CK
from support.fixture_types import RunClaude
from support.mitmdump import Mitmdump
from support.recorder import Recorder

KEY = "provider-secret-0123456789abcdef"
# Every name under which a key may travel.
AUTH_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization")


StartPreset = Callable[..., "Setting"]


class Setting:
    """A gateway with a preset's rule, and its provider."""

    def __init__(self, upstream: Recorder, proxy: Mitmdump) -> None:
        self.upstream = upstream
        self.proxy = proxy

    def client(self, **options: Any) -> Any:
        """The vendor's client with a key of its own, pointed at the gateway."""
        import anthropic  # when it is used: its import takes more than a second of each worker's collection

        return anthropic.Anthropic(**{"base_url": self.proxy.url, "api_key": CK, "max_retries": 0, **options})

    def asked(self, path: str) -> Seen:
        """The request to this path, whose only key is the gateway's."""
        request = self.upstream.wait_for_request(path)
        assert CK.encode() not in self.upstream.raw
        assert {each.path for each in self.upstream.requests} == {path}, self.upstream.requests
        return request


def keys_in(request: Seen) -> dict[str, list[str]]:
    """All headers of a request that contain a key."""
    return {name: request.values(name) for name in AUTH_HEADERS if request.values(name)}


def betas_in(request: Seen) -> list[str]:
    return [name.strip() for value in request.values("anthropic-beta") for name in value.split(",")]


def messages(setting: Setting, run_claude: RunClaude, env: Mapping[str, str] | None = None) -> None:
    """Claude Code asks through the setting, and prints what the provider said."""
    base = {"ANTHROPIC_BASE_URL": setting.proxy.url, "ANTHROPIC_API_KEY": CK}
    done = run_claude(base if env is None else env)
    assert (done.returncode, done.stdout) == (0, "hello there\n"), (done, setting.proxy.output())
