"""Credentials that rotate, in a real mitmdump: helpers, fresh values after a 401, faults that stay hidden."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.answers import Answer, Reply, Seen, anthropic_error, claude_answers, json_reply, message
from support.constants import REVERSE
from support.processes import Mitmdump
from support.recorder import Recorder
from support.starters import StartMitmdump, StartRecorder

pytestmark = pytest.mark.e2e

NEVER_SHOWN = "text-of-the-helper-0123456789"


@pytest.fixture
def helper(tmp_path: Path) -> Callable[[str], str]:
    """Write a helper of these lines of Python; return its argument list. `runs` counts its runs."""

    def write(code: str) -> str:
        file = tmp_path / f"helper-{len(list(tmp_path.glob('helper-*')))}.py"
        count = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
        number = f"import os, sys, time\n{count}run = os.path.getsize({str(tmp_path / 'runs')!r})\n"
        file.write_text(number + code)
        return f"[{sys.executable}, {file}]"

    return write


def runs(tmp_path: Path) -> int:
    file = tmp_path / "runs"
    return file.stat().st_size if file.exists() else 0


def rules(upstream: Recorder, command: str, extra: str = "", more: str = "") -> str:
    return f"""
credentials:
  sso: {{command: {command}{extra}}}
rules:
  - name: gw
    match: {{host: api.anthropic.com, path: /v1/**}}
    upstream: {upstream.url}
    auth: {{scheme: bearer, credential: sso}}
{more}
"""


def only_token_2(request: Seen) -> Answer:
    """An upstream that accepts only the second token."""
    if request.values("authorization") == ["Bearer token-2"]:
        if request.path.endswith("/chat/completions"):
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "hello"},
                "finish_reason": "stop",
            }
            return json_reply(
                {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            )
        return json_reply(message())
    # As real upstreams do: nothing tells the client that a 401 may be worth another try.
    return json_reply({"error": {"message": "expired", "type": "authentication_error"}}, 401)


def ask(proxy: Mitmdump, retries: int = 2) -> str:
    import anthropic

    client = anthropic.Anthropic(base_url=proxy.url, api_key="placeholder", max_retries=retries)
    answer = client.messages.create(
        model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    return str(answer.content[0].to_dict()["text"])


def test_after_a_401_the_anthropic_sdk_gets_the_fresh_value(
    recorder: StartRecorder, mitmdump: StartMitmdump, helper: Callable[[str], str], tmp_path: Path
) -> None:
    upstream = recorder(only_token_2)
    proxy = mitmdump(rules=rules(upstream, helper("print(f'token-{run}')")), modes=REVERSE)
    assert ask(proxy) == "hello there"
    sent = [request.header("authorization") for request in upstream.requests]
    assert sent == ["Bearer token-1", "Bearer token-2"]
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(
    ("body", "fields", "runs_expected"),
    [
        ({"message": "Invalid Token"}, (), 2),
        ({"message": "x"}, (("x-amzn-ErrorType", "ExpiredTokenException"),), 2),
        ({"message": "no access to this model"}, (("x-amzn-ErrorType", "AccessDeniedException"),), 1),
    ],
    ids=["body", "header", "permission"],
)
def test_a_403_of_a_dead_token_drops_the_value(
    recorder: StartRecorder,
    mitmdump: StartMitmdump,
    helper: Callable[[str], str],
    tmp_path: Path,
    body: dict[str, str],
    fields: tuple[tuple[str, str], ...],
    runs_expected: int,
) -> None:
    import anthropic

    headers = (("Content-Type", "application/json"), *fields)
    refused = Reply(403, json.dumps(body).encode(), headers)
    upstream = recorder(
        lambda request: (
            claude_answers(request) if request.values("authorization") == ["Bearer token-2"] else refused
        )
    )
    proxy = mitmdump(rules=rules(upstream, helper("print(f'token-{run}')")), modes=REVERSE)
    for _ in range(2):
        with contextlib.suppress(anthropic.PermissionDeniedError):
            ask(proxy, 0)
    assert runs(tmp_path) == runs_expected


def test_after_a_401_the_openai_sdk_gets_the_fresh_value(
    recorder: StartRecorder, mitmdump: StartMitmdump, helper: Callable[[str], str]
) -> None:
    import openai

    upstream = recorder(only_token_2)
    text = rules(upstream, helper("print(f'token-{run}')")).replace("api.anthropic.com", "api.openai.com")
    proxy = mitmdump(rules=text, modes=["reverse:https://api.openai.com"])
    client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="placeholder", max_retries=2)
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hello"
    assert len(upstream.requests) == 2


def test_a_value_that_stays_the_same_is_dropped_only_once(
    recorder: StartRecorder, mitmdump: StartMitmdump, helper: Callable[[str], str], tmp_path: Path
) -> None:
    import anthropic

    upstream = recorder(only_token_2)
    proxy = mitmdump(rules=rules(upstream, helper("print('token-9')")), modes=REVERSE)
    with pytest.raises(anthropic.AuthenticationError):
        ask(proxy)
    assert len(upstream.requests) == 2
    assert runs(tmp_path) == 2


def test_many_requests_wait_for_one_run_and_others_do_not_wait(
    recorder: StartRecorder, mitmdump: StartMitmdump, helper: Callable[[str], str], tmp_path: Path
) -> None:
    import anthropic

    upstream = recorder(claude_answers)
    gate = tmp_path / "gate"
    slow = helper(f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)\nprint('token-1')")
    more = f"""
  - name: quick
    match: {{host: api.openai.com, path: /v1/**}}
    upstream: {upstream.url}
    auth: {{scheme: none}}
"""
    proxy = mitmdump(
        rules=rules(upstream, slow, ", timeout: 60s", more),
        modes=["reverse:https://api.anthropic.com", "reverse:https://api.openai.com"],
    )
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(proxy, 0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    # The helper is held until a request of another rule has been answered, and runs once for all.
    quick = anthropic.Anthropic(
        base_url=f"http://127.0.0.1:{proxy.ports[1]}", api_key="placeholder", max_retries=0, timeout=20
    )
    body = quick.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    assert body.stop_reason == "end_turn"
    assert answers == []
    gate.touch()
    for thread in threads:
        thread.join(30)
    assert answers == ["hello there"] * 20
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (f"print('{NEVER_SHOWN}'); print('{NEVER_SHOWN}', file=sys.stderr); sys.exit(3)", "exit status 3"),
        (f"print('{NEVER_SHOWN}', flush=True); time.sleep(600)", "took longer than 1 s"),
        (f"print('{NEVER_SHOWN}' * 50000)", "printed more than 64 KiB"),
    ],
    ids=["fails", "hangs", "megabyte"],
)
def test_a_faulty_helper_is_refused_without_its_output(
    recorder: StartRecorder, mitmdump: StartMitmdump, helper: Callable[[str], str], code: str, kind: str
) -> None:
    import anthropic

    upstream = recorder(lambda request: anthropic_error(500, "api_error", "not to be asked"))
    proxy = mitmdump(rules=rules(upstream, helper(code), ", timeout: 1s"), modes=REVERSE)
    # The client's own retries are on: no retry cures a faulty helper, so there is one request.
    with pytest.raises(anthropic.APIStatusError) as refused:
        ask(proxy, 0 if "took" in kind else 2)
    wanted = (502, None) if "took" in kind else (424, "false")
    assert (refused.value.status_code, refused.value.response.headers.get("x-should-retry")) == wanted
    assert proxy.output().count("refused with") == 1
    assert 'credential "sso": ' in str(refused.value)
    assert kind in str(refused.value)
    assert NEVER_SHOWN not in str(refused.value) + proxy.output()
    assert upstream.raw == b""
