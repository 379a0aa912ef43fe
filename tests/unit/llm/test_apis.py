"""The table of APIs, and the lookup of a request's API."""

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.llm.apis import APIS, OTHER, Api, Form
from mitm_gateway.llm.calls import call_of, has_two_readings, identify
from support.builders import make_head
from support.endpoints import endpoints
from support.table import table


@table(
    ("request_line", "api", "model"),
    [
        ("POST /base/v1/messages/", "messages", None),
        ("POST /v1/messages/batches/b_1/cancel", "message-batch", None),
        ("POST /model/us.anthropic.claude-3%3A0/invoke", "bedrock-invoke", "us.anthropic.claude-3:0"),
        ("POST /model/m/invoke-with-response-stream?x=1", "bedrock-invoke", "m"),
        ("POST /model/arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x/converse", "bedrock-converse",
         "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x"),
        ("POST /model/arn%3Aaws%3Abedrock%3A%3A1%3Ainference-profile%2Feu.x/invoke", "bedrock-invoke",
         "arn:aws:bedrock::1:inference-profile/eu.x"),
        ("POST /v1/projects/p/locations/l/publishers/anthropic/models/claude-4@20250101:rawPredict",
         "vertex-messages", "claude-4@20250101"),
        ("POST /v1/models/count-tokens:rawPredict", "vertex-count", None),
        ("POST /v1beta/models/text-embedding:batchEmbedContents", "gemini", "text-embedding"),
        ("POST /v1beta/models/gemini-pro:countTokens", "gemini-count", "gemini-pro"),
        ("GET /v1beta/models/veo/operations/17", "gemini", "veo"),
        ("POST /openai/deployments/gpt/chat/completions", "chat-completions", "gpt"),
        ("POST /OpenAI/Deployments/gpt/Chat/Completions", "chat-completions", "gpt"),
        ("POST /openai/deployments/gpt/images/generations", "azure-deployments", "gpt"),
        ("POST /openai/deployments/azure/gpt/chat/completions", "chat-completions", "azure/gpt"),
        ("POST /openai/deployments/gpt/v1/chat/completions", "chat-completions", "gpt"),
        ("POST /openai/deployments/gpt/extensions/chat/completions", "chat-completions", "gpt"),
        ("POST /openai-api/deployments/gpt/embeddings", "embeddings", "gpt"),
        ("GET /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?x=1", "gemini-live", None),
        ("GET /ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent", "gemini-live", None),
        ("POST /upload/v1beta/files?upload_id=1", "gemini-files", None),
        ("POST /upload/v1beta/fileSearchStores/s:uploadToFileSearchStore", "gemini-files", None),
        ("POST /v1beta/interactions", "interactions", None),
        ("POST /v1/projects/p/locations/l/batchPredictionJobs", "gemini", None),
        ("GET /api/v1/models/anthropic/claude/endpoints", "model-endpoints", "anthropic/claude"),
        ("POST /v1/deployments/depl_1/run", "other", None),
        ("GET /v1/models", "models", None),
        ("GET /v1/models/claude", "model", "claude"),
        ("GET /v1/models/anthropic%2Fclaude", "model", "anthropic/claude"),
        ("GET /v1/models/anthropic/claude", "model", "anthropic/claude"),
        ("GET /v1/models/llama3:latest", "model", "llama3:latest"),
        ("GET /v1/%6Dodels/claude", "model", "claude"),
        ("GET /v1/files", "other", None),
        ("GET /", "other", None),
        ("OPTIONS *", "other", None),
    ],
)  # fmt: skip
def test_a_request_is_identified_by_method_and_path_however_they_are_written(
    request_line: str, api: str, model: str | None
) -> None:
    method, _, target = request_line.partition(" ")
    call = call_of(make_head(target, method=method))
    assert (call.api.name, call.model) == (api, model)


@table(
    ("path", "model", "expected"),
    [
        ("/model/a/invoke", "arn:aws:x/y", "/model/arn:aws:x%2Fy/invoke"),
        ("/v1/models/a", "anthropic/b", "/v1/models/anthropic%2Fb"),
        ("/v1/models/a/b", "anthropic/c", "/v1/models/anthropic/c"),
        ("/v1beta/models/a:countTokens", "b?", "/v1beta/models/b%3F:countTokens"),
        ("/openai/deployments/a/embeddings", "b c", "/openai/deployments/b%20c/embeddings"),
    ],
)
def test_another_model_is_written_into_the_path_in_the_clients_way(
    path: str, model: str, expected: str
) -> None:
    assert identify("api.example.com", "POST", path).path_with(model) == expected


