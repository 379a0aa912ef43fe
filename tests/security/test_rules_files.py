"""Acceptance cases 56 to 60: hostile, wrong and foreign rules files, and the script."""

import ast
import os
from pathlib import Path

import pytest

from mitm_gateway.rules.load import load, parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.text.redact import looks_like_key
from support.constants import API, ROOT
from support.counted_work import work
from support.fixture_types import StartMitmdump
from support.security_stage import RULES
from support.table import table

BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)),
    "merge": "a: &a {x: 1}\n"
    + "".join(f"m{n}: &m{n} {{<<: [{','.join(['*a'] * 50)}]}}\n" for n in range(500)),
    "loop": "rules: &a [*a]\n",
    "tag": "rules: !!python/object/apply:os.system [id]\n",
    "deep": "rules: " + "[" * 20_000,
    "deep-block": "".join(" " * n + "- \n" for n in range(3000)),
    "long": "rules: " + "a" * (300 << 10),
}
MAX_STEPS = 2_000_000  # lines and calls of Python: about a second


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_56_a_bomb_is_a_load_error(text: str) -> None:
    def load() -> None:
        with pytest.raises(RulesError):
            parse_rules(text.encode(), "rules.yaml", {})

    assert work(load) < MAX_STEPS


MISTAKES = {
    "second rules": (RULES + "rules: []\n", r'rules\.yaml:\d+:1: duplicate key "rules"'),
    "hots": (
        RULES.replace("match: {host: api", "match: {hots: api"),
        r'rules\.yaml:\d+:\d+: unknown key "hots"',
    ),
    "no": (RULES.replace(f"host: {API}", "host: no"), r"rules\.yaml:\d+:\d+: .*boolean"),
    "two documents": (RULES + "---\nrules: []\n", r"rules\.yaml:\d+:\d+: "),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_57_a_mistake_is_reported_with_its_position(text: str, expected: str) -> None:
    with pytest.raises(RulesError, match=expected):
        parse_rules(text.encode(), "rules.yaml", {})


@pytest.mark.e2e
def test_58_rules_in_the_current_directory_are_not_used(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    script = tmp_path / "elsewhere" / "addon"
    script.mkdir(parents=True)
    (script / "gateway.py").write_text((ROOT / "addon" / "gateway.py").read_text())
    (script / "mitm_gateway").symlink_to(ROOT / "addon" / "mitm_gateway")
    proxy = mitmdump(script=script / "gateway.py", wait=False)
    assert proxy.wait_for_exit() == 1
    assert "there is no such file" in proxy.output()


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_58_rules_that_others_may_write_are_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    file.chmod(mode)
    with pytest.raises(RulesError, match="may write"):
        load(file, {})


def test_58_rules_in_a_folder_that_others_may_write_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    file.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(RulesError, match="may write"):
        load(file, {})
    tmp_path.chmod(0o1777)  # as in /tmp: others cannot put another file in its place
    assert load(file, {}).rules


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_58_rules_of_another_user_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    file.chmod(0o600)
    os.chown(file, 4711, -1)
    with pytest.raises(RulesError, match="another user"):
        load(file, {})


# A part of the rules, and the same with a key in it.
PLACES = [
    ("{env: GW_KEY}", "{env: KEY}"),
    ("    models:", "    headers: {set: {Editor-Version: KEY}}\n    models:"),
    ("name: gw", "name: KEY"),
]


@table("key", ["sk-ant-api03-0123456789abcdef", "ghp_0123456789abcdef0123456789", "AIza" + "x" * 35])
@table(("part", "replacement"), PLACES)
def test_59_a_key_in_the_rules_is_refused_and_not_printed(key: str, part: str, replacement: str) -> None:
    assert part in RULES
    with pytest.raises(RulesError) as refused:
        parse_rules(RULES.replace(part, replacement.replace("KEY", key), 1).encode(), "rules.yaml", {})
    assert key not in str(refused.value)
    assert not looks_like_key(str(refused.value))


# Names that mitmproxy would call as hooks if they stood in the script.
HOOKS = {
    "load", "configure", "running", "done", "update", "request", "requestheaders", "response", "responseheaders",
    "error", "client_connected", "server_connect", "http_connect", "tls_clienthello", "tcp_start", "next_layer", "options",
}  # fmt: skip


@pytest.mark.parametrize("script", ["addon/gateway.py", "addon/mitm_gateway/script/gateway.py"])
def test_60_the_script_defines_nothing_that_could_be_a_hook(script: str) -> None:
    tree = ast.parse((ROOT / script).read_text())
    names = {alias.asname or alias.name for node in ast.walk(tree)
             if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & HOOKS
    assert not [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    ]


def test_60_nothing_that_mitmproxy_imports_can_end_the_process() -> None:
    for file in (ROOT / "addon" / "mitm_gateway").rglob("*.py"):
        if "cli" in file.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("sys.exit", "os._exit", "os.abort"), file
            assert not (isinstance(node, ast.Name) and node.id in ("exit", "quit", "SystemExit")), file
