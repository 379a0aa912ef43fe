"""All cases; here are those of keys, headers, admission, bodies and local answers."""

import json

from behaviour.case import MODELS, Case, body_case
from behaviour.routing_cases import ROUTING_CASES
from support.answers import message
from support.constants import CK, GW

NASTY = (
    '{ "messages":[{"model":"claude-opus-1","x":"\\"model\\":\\"y\\""}] ,"n":1.0e+2,"big":12345678901234567890,'
    '"s":"\\ud800 é ｱ 😀","model" :\t"claude-opus-4" , "z":"\\u00e9\\/"}\n'
).encode()

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
    *(
        Case(f"the client's own key moves from {slot}", auth="{scheme: x-api-key, credential: client}", headers=headers,
            target=f"/v1/messages{query}", sent_target=f"/base/v1/messages{left}",
            sent_headers={"x-api-key": "own", "x-goog-api-key": None, "api-key": None, "authorization": None})
        for slot, headers, query, left in (
            ("x-goog-api-key", (("x-goog-api-key", "own"), ("Cookie", "a=b")), "", ""),
            ("api-key", (("api-key", "own"), ("Authorization", "Bearer dummy")), "?a=1", "?a=1"),
            ("the query", (), "?alt=sse&key=own", "?alt=sse"),
            ("an encoded query", (), "?b=1;api%2Dkey=%6fwn", "?b=1"),
        )
    ),
    Case("no cookie and no other secret moves", auth="{scheme: bearer, credential: client}",
        headers=(("Cookie", "own"), ("x-csrf-token", "own")), status=401, sent_target=None),
    Case("an Anthropic key goes to no other vendor", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", CK),), status=403, sent_target=None),
    Case("a placeholder is no key", auth="{scheme: bearer, credential: client}",
         headers=(("x-api-key", "dummy"),), status=401, sent_target=None),
    *(
        Case(f"no key is in Authorization: {value[:9]}", auth="{scheme: x-api-key, credential: client}",
             headers=(("Authorization", value),), status=401, sent_target=None)
        for value in ("Bearer", "Basic", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c",
                      "Digest username=x, nonce=y", "Bearer k\u00e9y")
    ),
    Case("a real key moves past an empty one", auth="{scheme: x-api-key, credential: client, prefer: authorization}",
         headers=(("Authorization", "Bearer"), ("x-api-key", "own")), sent_headers={"x-api-key": "own"}),
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
    Case("a header set to nothing", "headers: {set: {x-a: ''}, add: {x-b: ''}}", headers=(("X-A", "1"), ("x-a", "2")),
         sent_headers={"x-a": "", "x-b": ""}),
    Case("a second credential in a header", 'headers: {set: {x-app-key: "Key ${credential:other}"}}',
         sent_headers={"x-app-key": "Key other-secret", "authorization": f"Bearer {GW}"}),
    Case("betas", "beta: {keep: [keep-*, old], rename: {old: new}, add: [added]}",
         headers=(("anthropic-beta", "keep-1, drop-1,old"),), body=b'{"anthropic_beta" : ["drop-2","keep-2"], "a":1}',
         sent_headers={"anthropic-beta": "keep-1,new,added"},
         sent_body=b'{"anthropic_beta" : ["keep-2","added"], "a":1}'),
    Case("no empty beta leaves", "beta: {drop: [a]}", headers=(("anthropic-beta", ",b, ,"),),
         body=b'{"anthropic_beta":["", "b"," "]}', sent_headers={"anthropic-beta": "b"},
         sent_body=b'{"anthropic_beta":["b"]}'),
    Case("betas that are null stay", "beta: {drop: [a], add: [b]}", headers=(("anthropic-beta", "a"),),
         body=b'{"anthropic_beta": null , "a":1}', sent_headers={"anthropic-beta": "b"}),
    Case("the beta header goes when empty", "beta: {keep: []}", headers=(("anthropic-beta", "a"),),
         body=b'{"anthropic_beta":["a"] , "a":1}', sent_headers={"anthropic-beta": None}, sent_body=b'{"a":1}'),
    Case("an empty beta header goes", "beta: {keep: []}", headers=(("anthropic-beta", ""),),
         sent_headers={"anthropic-beta": None}),
    Case("a token's beta leaves with the token", headers=(("authorization", "Bearer " + CK),
         ("anthropic-beta", "a,oauth-2025-04-20")), sent_headers={"anthropic-beta": "a", "authorization": f"Bearer {GW}"}),
    Case("no empty beta header stays of a token's beta", headers=(("anthropic-beta", "oauth-2025-04-20"),),
         sent_headers={"anthropic-beta": None}),
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
    Case("betas among the fields that Converse passes on", "beta: {drop: [a]}\n    " + MODELS, match="path: /model/**",
         target="/model/claude-opus-4/converse", sent_target="/base/model/gw-large/converse",
         body=b'{"additionalModelRequestFields":{"anthropic_beta":["a", "b", "oauth-2025-04-20"], "k":1}}',
         sent_body=b'{"additionalModelRequestFields":{"anthropic_beta":["b"], "k":1}}'),
    Case("odd betas pass a rule without betas", MODELS,
         body=b'{"anthropic_beta":[1, "oauth-2025-04-20"], "model":"claude-opus-4"}',
         sent_body=b'{"anthropic_beta":[1, "oauth-2025-04-20"], "model":"gw-large"}'),
    *(
        Case(f"a file is no request, {name}", rule, match="path: /upload/**", target="/upload/v1beta/files?upload_id=1",
             sent_target="/base/upload/v1beta/files?upload_id=1", body=body)
        for name, body in (("in JSON", b'{"model":"claude-opus-4"}'), ("not in JSON", b"\x00\xff{"))
        for rule in (MODELS, "body: {remove: [model]}")
    ),
    Case("a path that ends like one of files", MODELS, match="path: /**", target="/upload/v1beta/x/files", body=b"\x00",
         status=400, sent_target=None),
    *ROUTING_CASES,
    Case("what the filter tells the routes is not the client's to say", target="/other", status=404, sent_target=None,
         headers=(("x-mitm-gateway-path", "/v1/messages"), ("x-mitm-gateway-model", "=a"))),
    Case("no rule", target="/other", status=404, sent_target=None),
    Case("a path over the limit", target=f"/v1/{'a' * 8189}", status=400, sent_target=None),
    Case("dot segments", target="/v1/%2e%2e/x", status=400, sent_target=None),
    Case("empty segments", target="/v1//x", status=400, sent_target=None),
    *(
        Case(f"a WebSocket's path as Google's SDKs write it, for {match}", match=match,
             target="//ws/google.ai.x.BidiGenerateContent?alt=a&key=k",
             sent_target="/base/ws/google.ai.x.BidiGenerateContent?alt=a")
        for match in ("path: /ws/**", "path: [/v1/**, /ws/google.*]", "method: POST")
    ),
    *(
        Case(f"empty segments in {target}", match="method: POST", target=target, status=400, sent_target=None)
        for target in ("//ws/other.ai.x", "///ws/google.ai.x", "//ws/google.ai//x", "//ws/google.ai/../x",
                       "//%77s/google.ai.x", "/x//ws/google.ai.x")
    ),
    Case("another Host", headers=(("Host", "evil.test"),), status=421, sent_target=None),
    Case("a web page", headers=(("Origin", "https://evil.test"),), status=403, sent_target=None),
    *(
        Case(f"a request from {site}", headers=(("Sec-Fetch-Site", site),), status=403, sent_target=None)
        for site in ("cross-site", "same-site", "SAME-SITE", "same-origin, cross-site", "elsewhere")
    ),
    *(Case(f"a request from {site}", headers=(("Sec-Fetch-Site", site),)) for site in ("none", "Same-Origin")),
    Case("TRACE", method="TRACE", body=b"", status=403, sent_target=None),
    Case("an untouched body keeps every byte", body=b"\x00\xff {\"model\": 5", sent_body=b"\x00\xff {\"model\": 5"),
    body_case("only the model's string changes", NASTY, NASTY.replace(b'"claude-opus-4"', b'"gw-large"')),
    body_case("an exact name wins", b'{"model":"claude-exact"}', b'{"model":"gw-exact"}'),
    body_case("an exact name wins, with [1m] too", b'{"model":"claude-exact[1M][1m]"}', b'{"model":"gw-exact"}'),
    body_case("a target of the map stays", b'{"model":"gw-exact"}', b'{"model":"gw-exact"}'),
    body_case("null is no model", b'{"model":null}', b'{"model":null}'),
    body_case("an object's further members stay", b'{"model":{"id":"claude-exact","speed":"fast"}}',
          b'{"model":{"id":"gw-exact","speed":"fast"}}'),
    body_case("the default", b'{"a":1,"model":"x"}', b'{"a":1,"model":"gw-small"}'),
    body_case("an escaped key", b'{"\\u006dodel":"claude-opus-4"}', b'{"\\u006dodel":"gw-large"}'),
    body_case("no model", b'{"a":1}', b'{"a":1}'),
    body_case("a BOM", b'\xef\xbb\xbf{"model":"claude-opus-4"}', b'\xef\xbb\xbf{"model":"gw-large"}'),
    *(
        body_case(f"refused: {name}", body, None)
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
    body_case("fields go with their commas", b'{"a":1 , "context":{"x":[1]} ,"tools":[{"d":true,"n":1},{"n":2, "d":0 }] }',
          b'{"a":1 ,"tools":[{"n":1},{"n":2 }] }', rule='body: {remove: [context, "tools[*].d"]}'),
    body_case("fields are set and added", b'{"a": {"b":1} }', b'{"a": {"b":[1, null],"c":"x"},"m":{"u":"\xc3\xa9"} }',
          rule='body: {set: {a.b: [1, null], a.c: x, m.u: "é"}}'),
    *(
        Case(f"a name with {odd} is restored whole", MODELS, match="path: /**", target=target, body=body, sent_body=sent,
             sent_target=f"/base{sent_target}", answer=json.dumps(message(name), ensure_ascii=False).encode())
        for odd, target, sent_target, body, sent, name in [
            ("a NUL", "/v1/messages", "/v1/messages", b'{"model":"a\\u0000b"}', b'{"model":"gw-small"}', "a\0b"),
            ("a NUL, of two", "/v1/messages", "/v1/messages",
             b'{"model":"claude-opus-\\u0000x","fallbacks":[{"model":"\\u0000"}]}',
             b'{"model":"gw-large","fallbacks":[{"model":"gw-small"}]}', "claude-opus-\0x"),
            ("bytes that are no text", "/model/a%C3%FFb/invoke", "/model/gw-small/invoke", b"", b"", "a\ufffd\ufffdb"),
            ("such a byte for a star", "/model/claude-opus-%FF/invoke", "/model/gw-large/invoke", b"", b"",
             "claude-opus-\ufffd"),
        ]
    ),
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
