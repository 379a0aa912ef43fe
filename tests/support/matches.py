"""Matches and requests, and the plainest definition of which match covers which request."""

from typing import Any

from hypothesis import strategies as st

from mitm_gateway.rules.schema import Match
from mitm_gateway.wire.addresses import has_odd_segments

METHODS = st.sampled_from(["GET", "POST"])
GLOBS = st.sampled_from(["*", "claude-*", "claude-opus", "*opus*", "gpt"])
HOSTS = st.sampled_from(
    ["a.test", "b.a.test", "*.test", "*.a.test", "*", "*.*.test", "a.*.test", "a.test:80", "*:8443", "127.0.0.1", "[::1]"]
)  # fmt: skip
PATHS = st.sampled_from(["/**", "/v1/**", "/v1/*", "/v1/messages", "/*/messages", "/v1/m*", "**"])


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=2)


MATCHES = st.fixed_dictionaries(
    {"host": some(HOSTS)},
    optional={
        "path": some(PATHS),
        "method": some(METHODS),
        "model": some(GLOBS),
        "header": st.dictionaries(st.sampled_from(["x-a", "X-B"]), some(GLOBS) | st.booleans(), min_size=1),
    },
).map(Match.model_validate)
REQUESTS = st.fixed_dictionaries(
    {
        "host": st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "a.b.test", "x.test", "test", "127.0.0.1", "::1"]),
        "port": st.sampled_from([80, 443, 8443]),
        "path": st.sampled_from(["/", "/v1/", "/v1", "/v1/messages", "/v1/m/x", "/v2/messages", "/v1/../x"]),
        "method": METHODS,
        "model": st.none() | st.sampled_from(["claude-opus", "claude-x", "gpt"]),
        "headers": st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["gpt", "claude-opus", "z"])),
    }
)  # fmt: skip


def fits(match: Match, request: dict[str, Any]) -> bool:
    """Return whether a match covers a request, in the plainest possible way."""
    path = request["path"]
    if not any(host.covers(request["host"], request["port"]) for host in match.host):
        return False
    if match.path and (has_odd_segments(path) or not any(glob.covers(path) for glob in match.path)):
        return False
    if match.method and request["method"] not in match.method:
        return False
    if match.model and not any(request["model"] and glob.covers(request["model"]) for glob in match.model):
        return False
    for name, test in (match.header or {}).items():
        value = request["headers"].get(name.lower())
        if isinstance(test, bool):
            if test != (value is not None):
                return False
        elif value is None or not any(glob.covers(value) for glob in test):
            return False
    return True
