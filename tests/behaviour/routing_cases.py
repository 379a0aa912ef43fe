"""Cases of paths, queries, models and forms: which rule takes a request, and which model leaves."""

from __future__ import annotations

from behaviour.case import MODELS, SECOND, SOCKET, Case, body_case, form, form_type
from support.constants import CK, GW

ROUTING_CASES = [
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
    body_case("a model as an object", b'{"model":{"id":"claude-opus-4"}}', b'{"model":{"id":"gw-large"}}'),
    Case("a model in the query is mapped", MODELS, method="GET", body=b"",
         target="/v1/realtime?a=%7e&model=claude-opus-4&b", sent_target="/base/v1/realtime?a=%7e&model=gw-large&b"),
    Case("a model in the query decides", match='model: "claude-opus-*"', more=SECOND, method="GET", body=b"",
         target="/v1/realtime?model=claude-opus-4", sent_target="/base/v1/realtime?model=claude-opus-4"),
    Case("two models in the query", MODELS, method="GET", target="/v1/realtime?model=a&model=b", body=b"", status=400,
         sent_target=None),
    Case("parameters are set and removed", "query: {set: {api-version: '1 2', b: x}, remove: [utm_*]}",
         target="/v1/messages?utm_a=1&b=2&a=%7e&key=k&b", sent_target="/base/v1/messages?b=x&a=%7e&api-version=1%202"),
    body_case("list items are selected by a key", b'{"tools":[{"type":"web_1","x":1},{"type":"f","x":1}]}',
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
]  # fmt: skip
