"""The failure matrix (case 28): every step inside the gateway, every kind of failure, first and second request.

After a fault on a request's way out, the client gets a local answer or a closed connection, no upstream gets a
byte, and the next request is served. A fault on the way back shows no key.
"""

import contextlib
import inspect
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from support.certificates import Authority
from support.constants import API, GATEWAY, GW, GW_MARK, TESTS
from support.fixture_types import StartMitmdump
from support.recorder import Recorder
from support.scripts.faults import STEPS, UNTOLD
from support.security_stage import API_HEADERS, BODY, RULES, Client, Stage, answers
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

SCRIPT = TESTS / "support" / "scripts" / "faults.py"
# A helper whose value runs out at once is run for each request.
SLOW_KEY = "{command: [/bin/sh, -c, 'echo $GW_KEY'], ttl: 1ms}"
HOWS = ("raise", "hang", "empty", "cancelled")
# These run at the start and when a file has changed, not for each request.
AT_TIMES = {"load", "demo"}
# A step without `async` that hangs holds everything up, and then fails as one that raises does.
WAYS = {
    step: [how for how in HOWS if (step, how) not in UNTOLD
           and (how != "hang" or inspect.iscoroutinefunction(getattr(owner, name)))]
    for step, (owner, name, _) in STEPS.items() if step not in AT_TIMES
}  # fmt: skip
ON_THE_WAY_OUT = [step for step in WAYS if STEPS[step][2]]
ON_THE_WAY_BACK = [step for step in WAYS if not STEPS[step][2]]
# An empty result of these is a true one elsewhere: no objection, nothing to check, nothing to change.
MAY_BE_EMPTY = {
    *("guard", "names", "form", "remember", "set_body", "check", "knows_host"),
    "credential",  # not at hand, so it is fetched
}


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Control file that names the broken step."""
    file = tmp_path_factory.mktemp("fault") / "fault"
    file.write_text("")
    return file


@pytest.fixture(scope="module")
def breaking_stage(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, fault: Path
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    rules = RULES.replace("{env: GW_KEY}", SLOW_KEY)
    env = {"TEST_FAULT": str(fault), "PYTHONPATH": str(GATEWAY.parent)}
    # The script is first, so that it is there when the rules are loaded.
    with Stage(folder, authority, "-s", str(GATEWAY), script=SCRIPT, rules=rules, env=env) as stage:
        yield stage


@contextlib.contextmanager
def broken(fault: Path, step: str, how: str) -> Iterator[None]:
    """Break the step for the duration of the block."""
    fault.write_text(f"{step} {how}")
    try:
        yield
    finally:
        fault.write_text("")


def outcome(stage: Stage, second: bool, fault: Path, step: str, how: str) -> int | None:
    """Status that the client received for a connection's first or second request; None if the connection was closed."""
    client = None
    if second:
        client = stage.plain()
        assert ask(client) == 200
    stage.warmed_up()
    with broken(fault, step, how):
        return ask(client or stage.plain())


def ask(client: Client) -> int | None:
    """Send a request; return the status of its answer, None if the connection was closed."""
    try:
        answer = client.request("POST", f"http://{API}/v1/messages", API_HEADERS, BODY)
    except ConnectionError:
        return None
    if answer.status != 200:
        assert json.loads(answer.body)["error"]["message"].startswith("mitm-gateway: ")
    return answer.status


@pytest.mark.parametrize("step", ON_THE_WAY_OUT)
def test_28_a_fault_in_a_request_causes_a_local_error(breaking_stage: Stage, fault: Path, step: str) -> None:
    with breaking_stage.case() as stage:
        for how, second in product(WAYS[step], (False, True)):
            status = outcome(stage, second, fault, step, how)
            if status == 200:
                # Asked once for each connection, so a second request does not meet them.
                is_not_met = second and step in ("check_peer", "arrival_of", "leads", "own_ports")
                assert is_not_met or (how == "empty" and step in MAY_BE_EMPTY), (how, second)
            else:
                assert status in (400, 502, None), (how, second)
                stage.assert_silence()


@pytest.mark.parametrize("step", ON_THE_WAY_BACK)
def test_28_a_fault_in_a_response_shows_no_key(breaking_stage: Stage, fault: Path, step: str) -> None:
    with breaking_stage.case() as stage:
        for how, second in product(WAYS[step], (False, True)):
            assert outcome(stage, second, fault, step, how) in (200, 502, None), (how, second)


