"""The text of the LLM view: requests, and the responses in `tests/data/conversations`."""

import base64
import json
from pathlib import Path
from typing import Any

from mitm_gateway.llm.conversation import is_conversation, render
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.constants import CONVERSATIONS
from support.llm_view import JSON, SSE, shown
from support.table import table


@table("path", sorted(CONVERSATIONS.glob("*.json")))
def test_a_request_or_response_is_shown_as_the_text_beside_it(path: Path) -> None:
    assert render(path.read_bytes(), JSON) == path.with_suffix(".txt").read_text().rstrip("\n")


def test_a_bare_prompt_is_shown_as_a_message() -> None:
    assert shown({"model": "gpt-5", "input": "hi"}) == "model: gpt-5\n\nuser:\n  hi"


def test_an_empty_list_of_tools_is_not_shown() -> None:
    assert shown({"model": "m", "tools": [], "messages": []}) == "model: m"


def test_long_parts_are_folded_to_a_line_with_their_size() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 2000}]}).encode()
    text = render(body, JSON, limit=16_000)
    assert text.endswith("\n  … 6,000 more characters")
    assert len(text) < 4300
    assert "more characters" not in render(body, JSON)


def test_the_middle_of_a_huge_conversation_is_omitted() -> None:
    messages = [{"role": "user", "content": f"{number} " + "w" * 3000} for number in range(2000)]
    text = shown({"system": "S", "messages": messages})
    assert text.startswith("system (1 byte):\n  S\n\nuser:\n  0\n  w")
    assert "messages omitted" in text
    assert "user:\n  1999\n  w" in text
    assert len(text) < 1_100_000


def test_the_whole_prompt_and_every_tool_are_shown() -> None:
    schema = {
        "type": "object",
        "required": ["command"],
        "properties": {
            "command": {"type": "string", "description": "The command to run."},
            "mode": {"type": "string", "enum": ["fast", "safe"]},
            "files": {
                "type": "array",
                "items": {"type": "object", "properties": {"path": {"type": "string"}}},
            },
        },
    }
    prompt = "\n".join(f"Line {number} of a long prompt." for number in range(5000))
    forms: list[dict[str, Any]] = [
        {"name": "Bash", "description": "Runs a command.", "input_schema": schema},
        {
            "type": "function",
            "function": {"name": "Bash", "description": "Runs a command.", "parameters": schema},
        },
        {"type": "function", "name": "Bash", "description": "Runs a command.", "parameters": schema},
        {"toolSpec": {"name": "Bash", "description": "Runs a command.", "inputSchema": {"json": schema}}},
    ]
    for tool in forms:
        tools = {"toolConfig": {"tools": [tool]}} if "toolSpec" in tool else {"tools": [tool]}
        text = shown({"system": prompt, **tools, "messages": []})
        assert "Line 4999 of a long prompt." in text
        assert text.endswith(
            "tools (1):\n  Bash:\n    Runs a command.\n    parameters:\n"
            "      command (string, required): The command to run.\n      mode (string, one of fast, safe)\n"
            "      files (array)\n        path (string)"
        )


def test_long_lines_are_wrapped_and_keep_their_indent() -> None:
    text = shown({"messages": [{"role": "user", "content": "word " * 100 + "x" * 250 + "\n" + "é" * 101}]})
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join(lines[1:]).count("word") == 100
    assert text.count("x") == 250


def test_a_long_line_without_blanks_is_broken_after_punctuation() -> None:
    text = shown({"messages": [{"role": "user", "content": '{"path":"file.py"},' * 20}]})
    assert all(line.endswith(("},", ":")) for line in text.splitlines()[1:])


@table(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x03\0\x08\6\0\0\0", "1024 × 768 pixels"),
        (b"GIF89a\x10\0\x20\0\0\0\0\0", "16 × 32 pixels"),
        (b"\xff\xd8\xff\xe0\0\4JF\xff\xc0\0\x0b\x08\0\x20\0\x10\1\1\x11\0", "16 × 32 pixels"),
        (b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0\x0f\0\0\x1f\0\0", "16 × 32 pixels"),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"nonsense", None),
    ],
)
def test_an_image_is_shown_by_type_size_and_pixels(data: bytes, expected: str | None) -> None:
    source = {"type": "base64", "media_type": "image/x", "data": base64.b64encode(data).decode()}
    text = shown({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]})
    assert text.startswith("user:\n  image: image/x, ")
    assert text.endswith("pixels") is (expected is not None)
    assert expected is None or expected in text


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\3\0\x08\6\0\0\0\0\0\0").decode()


@table(
    "item",
    [
        {"type": "additional_tools", "tools": [{"name": "grep"}]},
        {"type": "message", "role": "developer", "content": [], "additional_tools": [{"name": "grep"}]},
        {"type": "message", "role": "developer", "tools": [{"name": "grep"}]},
    ],
)
def test_additional_tools_are_shown_at_any_place(item: dict[str, Any]) -> None:
    assert "  tools (1):\n    grep" in shown({"input": [item]})


def test_results_of_tools_that_the_provider_runs_are_shown() -> None:
    screen = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PNG}"}
    found = {"type": "web_search_result", "title": "T", "url": "https://u.test", "encrypted_content": "zzz"}
    body = {
        "input": [
            {"type": "computer_call_output", "call_id": "c", "output": screen},
            {"type": "image_generation_call", "id": "i", "result": PNG},
            {
                "role": "user",
                "content": [{"type": "web_search_tool_result", "tool_use_id": "w", "content": [found]}],
            },
        ],
        "tools": [{"type": "mcp", "server_label": "files"}],
    }
    text = shown(body)
    assert "tools (1):\n  files (mcp)" in text
    assert "tool result c:\n  computer_screenshot: image/png, 33 bytes, 1024 × 768 pixels" in text
    assert "generated image: image/png, 33 bytes, 1024 × 768 pixels" in text
    assert "title: T" in text
    assert "zzz" not in text


def shows(target: str, content_type: str) -> bool:
    return is_conversation("api.example.com", "POST", target, content_type)


def test_the_view_is_the_default_for_conversations_only() -> None:
    assert shows("/v1/messages?beta=true", "application/json; charset=utf-8")
    assert shows("/base/v1/messages/count_tokens", JSON)
    assert shows("/openai/deployments/x/chat/completions", SSE)
    assert shows("/v1/responses", SSE)
    assert shows("/v1beta/models/gemini-pro:streamGenerateContent?alt=sse", SSE)
    assert shows("/model/anthropic.claude-x/invoke-with-response-stream", CONTENT_TYPE)
    assert shows("/v1/projects/p/locations/l/publishers/a/models/m@1:streamRawPredict", SSE)
    assert not shows("/v1/messages", "text/html")
    assert not shows("/v1/models", JSON)
