"""The architecture, enforced: packages import downwards only, and few of them know mitmproxy."""

import ast
import importlib
from collections.abc import Iterator
from functools import cache

from support.constants import PACKAGE, ROOT
from support.table import table

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
MODULE_LINES, FUNCTION_LINES = 400, 50
# Commands start mitmproxy's tools.
MITMPROXY_USERS = {"patches", "mitm", "cli"}


@cache
def trees(package: str) -> dict[str, ast.Module]:
    """The modules of a package."""
    paths = (PACKAGE / package).rglob("*.py") if (PACKAGE / package).is_dir() else [PACKAGE / f"{package}.py"]
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(paths)}


def imports(name: str, tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports; one of ours as `.name`."""
    found: set[str] = set()
    depth = name.count("/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {f".{name}" for name in names}
    return found


def test_the_list_contains_exactly_the_packages() -> None:
    beside = {"__init__", "script", "py", "rules"}  # the version, a path, `py.typed`, the schema for editors
    found = {path.name.partition(".")[0] for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found - beside | {"rules"} == set(PACKAGES)


@table("name", ORDER)
def test_a_package_opens_with_its_description(name: str) -> None:
    documentation = importlib.import_module(f"mitm_gateway.{name}").__doc__
    assert documentation is not None
    assert documentation.partition("\n")[0] == PACKAGES[name]


@table("package", ORDER)
def test_imports_go_down_the_list_only(package: str) -> None:
    allowed = {f".{name}" for name in (*ORDER[: ORDER.index(package) + 1], "__version__")}
    upwards = {
        name: {one for one in imports(name, tree) if one.startswith(".")} - allowed
        for name, tree in trees(package).items()
    }
    assert not any(upwards.values()), upwards


@table("package", [package for package in ORDER if package not in MITMPROXY_USERS])
def test_only_some_packages_import_mitmproxy(package: str) -> None:
    assert [name for name, tree in trees(package).items() if "mitmproxy" in imports(name, tree)] == []


def test_only_the_script_and_the_package_lie_in_the_addon_folder() -> None:
    found = {path.name for path in (ROOT / "addon").iterdir() if path.name != "__pycache__"}
    assert {name for name in found if not name.endswith(".egg-info")} == {"gateway.py", "mitm_gateway"}


def outermost_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a module that are in no other function; those inside are shorter."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.stmt):
            yield from outermost_functions(child)


def test_modules_and_functions_are_short() -> None:
    long = []
    for file in (each for folder in ("addon", "tests", "bench") for each in (ROOT / folder).rglob("*.*")):
        if file.suffix in (".py", ".lua") and (lines := len(file.read_text().splitlines())) > MODULE_LINES:
            long.append(f"{file}: {lines} lines")
        if file.suffix == ".py":
            long += [
                f"{file}:{node.lineno}: {node.name} has more than {FUNCTION_LINES} lines"
                for node in outermost_functions(ast.parse(file.read_text()))
                if (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES
            ]
    assert long == []
