"""One request per case: what the client sends, what the upstream must receive, and the expected response."""

from dataclasses import dataclass, field

from support.answers import Header
from support.constants import API

MODELS = "models: {map: {claude-opus-*: gw-large, claude-exact: gw-exact}, default: gw-small}"


@dataclass(frozen=True, slots=True)
class Case:
    """One request to rules whose first is `gw`, with these further keys (`rule`) or wholly other ones (`rules`)."""

    name: str
    rule: str = ""
    match: str = "path: /v1/**"
    auth: str = "{scheme: bearer, credential: gw}"
    top: str = ""
    more: str = ""
    method: str = "POST"
    target: str = "/v1/messages"
    headers: tuple[Header, ...] = ()
    body: bytes = b"{}"
    status: int = 200
    sent_target: str | None = "/base/v1/messages"
    sent_headers: dict[str, str | None] = field(default_factory=dict)
    sent_body: bytes | None = None
    answer: bytes | None = None
    """The client's response, unless it is a refusal."""

    def rules(self, upstream: str) -> str:
        """The rules file."""
        return f"""
credentials: {{gw: {{env: GW_KEY}}, other: {{env: OTHER_KEY}}}}
{self.top}
rules:
  - name: gw
    match: {{host: {API}, {self.match}}}
    upstream: {upstream}/base
    auth: {self.auth}
    {self.rule}
{self.more.replace("UPSTREAM", upstream)}
"""

    @property
    def plain_body(self) -> bytes:
        """The body without the framing of chunks."""
        if not any(name == "Transfer-Encoding" for name, _ in self.headers):
            return self.body
        size, _, rest = self.body.partition(b"\r\n")
        return rest[: int(size, 16)]


def body_case(case: str, sent: bytes, expected: bytes | None, rule: str = MODELS) -> Case:
    """Return a case of a body and what the upstream receives of it; None if it is refused."""
    if expected is None:
        return Case(case, rule, body=sent, status=400, sent_target=None)
    return Case(case, rule, body=sent, sent_body=expected)


def form(*fields: tuple[str, str], boundary: str = "b-1") -> bytes:
    """Return a form of these headers and values of parts."""
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n" for head, value in fields
    ]
    return "".join([*parts, f"--{boundary}--\r\n"]).encode()


def form_type(boundary: str) -> tuple[Header, ...]:
    """Return the header that names the boundary of a form."""
    return (("Content-Type", f"multipart/form-data; boundary={boundary}"),)


SECOND = """
  - name: rest
    match: {host: api.anthropic.com}
    upstream: UPSTREAM/rest
    auth: {scheme: x-api-key, credential: other}
"""
