"""The architecture, held: imports go one way, mitmproxy stays in the shell, the script stays empty."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "addon" / "mitm_gateway"

# Each layer may import from itself and from those before it.
LAYERS = [
    {
        "shown",
        "stats",
        "hints",
        "plainjson",
        "eventstream",
        "answers",
        "converse",
        "reading",
        "conversation",
        "report",
    },
    {
        "problems",
        "redact",
        "addresses",
        "variables",
        "sse",
        "decoding",
        "fieldpaths",
        "body",
        "bodyedits",
        "restore",
        "usage",
    },
    {"patterns", "refusals", "yamlnodes", "schema", "head", "sigv4"},
    {"matching", "presets", "checks", "forms", "load", "guard", "respond"},
    {
        "plan",
        "headers",
        "record",
        "telemetry",
        "otel",
        "explain",
        "credentials",
        "helper",
        "values",
        "demo",
        "clientenv",
        "claudesettings",
        "tokens",
        "export",
    },
    {"shell"},
    {"cli", "script"},
]
# Commands start mitmproxy's tools; nothing else outside the shell may know it.
MITMPROXY_USERS = {"shell", "cli", "script"}
# Names that mitmproxy would call as hooks if they stood in the script.
HOOKS = {
    "load", "configure", "running", "done", "update", "request", "requestheaders", "response",
    "responseheaders", "error", "client_connected", "server_connect", "http_connect", "tls_clienthello",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> tuple[str, int] | None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return next(((part, number) for number, names in enumerate(LAYERS) if part in names), None)


def imports(path: Path) -> set[str]:
    """Top-level packages, and for relative imports the module of ours as `.name`."""
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


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    place = layer_of(path)
    if path == PACKAGE / "__init__.py":
        return
    assert place is not None, "every module has a layer; add it to LAYERS"
    part, layer = place
    allowed = {name for names in LAYERS[: layer + 1] for name in names} | {"__version__"}
    ours = {name[1:] for name in imports(path) if name.startswith(".")}
    assert ours <= allowed
    if part not in MITMPROXY_USERS:
        assert "mitmproxy" not in imports(path)


def test_the_script_is_a_path_line_and_the_addon() -> None:
    for script in (ROOT / "addon" / "gateway.py", PACKAGE / "script" / "gateway.py"):
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
