"""One request per case: what the client sends, what the upstream must receive, and the expected response."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from support.answers import Header
from support.constants import API, CK, GW

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


def _body(case: str, sent: bytes, expected: bytes | None, **keys: object) -> Case:
    rule = str(keys.get("rule", MODELS))
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


NASTY = (
    '{ "messages":[{"model":"claude-opus-1","x":"\\"model\\":\\"y\\""}] ,"n":1.0e+2,"big":12345678901234567890,'
    '"s":"\\ud800 é ｱ 😀","model" :\t"claude-opus-4" , "z":"\\u00e9\\/"}\n'
).encode()
SECOND = """
  - name: rest
    match: {host: api.anthropic.com}
    upstream: UPSTREAM/rest
    auth: {scheme: x-api-key, credential: other}
"""

SOCKET = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip

CASES = [
    Case("a bearer key takes the place of the client's", headers=(("x-api-key", CK),),
         sent_headers={"authorization": f"Bearer {GW}", "x-api-key": None}),
    *(
        Case(f"scheme {scheme.split(',')[0]}", auth="{scheme: " + scheme + ", credential: gw}",
             sent_headers={name: value, "x-api-key": value if name == "x-api-key" else None})
        for scheme, name, value in [
            ("x-api-key", "x-api-key", GW), ("api-key", "api-key", GW), ("x-goog-api-key", "x-goog-api-key", GW),
            ("token", "authorization", f"token {GW}"), ('header, name: X-Key, prefix: "Key "', "x-key", f"Key {GW}"),
        ]
    ),
    Case("scheme keep", auth="{scheme: keep}", headers=(("x-api-key", CK), ("Proxy-Authorization", "Basic dTp3")),
         sent_headers={"x-api-key": CK, "proxy-authorization": None}),
    Case("a rule's own key for a proxy", auth="{scheme: header, name: Proxy-Authorization, credential: gw}",
         headers=(("Proxy-Authorization", "Basic dTp3"),), sent_headers={"proxy-authorization": GW}),
    Case("scheme none strips every spelling", auth="{scheme: none}",
         headers=(("X_Api_Key", CK), ("Cookie", "a=b"), ("proxy-authorization", CK), ("api-key", CK)),
         sent_headers={"x_api_key": None, "cookie": None, "proxy-authorization": None, "api-key": None}),
    Case("keys in the query go, the rest stays", target="/v1/messages?a=%7e&KEY=x&api%5Fkey=y&X-Api-Key=z&&b",
         sent_target="/base/v1/messages?a=%7e&&b"),
    *(
        Case(f"a key in the query goes, written {name}", target=f"/v1/messages?a&{name}=x",
             sent_target="/base/v1/messages?a")
        for name in ("k-e_y", "-K__ey", "api-k-ey", "Access_Tok-en")
    ),
    *(
        Case(f"a key in {name} goes", headers=((name, CK),), sent_headers={name.lower(): None})
        for name in ("X-LiteLLM-API-Key", "X-Amz-Security-Token", "X-BF-VK",
                     "X-Key", "X-LiteLLM-Key", "x-portkey-vertex-service-account-json", "X-Apig-AppCode",
                     "x-vercel-protection-bypass", "lobe-chat-access-code", "DPoP", "X-Proxy-Auth")
    ),
    *(
        Case(f"a key in the query goes, written {name}", target=f"/v1/messages?a&{name}=x&page_token=p",
             sent_target="/base/v1/messages?a&page_token=p")
        for name in ("x-vercel-protection-bypass", "client_assertion", "X-Amz-Signature", "pwd", "subscription-key")
    ),
    Case("a key behind its name among subprotocols goes", method="GET", body=b"", target="/v1/listen",
         headers=(("Sec-WebSocket-Protocol", f"v1, token, {CK}"),), sent_target="/base/v1/listen",
         sent_headers={"sec-websocket-protocol": "v1"}),
    Case("the client's own key moves", auth="{scheme: bearer, credential: client}", rule="allow_anthropic_key: true",
         headers=(("x-api-key", CK),), sent_headers={"authorization": f"Bearer {CK}", "x-api-key": None}),
    Case("an Anthropic key goes to no other vendor", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", CK),), status=403, sent_target=None),
    Case("a placeholder is no key", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", "dummy"),), status=401, sent_target=None),
    Case("of several keys the first real one moves", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", "dummy"), ("x-api-key", "first"), ("x-api-key", "second")),
         sent_headers={"authorization": "Bearer first", "x-api-key": None}),
    Case("an Anthropic key is seen behind a placeholder in Authorization", auth="{scheme: bearer, credential: client}",
         headers=(("Authorization", "-"), ("Authorization", f"Bearer {CK}")), status=403, sent_target=None),
    Case("an Anthropic key is seen behind a placeholder", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", "dummy"), ("x-api-key", CK)), status=403, sent_target=None),
    Case("headers: remove, set, add", "headers: {remove: [x-stainless-*], set: {Editor-Version: v/1%}, add: {x-a: '2'}}",
         headers=(("X-Stainless-OS", "x"), ("x-a", "1")),
         sent_headers={"x-stainless-os": None, "editor-version": "v/1%", "x-a": "1"}),
    Case("a second credential in a header", 'headers: {set: {x-app-key: "Key ${credential:other}"}}',
         sent_headers={"x-app-key": "Key other-secret", "authorization": f"Bearer {GW}"}),
    Case("betas", "beta: {keep: [keep-*, old], rename: {old: new}, add: [added]}",
         headers=(("anthropic-beta", "keep-1, drop-1,old"),), body=b'{"anthropic_beta" : ["drop-2","keep-2"], "a":1}',
         sent_headers={"anthropic-beta": "keep-1,new,added"},
         sent_body=b'{"anthropic_beta" : ["keep-2","added"], "a":1}'),
    Case("the beta header goes when empty", "beta: {keep: []}", headers=(("anthropic-beta", "a"),),
         body=b'{"anthropic_beta":["a"] , "a":1}', sent_headers={"anthropic-beta": None}, sent_body=b'{"a":1}'),
    Case("an empty beta header goes", "beta: {keep: []}", headers=(("anthropic-beta", ""),),
         sent_headers={"anthropic-beta": None}),
    Case("a token's beta leaves with the token", headers=(("authorization", "Bearer " + CK),
         ("anthropic-beta", "a,oauth-2025-04-20")), sent_headers={"anthropic-beta": "a", "authorization": f"Bearer {GW}"}),
    Case("a token's betas leave a body that is read", MODELS, headers=(("authorization", "Bearer " + CK),),
         body=b'{"anthropic_beta":["a", "oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"anthropic_beta":["a"], "model":"gw-large"}'),
    Case("a body's only beta is the token's", MODELS,
         body=b'{"anthropic_beta":["oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"model":"gw-large"}'),
    Case("a token's betas leave under an escaped key", MODELS,
         body=b'{"\\u0061nthropic_beta":["a", "oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"\\u0061nthropic_beta":["a"], "model":"gw-large"}'),
    Case("a token's betas leave before others come", "beta: {keep: [a], add: [b]}",
         body=b'{"anthropic_beta":["oauth-2025-04-20","a"]}', sent_body=b'{"anthropic_beta":["a","b"]}'),
    Case("a token's betas stay with the token", MODELS, auth="{scheme: keep}",
         body=b'{"anthropic_beta":["oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"anthropic_beta":["oauth-2025-04-20"], "model":"gw-large"}'),
    Case("odd betas pass a rule without betas", MODELS,
         body=b'{"anthropic_beta":[1, "oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"anthropic_beta":[1, "oauth-2025-04-20"], "model":"gw-large"}'),
    Case("base path without a second version", match="path: /v1/**", target="/v1/messages?beta=true",
         sent_target="/base/v1/messages?beta=true"),
    Case("a model in the path", MODELS, match="path: /model/**", target="/model/claude-opus-4/invoke", body=b"",
         sent_target="/base/model/gw-large/invoke"),
    Case("of two models in the path the first counts", MODELS, match="path: /**",
         target="/openai/deployments/claude-opus-4/models/claude-exact:x", body=b"",
         sent_target="/base/openai/deployments/gw-large/models/claude-exact:x"),
    Case("keys in the query go, whatever blanks are around", target="/v1/messages?%C2%A0key=x&%E3%80%80key%1F=y&a",
         sent_target="/base/v1/messages?a"),
    Case("a needlessly encoded path matches and stays", target="/v1/%6dessages", sent_target="/base/v1/%6dessages"),
    Case("a needlessly encoded path gets every edit", MODELS, target="/v1/%6dessages?key=x",
         sent_target="/base/v1/%6dessages", body=b'{"model":"claude-opus-4"}', sent_body=b'{"model":"gw-large"}'),
    Case("an encoded path does without no check", MODELS, target="/v1/%26", body=b"nonsense", status=400,
         sent_target=None),
    Case("an encoded path moves no other vendor's key", auth="{scheme: bearer, credential: client}",
         target="/v1/%26", headers=(("x-api-key", CK),), status=403, sent_target=None),
    *(
        Case(f"a path that servers may read otherwise: {target}", MODELS, match="path: /**", target=target, status=400,
             body=b'{"requests":[{"params":{"model":"claude-opus-4"}}]}', sent_target=None)
        for target in (
            "/v1/messages%2Fbatches", "/v1/messages%252Fbatches", "/v1/messages;x", "/v1/messages/batches%20",
            "/v1/messages%5Cbatches", "/model%2Fclaude-opus-4/invoke", "/v1/models/claude-opus-4;x",
        )
    ),
    *(
        Case(f"a path is mapped however it is written: {target}", MODELS, match="path: /**", target=target, body=b"",
             sent_target=f"/base{sent}")
        for target, sent in [
            ("/v1/models/claude-opus-4/", "/v1/models/gw-large/"), ("/V1/Models/claude-exact", "/V1/Models/gw-exact"),
            ("/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fx/converse", "/model/gw-small/converse"),
            ("/v1/models/anthropic%2Fclaude-x", "/v1/models/gw-small"),
            ("/v1/deployments/depl_1/run", "/v1/deployments/depl_1/run"),
            ("/model/claude-exact/count-tokens", "/model/gw-exact/count-tokens"),
            ("/v1beta/tunedModels/claude-exact:generateContent", "/v1beta/tunedModels/gw-exact:generateContent"),
            ("/model/arn:aws:bedrock:eu:1:inference-profile/x/converse-stream", "/model/gw-small/converse-stream"),
            ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-4@20250514:streamRawPredict",
             "/v1/projects/p/locations/l/publishers/anthropic/models/gw-large:streamRawPredict"),
            ("/openai-api/deployments/claude-opus-4/chat/completions", "/openai-api/deployments/gw-large/chat/completions"),
            ("/openai/deployments/x/claude-opus-4/embeddings", "/openai/deployments/gw-small/embeddings"),
            ("/v1/engines/claude-exact/completions", "/v1/engines/gw-exact/completions"),
            ("/client/v4/accounts/a/ai/run/@cf/meta/x", "/client/v4/accounts/a/ai/run/gw-small"),
            ("/v1beta/models/claude-opus-4:batchGenerateContent", "/v1beta/models/gw-large:batchGenerateContent"),
        ]
    ),
    *(
        Case(f"further models of {target}: {sent[:34]}…", MODELS, match="path: /**", target=target, body=sent.encode(),
             sent_target=f"/base{target}", sent_body=expected.encode())
        for target, sent, expected in [
            ("/v1/messages", '{"tools":[{"name":"x"},{"type":"advisor","model":"claude-exact"}],"model":"claude-opus-4"}',
             '{"tools":[{"name":"x"},{"type":"advisor","model":"gw-exact"}],"model":"gw-large"}'),
            ("/v1/messages", '{"model":"claude-opus-4","fallbacks":[{"model":"claude-exact"}]}',
             '{"model":"gw-large","fallbacks":[{"model":"gw-exact"}]}'),
            ("/v1/messages", '{"model":"claude-opus-4","tools":[{"input_schema":{"model":"claude-exact"}}]}',
             '{"model":"gw-large","tools":[{"input_schema":{"model":"claude-exact"}}]}'),
            ("/v1/chat/completions", '{"models":["claude-opus-4", "claude-exact"],"route":"fallback"}',
             '{"models":["gw-large", "gw-exact"],"route":"fallback"}'),
            ("/v1/chat/completions", '{"model":"claude-opus-4","fallbacks":["x",{"model":"claude-exact"}]}',
             '{"model":"gw-large","fallbacks":["gw-small",{"model":"gw-exact"}]}'),
            ("/v1/responses", '{"model":"claude-opus-4","moderation":{"model":"x"},"tools":"none"}',
             '{"model":"gw-large","moderation":{"model":"gw-small"},"tools":"none"}'),
            ("/v1/sessions", '{"agent":"agent_1"}', '{"agent":"agent_1"}'),
            ("/v1/sessions", '{"agent":{"model":{"id":"claude-exact"}}}', '{"agent":{"model":{"id":"gw-exact"}}}'),
            ("/v1/realtime/client_secrets", '{"session":{"audio":{"input":{"transcription":{"model":"x"}}}}}',
             '{"session":{"audio":{"input":{"transcription":{"model":"gw-small"}}}}}'),
            ("/v1/evals", '{"testing_criteria":[{"model":"claude-exact"}]}', '{"testing_criteria":[{"model":"gw-exact"}]}'),
            ("/v1/evals/e/runs", '{"data_source":{"source":{"model":"claude-exact"}}}',
             '{"data_source":{"source":{"model":"gw-exact"}}}'),
            ("/async-invoke", '{"modelId":"claude-exact"}', '{"modelId":"gw-exact"}'),
            ("/v1beta/cachedContents", '{"model":"models/claude-exact"}', '{"model":"models/gw-exact"}'),
            ("/v1/tuningJobs", '{"baseModel":"claude-exact"}', '{"baseModel":"gw-exact"}'),
            ("/v1beta/models/gw-exact:batchGenerateContent",
             '{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"model":"models/claude-exact"}}]}}}}',
             '{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"model":"models/gw-exact"}}]}}}}'),
        ]
    ),
    Case("fallbacks for two rules are refused", match='path: /v1/**, model: "claude-opus-*"', more=SECOND, status=400,
         target="/v1/chat/completions", sent_target=None, body=b'{"model":"claude-opus-4","models":["claude-haiku"]}'),
    *(
        Case(f"a model in the query as {name}", MODELS, method="GET", target=f"{path}?{name}=claude-exact", body=b"",
             sent_target=f"/base{path}?{name}=gw-exact", match="path: /**")
        for path, name in [("/openai/realtime", "deployment"), ("/v1/chat/completions", "model"),
                           ("/v1/organization/usage/completions", "models[]")]
    ),
    Case("a star stays inside a segment", match="path: /v1/*", target="/v1/a/b", status=404, sent_target=None),
    Case("the method decides", match="path: /v1/**, method: [PUT]", status=404, sent_target=None),
    Case("a header decides, whatever its case", match="path: /v1/**, header: {X-Team: 'red-*', x-no: false}",
         headers=(("x-TEAM", "red-1"),)),
    Case("a header glob minds the case of the value", match="path: /v1/**, header: {x-team: 'red-*'}",
         headers=(("x-team", "Red-1"),), status=404, sent_target=None),
    Case("the model in the body decides", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         body=b'{"model":"claude-\\u006fpus-4"}'),
    Case("a sent model in the path leads to no other rule", MODELS, match='path: /model/claude-*/invoke', more=SECOND,
         target="/model/claude-opus-4/invoke", body=b"", sent_target="/base/model/gw-large/invoke"),
    Case("a sent model in the path may need encoding", "models: {default: 'a/b c'}", match="path: /**",
         target="/model/claude-opus-4/invoke", body=b"", sent_target="/base/model/a%2Fb%20c/invoke"),
    Case("the model in a chunked body decides", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         headers=(("Transfer-Encoding", "chunked"),), body=b'19\r\n{"model":"claude-opus-4"}\r\n0\r\n\r\n',
         sent_body=b'{"model":"claude-opus-4"}'),
    Case("another model takes the next rule", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         body=b'{"model":"claude-haiku"}', sent_target="/rest/v1/messages",
         sent_headers={"x-api-key": "other-secret", "authorization": None}),
    Case("no body takes the next rule", match='path: /v1/**, model: "claude-opus-*"', more=SECOND, method="GET",
         body=b"", sent_target="/rest/v1/messages"),
    Case("the model in the path decides, and every edit follows", MODELS, match='model: "claude-opus-*"',
         target="/model/claude-opus-4/invoke?key=x", body=b'{"model":"claude-exact"}',
         sent_target="/base/model/gw-large/invoke", sent_body=b'{"model":"gw-exact"}'),
    Case("the model in a chunked body of a GET decides", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         method="GET", headers=(("Transfer-Encoding", "chunked"),),
         body=b'19\r\n{"model":"claude-opus-4"}\r\n0\r\n\r\n', sent_body=b'{"model":"claude-opus-4"}'),
    Case("no body takes the next rule, and every edit follows", match='path: /v1/**, model: "claude-opus-*"',
         more=SECOND, method="GET", target="/v1/messages?key=x", body=b"", sent_target="/rest/v1/messages"),
    Case("a form with files takes the next rule", match='path: /v1/**, model: "*"', more=SECOND,
         headers=(("Content-Type", "multipart/form-data; boundary=x"),), body=b"--x--",
         sent_target="/rest/v1/messages", sent_headers={"x-api-key": "other-secret"}),
    Case("each model of a batch is mapped", MODELS, target="/v1/messages/batches", sent_target="/base/v1/messages/batches",
         body=b'{"requests":[{"params":{"model":"claude-opus-4"}},{"params":{"x":1,"model":"claude-exact"}}]}',
         sent_body=b'{"requests":[{"params":{"model":"gw-large"}},{"params":{"x":1,"model":"gw-exact"}}]}'),
    Case("the models of a batch decide together", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         target="/v1/messages/batches", sent_target="/base/v1/messages/batches",
         body=b'{"requests":[{"params":{"model":"claude-opus-4"}},{"params":{"model":"claude-opus-5[1m]"}}]}'),
    Case("a batch for two rules is refused", match='path: /v1/**, model: "claude-opus-*"', more=SECOND, status=400,
         target="/v1/messages/batches", sent_target=None,
         body=b'{"requests":[{"params":{"model":"claude-opus-4"}},{"params":{"model":"claude-haiku"}}]}'),
    Case("a batch for two rules is refused, whichever model is first", match='path: /v1/**, model: "claude-opus-*"',
         more=SECOND, target="/v1/messages/batches", sent_target=None, status=400,
         body=b'{"requests":[{"params":{"model":"claude-haiku"}},{"params":{"model":"claude-opus-4"}}]}'),
    Case("a percent-encoded colon is the colon of a method", MODELS, match="path: '/v1beta/models/*:generateContent'",
         target="/v1beta/models/claude-opus-4%3AgenerateContent",
         sent_target="/base/v1beta/models/gw-large:generateContent"),
    Case("a deployment of the Responses API", MODELS, match="path: /openai/**", sent_body=b'{"model":"gw-exact"}',
         target="/openai/deployments/claude-opus-4/responses", body=b'{"model":"claude-exact"}',
         sent_target="/base/openai/deployments/gw-large/responses"),
    *(
        Case(f"a batch with params {params.decode()}", MODELS, target="/v1/messages/batches", status=400, sent_target=None,
             body=b'{"requests":[{"params":%s}]}' % params)
        for params in (b"null", b"5", b'["model"]', b'{"model":5}')
    ),
    _body("a model as an object", b'{"model":{"id":"claude-opus-4"}}', b'{"model":{"id":"gw-large"}}'),
    Case("a model in the query is mapped", MODELS, method="GET", body=b"",
         target="/v1/realtime?a=%7e&model=claude-opus-4&b", sent_target="/base/v1/realtime?a=%7e&model=gw-large&b"),
    Case("a model in the query decides", match='model: "claude-opus-*"', more=SECOND, method="GET", body=b"",
         target="/v1/realtime?model=claude-opus-4", sent_target="/base/v1/realtime?model=claude-opus-4"),
    Case("two models in the query", MODELS, method="GET", target="/v1/realtime?model=a&model=b", body=b"", status=400,
         sent_target=None),
    Case("parameters are set and removed", "query: {set: {api-version: '1 2', b: x}, remove: [utm_*]}",
         target="/v1/messages?utm_a=1&b=2&a=%7e&key=k&b", sent_target="/base/v1/messages?b=x&a=%7e&api-version=1%202"),
    _body("list items are selected by a key", b'{"tools":[{"type":"web_1","x":1},{"type":"f","x":1}]}',
          b'{"tools":[{"type":"f","x":1}]}', rule='body: {remove: ["tools[type=web_*]"]}'),
    *(
        Case(f"a WebSocket whose messages {reads}", rule, match=match, more=SECOND, method="GET", body=b"",
             target="/v1/responses", headers=SOCKET, status=426, sent_target=None)
        for reads, rule, match in [
            ("name models", MODELS, "path: /v1/**"), ("are edited", "body: {remove: [store]}", "path: /v1/**"),
            ("have betas", "beta: {drop: [x]}", "path: /v1/**"), ("decide", "", 'path: /v1/**, model: "gpt-5*"'),
        ]
    ),
    Case("a WebSocket without a version whose messages name models", MODELS, method="GET", body=b"", target="/v1/responses",
         headers=(("Connection", "Upgrade"), ("Upgrade", "websocket")), status=426, sent_target=None),
    *(
        Case(f"a form's model is mapped: {name}", MODELS, target="/v1/audio/transcriptions", headers=form_type(kind),
             sent_target="/base/v1/audio/transcriptions", body=form(*sent), sent_body=form(*expected))
        for name, kind, sent, expected in [
            ("behind a file", "b-1", [('name="file"; filename="a"', "\0\r\n--b-10"), ('name="model"', "claude-opus-4")],
             [('name="file"; filename="a"', "\0\r\n--b-10"), ('name="model"', "gw-large")]),
            ("with more headers", '"b-1"', [('name=model\r\nContent-Type: text/plain', "claude-exact")],
             [('name=model\r\nContent-Type: text/plain', "gw-exact")]),
            ("but no file of that name", "b-1", [('name="model"; filename="model"', "claude-exact")],
             [('name="model"; filename="model"', "claude-exact")]),
            ("but no other field", "b-1", [('name="prompt"', 'name="model"\r\n\r\nclaude-exact')],
             [('name="prompt"', 'name="model"\r\n\r\nclaude-exact')]),
            ("but not behind another boundary", "b-2", [('name="model"', "claude-exact")],
             [('name="model"', "claude-exact")]),
        ]
    ),
    *(
        Case(f"a form's model is mapped: {name}", MODELS, target="/v1/realtime/calls", headers=(("Content-Type", kind),),
             sent_target="/base/v1/realtime/calls", body=sent, sent_body=sent.replace(b"claude-opus-4", b"gw-large"))
        for name, kind, sent in [
            ("like a query's", "application/x-www-form-urlencoded", b"a=%7e&model=claude-opus-4&&b"),
            ("in a field's JSON", "multipart/form-data; boundary=b-1",
             form(('name="sdp"', "v=0"), ('name="session"', ' {"type":"é", "model":"claude-opus-4"}'))),
            ("in a field named for its place", "multipart/form-data; boundary=b-1",
             form(("charset=x; name=session[model]", "claude-opus-4"))),
        ]
    ),
    Case("a field's JSON that is broken", MODELS, target="/v1/realtime/calls", headers=form_type("b-1"), status=400,
         sent_target=None, body=form(('name="session"', '{"model":"a"'))),
    Case("the model in a form decides", match='path: /v1/**, model: "claude-opus-*"', more=SECOND, headers=form_type("b-1"),
         body=form(('name="model"', "claude-opus-4")), sent_headers={"authorization": f"Bearer {GW}"}),
    Case("the model in a form takes the next rule", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         headers=(("Content-Type", "application/x-www-form-urlencoded"),), body=b"model=x",
         sent_target="/rest/v1/messages"),
    Case("a form's model that is too long", MODELS, target="/v1/audio/transcriptions", headers=form_type("b-1"), status=400,
         sent_target=None, body=form(('name="model"', "x" * 9000))),
    *(
        Case(f"{kind} is no JSON", MODELS, headers=(("Content-Type", kind),), body=b"RIFF", sent_body=b"RIFF")
        for kind in ("audio/wav", "application/sdp", "application/octet-stream")
    ),
    Case("JSON that says it is a form is read", MODELS, headers=(("Content-Type", "multipart/form-data; boundary=x"),),
         body=b'{"model":"claude-opus-4"}', sent_body=b'{"model":"gw-large"}'),
    Case("nonsense where the model decides", match='path: /v1/**, model: "claude-opus-*"', more=SECOND,
         body=b"nonsense", status=400, sent_target=None),
    Case("what the filter tells the routes is not the client's to say", target="/other", status=404, sent_target=None,
         headers=(("x-mitm-gateway-path", "/v1/messages"), ("x-mitm-gateway-model", "=a"))),
    Case("no rule", target="/other", status=404, sent_target=None),
    Case("dot segments", target="/v1/%2e%2e/x", status=400, sent_target=None),
    Case("empty segments", target="/v1//x", status=400, sent_target=None),
    Case("another Host", headers=(("Host", "evil.test"),), status=421, sent_target=None),
    Case("a web page", headers=(("Origin", "https://evil.test"),), status=403, sent_target=None),
    *(
        Case(f"a request from {site}", headers=(("Sec-Fetch-Site", site),), status=403, sent_target=None)
        for site in ("cross-site", "same-site", "SAME-SITE", "same-origin, cross-site", "elsewhere")
    ),
    *(Case(f"a request from {site}", headers=(("Sec-Fetch-Site", site),)) for site in ("none", "Same-Origin")),
    Case("TRACE", method="TRACE", body=b"", status=403, sent_target=None),
    Case("an untouched body keeps every byte", body=b"\x00\xff {\"model\": 5", sent_body=b"\x00\xff {\"model\": 5"),
    _body("only the model's string changes", NASTY, NASTY.replace(b'"claude-opus-4"', b'"gw-large"')),
    _body("an exact name wins", b'{"model":"claude-exact"}', b'{"model":"gw-exact"}'),
    _body("an exact name wins, with [1m] too", b'{"model":"claude-exact[1M][1m]"}', b'{"model":"gw-exact"}'),
    _body("a target of the map stays", b'{"model":"gw-exact"}', b'{"model":"gw-exact"}'),
    _body("null is no model", b'{"model":null}', b'{"model":null}'),
    _body("an object's further members stay", b'{"model":{"id":"claude-exact","speed":"fast"}}',
          b'{"model":{"id":"gw-exact","speed":"fast"}}'),
    _body("the default", b'{"a":1,"model":"x"}', b'{"a":1,"model":"gw-small"}'),
    _body("an escaped key", b'{"\\u006dodel":"claude-opus-4"}', b'{"\\u006dodel":"gw-large"}'),
    _body("no model", b'{"a":1}', b'{"a":1}'),
    _body("a BOM", b'\xef\xbb\xbf{"model":"claude-opus-4"}', b'\xef\xbb\xbf{"model":"gw-large"}'),
    *(
        _body(f"refused: {name}", body, None)
        for name, body in [
            ("two models", b'{"model":"a","model":"b"}'), ("two, one escaped", b'{"model":"a","\\u006dodel":"b"}'),
            ("an array", b'["model"]'), ("a list for a model", b'{"model":["a"]}'),
            ("a number", b'{"model":5}'), ("a byte", b'{"model":"\xff"}'),
            ("an overlong form", b'{"a":"\xc0\xaf"}'), ("utf-16", '{"model":"a"}'.encode("utf-16")),
            ("cut", b'{"model":"a"'), ("more behind", b'{"model":"a"} x'), ("deep", b'{"a":' + b"[" * 100_000),
            ("digits", b'{"a":' + b"9" * 5000 + b"}"), ("a bad number", b'{"a":01}'), ("a bad escape", b'{"a":"\\x"}'),
            ("a control", b'{"a":"\n"}'), ("NaN", b'{"a":NaN}'), ("a comma too many", b'{"a":1,}'),
        ]
    ),
    _body("fields go with their commas", b'{"a":1 , "context":{"x":[1]} ,"tools":[{"d":true,"n":1},{"n":2, "d":0 }] }',
          b'{"a":1 ,"tools":[{"n":1},{"n":2 }] }', rule='body: {remove: [context, "tools[*].d"]}'),
    _body("fields are set and added", b'{"a": {"b":1} }', b'{"a": {"b":[1, null],"c":"x"},"m":{"u":"\xc3\xa9"} }',
          rule='body: {set: {a.b: [1, null], a.c: x, m.u: "é"}}'),
    Case("a models list", MODELS + "\n    respond: {models: true}", method="GET", target="/v1/models", body=b"",
         sent_target=None, answer=json.dumps({"data": [{"type": "model", "id": "claude-exact", "display_name":
             "claude-exact", "created_at": "1970-01-01T00:00:00Z"}], "has_more": False, "first_id": "claude-exact",
             "last_id": "claude-exact"}).encode()),
    Case("a probe", "respond: {head: true}", method="HEAD", target="/api/hello", body=b"", sent_target=None, answer=b""),
    Case("a token estimate", "respond: {count_tokens: estimate}", target="/v1/messages/count_tokens",
         body=b'{"model":"a","messages":[{"role":"user","content":"' + b"word " * 100 + b'"}]}', sent_target=None,
         answer=b'{"input_tokens": 148}'),
    Case("the OpenAI form of a refusal", target="/v1/../chat/completions", status=400, sent_target=None),
]  # fmt: skip