@table(
    ("host", "path", "form"),
    [
        ("api.anthropic.com", "/v1/models", "anthropic"),
        ("api.openai.com", "/v1/models", "openai"),
        ("generativelanguage.googleapis.com", "/v1beta/models", "gemini"),
        ("europe-west1-aiplatform.googleapis.com", "/v1/files", "gemini"),
        ("aiplatform.eu.rep.googleapis.com", "/v1/files", "gemini"),
        ("cloudcode-pa.googleapis.com", "/", "gemini"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "/", "bedrock"),
        ("vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "/", "bedrock"),
        ("bedrock-agent-runtime.cn-north-1.amazonaws.com.cn", "/", "bedrock"),
        ("bedrock.eu-west-1.amazonaws.com", "/foundation-models", "bedrock"),
        ("bedrock-mantle.eu-west-1.api.aws", "/", "anthropic"),
        ("eu.api.openai.com", "/v1/models", "openai"),
        ("chatgpt.com", "/backend-api/codex/models", "openai"),
        ("r.cognitiveservices.azure.com", "/openai/models", "openai"),
        ("api.groq.com", "/openai/v1/models", "openai"),
        ("x.openai.azure.com", "/openai/files", "openai"),
        ("gateway.example.com", "/v1/chat/completions", "openai"),
        ("gateway.example.com", "/v1/audio/speech", "openai"),
        ("gateway.example.com", "/v1/responses/resp_1/cancel", "openai"),
        ("gateway.example.com", "/model/m/converse", "bedrock"),
        ("gateway.example.com", "/v1beta/models/m:generateContent", "gemini"),
        ("gateway.example.com", "/", "anthropic"),
        ("api.openai.com", "/v1/messages", "anthropic"),
    ],
)
def test_the_form_depends_on_the_endpoint_and_then_on_the_host(host: str, path: str, form: Form) -> None:
    assert identify(host, "POST", path).form == form


@table("api", APIS)
def test_every_endpoint_leads_to_its_own_entry(api: Api) -> None:
    for method, path in endpoints(api):
        call = identify("api.example.com", method, path.replace("{model}", "name"))
        assert call.api is api, path
        assert call.model == ("name" if "{model}" in path else None), path


@given(st.text("/models:invk%2Fé?A", max_size=60), st.sampled_from(["GET", "POST"]))
def test_a_model_is_found_at_its_place(path: str, method: str) -> None:
    call = identify("api.example.com", method, "/" + path)
    if call.model is not None:
        assert call.span
        assert call.span[0] < call.span[1]
        assert identify("api.example.com", method, call.path_with(call.model)).model == call.model


@table(
    "target",
    [
        "/v1/messages%2Fbatches", "/v1/messages%252Fbatches", "/v1/messages;x", "/v1/messages;x/batches", "/v1/messages%3B",
        "/v1/messages%20", "/v1/messages%00", "/v1/messages%23x", "/v1/messages#x", "/v1/messages%3Fx", "/v1\\messages",
        "/v1/messages%5cbatches", "/v1/;x/messages%2f", "/v1%2Fmessages", "/model%2Fm/invoke", "/model/m%2Finvoke",
        "/v1/models/m;x", "/v1/models/m%2F", "/v1/models/m%20", "/v1/models/%09m", "/v1/models%2Fm", "/v1/models/m%253Bx",
        "/openai/deployments%2Fm/embeddings", "/openai/deployments/m;x/embeddings",
    ],
)  # fmt: skip
def test_a_path_that_servers_may_read_otherwise_is_known(target: str) -> None:
    assert has_two_readings(make_head(target))


@table(
    "target",
    [
        "/v1/messages", "/v1/messages?x=%2F;#", "/v1/%6dessages/", "/v1/Messages", "/v1/models/anthropic%2Fclaude",
        "/v1/models/m%C3%A9", "/v1/models/a%20b", "/model/arn%3Aaws%3Abedrock%3A%3A1%3Ainference-profile%2Feu.x/invoke",
        "/openai/deployments/azure%2Fgpt/chat/completions", "/v1/files/a%2Fb%20c", "/v1/files;x", "/x%5Cy",
        "/v1beta/models/m%3AgenerateContent",
    ],
)  # fmt: skip
def test_other_encoded_paths_have_one_reading(target: str) -> None:
    assert not has_two_readings(make_head(target))


def test_a_hostile_path_is_read_once() -> None:
    for part in ("/model/", "/models/", "/invoke", ":", "/openai/deployments/"):
        path = part * (120_000 // len(part))
        assert identify("api.example.com", "POST", path).api.name in {OTHER.name, *(api.name for api in APIS)}