@pytest.mark.parametrize("how", HOWS)
def test_28_a_fault_while_the_first_rules_load_lets_nothing_through(
    authority: Authority, tmp_path: Path, mitmdump: StartMitmdump, how: str
) -> None:
    fault = tmp_path / "fault"
    fault.write_text(f"load {how}")
    with Recorder(answers) as upstream:
        proxy = mitmdump(
            *("-s", str(GATEWAY)),
            script=SCRIPT,  # first, so that it is there when the rules are loaded
            rules=RULES.replace("https://gw.test", upstream.url),
            names={f"{API}:80": upstream.port},
            env={"TEST_FAULT": str(fault), "GW_KEY": GW, "PYTHONPATH": str(GATEWAY.parent)},
            wait=False,
        )
        answer, deadline = None, time.monotonic() + 60
        while answer is None and proxy.process.poll() is None:
            assert time.monotonic() < deadline, proxy.output()
            with contextlib.suppress(OSError, IndexError), Client(proxy.port) as client:
                answer = client.request("POST", f"http://{API}/v1/messages", API_HEADERS, BODY)
        # It ends; and where a fault did not end it, it serves nothing.
        assert answer.status == 503 if answer else proxy.process.returncode == 1
        assert upstream.raw == b""


@pytest.mark.parametrize("how", HOWS)
def test_28_a_fault_during_a_reload_keeps_the_old_rules(breaking_stage: Stage, fault: Path, how: str) -> None:
    with breaking_stage.case() as stage:
        before = stage.proxy.rules_file.read_text()
        told = stage.proxy.output().count("cannot reload")
        with broken(fault, "load", how):
            stage.proxy.write_rules(before.replace("gw-model", "other-model"))
            stage.proxy.wait_for_output(rf"(?s)(cannot reload.*){{{told + 1}}}")
            assert stage.ask().status == 200
            assert stage.asked.json["model"] == "gw-model"
        stage.proxy.write_rules(before.replace("gw-model", "third-model"))
        wait_for_model(stage, "third-model")
        stage.proxy.write_rules(before)
        wait_for_model(stage, "gw-model")


def wait_for_model(stage: Stage, model: str) -> None:
    """Ask until the rules that name this model are in force."""
    wait_until(lambda: stage.ask().status == 200 and stage.asked.json["model"] == model, stage.proxy.output)


@pytest.mark.parametrize("how", HOWS)
def test_28_a_demo_gateway_that_does_not_start_causes_a_local_error(
    authority: Authority, tmp_path: Path, mitmdump: StartMitmdump, how: str
) -> None:
    fault = tmp_path / "fault"
    fault.write_text(f"demo {how}")
    with Recorder(answers) as upstream:
        proxy = mitmdump(
            *("-s", str(SCRIPT)),
            rules=RULES.replace("https://gw.test\n", "demo\n"),
            names={f"{API}:80": upstream.port, f"{API}:443": upstream.port},
            env={"TEST_FAULT": str(fault), "GW_KEY": GW},
        )
        for _ in range(1 if how == "hang" else 2):
            with Client(proxy.port) as client:
                answer = client.request("POST", f"http://{API}/v1/messages", API_HEADERS, BODY)
            assert answer.status in (502, 503), answer
            assert json.loads(answer.body)["error"]["message"].startswith("mitm-gateway: ")
        assert upstream.raw == b""
        assert GW_MARK not in proxy.output()


def test_each_step_of_the_matrix_is_met(
    authority: Authority, tmp_path: Path, mitmdump: StartMitmdump
) -> None:
    fault = tmp_path / "fault"
    fault.write_text("")
    with Recorder(answers) as upstream:
        proxy = mitmdump(
            # The original request is stored only where flows are kept.
            *("-s", str(GATEWAY), "-w", str(tmp_path / "flows"), "--set", f"gateway_log={tmp_path / 'log'}"),
            *("--set", "gateway_body_limit=100"),
            script=SCRIPT,
            rules=RULES.replace("https://gw.test", upstream.url).replace("{env: GW_KEY}", SLOW_KEY)
            + "  - {name: demo, match: {host: demo.test}, upstream: demo}\n",
            env={"TEST_FAULT": str(fault), "GW_KEY": GW, "PYTHONPATH": str(GATEWAY.parent)},
        )
        for body, status in [(BODY, 200), (b"[", 400), (b"a" * 200, 413)]:
            with Client(proxy.port) as client:
                assert client.request("POST", f"http://{API}/v1/messages", API_HEADERS, body).status == status
        proxy.stop()  # the last flows are recorded by then
    assert set((tmp_path / "fault.met").read_text().split()) == set(STEPS)
