"""The architecture, enforced: packages import downwards only, and few of them know mitmproxy."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from support.constants import PACKAGE, ROOT

# Each package may import from itself and from those above it in this list. Its `__init__.py` opens with the line.
PACKAGES = {
    "text": "Hostile or secret text made harmless: masking, printable text, bounded JSON.",
    "wire": "HTTP's own vocabulary: addresses, request heads, refusals, content encodings, event streams, signatures.",
    "rules": "The bytes of a rules file become a RuleSet; every mistake is reported with file, line and column.",
    "credentials": "Secrets and where they come from: environment, files, helper programs, AWS.",
    "llm": "The meaning of the providers' JSON: models, token counts, conversations, hints.",
    "exchange": "One request and its response, pure: admission, plan, edits, restore, record.",
    "observe": "Destinations of records: log file, statistics, OpenTelemetry, the Gateway view.",
    "recordings": "Recorded requests: as a list, as text, as JSON Lines, as a page, or as cases for a rules file.",
    "clients": "Client programs as dated data, and the environment that each of them needs.",
    "demo": "The embedded demo gateway: a small Messages API server on loopback that insists on a bearer token.",
    "envoy": "The same rules for Envoy: a RuleSet becomes configuration files that contain no secret.",
    "patches": "Every change to mitmproxy's insides, and nothing else.",
    "mitm": "Everything else that knows mitmproxy: hooks, options, commands, views.",
    "cli": "The command `mitm-gateway`: one module for each subcommand.",
}
ORDER = list(PACKAGES)
# Commands start mitmproxy's tools.
MITMPROXY_USERS = {"patches", "mitm", "cli"}
# Names that mitmproxy would call as hooks if they stood in the script.
HOOKS = {
    "load", "configure", "running", "done", "update", "request", "requestheaders", "response",
    "responseheaders", "error", "client_connected", "server_connect", "http_connect", "tls_clienthello",
}  # fmt: skip
SCRIPTS = (ROOT / "addon" / "gateway.py", PACKAGE / "script" / "gateway.py")


def modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py" and path not in SCRIPTS
    ]


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Top-level packages; one of ours as `.name`."""
    found: set[str] = set()
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {f".{name}" for name in names}
    return found


def test_the_list_contains_exactly_the_packages() -> None:
    beside = {
        "__init__",
        "script",
        "py",
        "rules",
    }  # the version, a path, `py.typed` and the schema for editors
    found = {path.name.partition(".")[0] for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found - beside | {"rules"} == set(PACKAGES)


@pytest.mark.parametrize("name", ORDER)
def test_a_package_opens_with_its_description(name: str) -> None:
    documentation = importlib.import_module(f"mitm_gateway.{name}").__doc__
    assert documentation is not None
    assert documentation.partition("\n")[0] == PACKAGES[name]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_list_only(path: Path) -> None:
    allowed = {*ORDER[: ORDER.index(package_of(path)) + 1], "__version__"}
    assert {name[1:] for name in imports(path) if name.startswith(".")} <= allowed


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_some_packages_import_mitmproxy(path: Path) -> None:
    assert package_of(path) in MITMPROXY_USERS or "mitmproxy" not in imports(path)


def test_the_script_is_a_path_line_and_the_addon() -> None:
    for script in SCRIPTS:
        tree = ast.parse(script.read_text())
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
        names = {alias.asname or alias.name for node in ast.walk(tree)
                 if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & HOOKS


def test_only_the_script_and_the_package_lie_in_the_addon_folder() -> None:
    found = {path.name for path in (ROOT / "addon").iterdir() if path.name != "__pycache__"}
    assert {name for name in found if not name.endswith(".egg-info")} == {"gateway.py", "mitm_gateway"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_exits_the_program_while_it_is_imported(path: Path) -> None:
    if path.parent.name == "cli":
        return  # a command may exit; mitmproxy does not import it before it serves
    called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    exits = [
        call.attr for call in called if isinstance(call, ast.Attribute) and call.attr in ("exit", "_exit")
    ]
    assert not exits
