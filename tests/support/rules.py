"""Rules files with one rule."""

from textwrap import dedent, indent

from support.constants import API

MAPPING = "models: {map: {claude-x: gw-model}}"


def one_rule(
    upstream: str,
    more: str = "",
    *,
    host: str = API,
    match: str = "path: /v1/**",
    auth: str = "{scheme: bearer, credential: gw}",
    top: str = "",
) -> str:
    """Return rules that send a host's requests to an upstream with the gateway's key; `more` are further keys."""
    rule = f'match: {{host: "{host}", {match}}}\nupstream: {upstream}\nauth: {auth}\n{dedent(more).strip()}'
    return f"credentials: {{gw: {{env: GW_KEY}}}}\n{top}\nrules:\n  - name: gw\n{indent(rule, '    ')}\n"
