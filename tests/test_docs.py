"""The documents agree with the code: blocks load, commands exist and print what is shown, tables are generated.

`UPDATE_DOCS=1` writes the generated parts anew.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mitm_gateway.cli import main
from mitm_gateway.clients import catalogue
from mitm_gateway.exchange.explain import explain_url
from mitm_gateway.mitm.options import add_options
from mitm_gateway.rules import edits, presets, schema
from mitm_gateway.rules.fields import keys_of
from mitm_gateway.rules.json_schema import field_texts
from mitm_gateway.rules.load import parse_rules
from support.constants import ROOT, TESTS
from support.table import table
from test_layers import PACKAGES

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
USER_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
REFERENCE = (
    ("At the top", schema.RulesFile),
    ("`credentials.NAME`", schema.Credential),
    ("`rules[]`", schema.Rule),
    ("`match`", schema.Match),
    ("`auth`", schema.Auth),
    ("`headers`", edits.HeaderEdits),
    ("`query`", edits.QueryEdits),
    ("`beta`", edits.Beta),
    ("`body`", edits.BodyEdits),
    ("`models`", edits.Models),
    ("`respond`", schema.Respond),
)
_CASE = re.compile(r"^(?:async )?def test_((?:\d\d+_)+)", re.MULTILINE)


def assert_generated(page: Path, name: str, expected: str) -> None:
    """Assert that the part between `<!-- NAME: … -->` and `<!-- /NAME -->` is the expected text."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    text = page.read_text()
    assert pattern.search(text), f"{page.name} has no part {name}"
    written = pattern.sub(lambda found: found[1] + expected + found[3], text)
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(written)
    assert page.read_text() == written, "run pytest with UPDATE_DOCS=1 and commit the page"


def markdown_table(head: str, rows: Iterator[tuple[str, ...]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + " --- |" * columns, *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


# ---- generated parts ----


def described(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    texts = field_texts(model)
    return ((f"`{key}`", texts.get(key, "")) for key in keys_of(model))


def test_the_reference_of_the_rules_is_the_schemas() -> None:
    parts = (
        f"**{title}**\n\n{markdown_table('key | meaning', described(model))}\n" for title, model in REFERENCE
    )
    assert_generated(DOCS / "rules.md", "reference", "\n" + "".join(parts))
    assert all(text for _, model in REFERENCE for _, text in described(model))


def test_the_table_of_options_is_the_addons() -> None:
    rows: list[tuple[str, ...]] = []

    class Loader:
        def add_option(self, name: str, kind: type, default: Any, text: str, choices: object = None) -> None:
            rows.append((f"`{name}`", f"`{str(default).lower() if kind is bool else default or '–'}`", text))

    add_options(Loader())  # type: ignore[arg-type]
    assert_generated(
        DOCS / "options.md", "options", markdown_table("option | default | meaning", iter(sorted(rows)))
    )


def test_the_table_of_presets_is_complete() -> None:
    rows = (
        (f"`{name}`", presets.content(name)["title"], str(presets.content(name)["date"]))
        for name in presets.names()
    )
    assert_generated(DOCS / "providers.md", "presets", markdown_table("preset | provider | as of", rows))


def test_the_table_of_clients_is_the_catalogues() -> None:
    clients = [
        catalogue.load(name) for name in catalogue.names() if name not in (catalogue.ANY, catalogue.SHELL)
    ]
    rows = (
        (
            each.title,
            f"`{each.name}`",
            ", ".join(f"`{name}`" for name in each.programs) or "–",
            each.version,
            each.date,
        )
        for each in clients
    )
    assert_generated(
        DOCS / "clients.md", "clients", markdown_table("client | name | command | version | as of", rows)
    )


def test_the_table_of_packages_is_the_one_that_the_layers_test_enforces() -> None:
    rows = ((f"`{name}`", line) for name, line in PACKAGES.items())
    assert_generated(DOCS / "architecture.md", "packages", markdown_table("package | holds", rows))


def test_the_readme_shows_what_explain_prints() -> None:
    (rules,) = blocks(README, "yaml")
    url, header, model = "https://api.anthropic.com/v1/messages", ("x-api-key", "any-key"), "claude-opus-4-8"
    explanation = explain_url(parse_rules(rules.encode(), "rules.yaml", {}), "POST", url, [header], model)
    command = f"$ mitm-gateway explain --rules corp.yaml POST {url} -H 'x-api-key: any-key' --model {model}"
    shown = "\n".join([command, *explanation.lines()])
    assert_generated(README, "explain", f"```console\n{shown}\n```\n")


# ---- blocks, commands, links ----


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@table("page", USER_PAGES)
def test_the_rules_on_a_page_load(page: Path) -> None:
    for block in blocks(page, "yaml"):
        if "rules:" in block:
            text = (
                block
                if "credentials:" in block or "credential: client" in block
                else "credentials: {}\n" + block
            )
            assert parse_rules(text.encode(), page.name, {}).rules


@table("page", USER_PAGES)
def test_the_python_on_a_page_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@table("page", USER_PAGES)
def test_the_commands_on_a_page_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^\$ |`)(?:\w+=\S+ )*make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in sorted(set(re.findall(r"mitm-gateway ([a-z][a-z-]*)", text))):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, command
        known = capsys.readouterr().out
        for line in re.findall(rf"^\$ .*?mitm-gateway {command} ([^#\n]*)", text, re.MULTILINE):
            words = shlex.split(line.replace(')"', "").replace("…", ""))
            own = words[: words.index("--")] if "--" in words else words
            assert all(word in known for word in own if word.startswith("-")), line


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = set(re.findall(r"^    ([a-z][a-z-]+)(?:  |$)", capsys.readouterr().out, re.MULTILINE))
    listed = re.findall(r"^\| `mitm-gateway ([a-z-]+)", (DOCS / "options.md").read_text(), re.MULTILINE)
    assert commands == set(listed)


@table("page", PAGES)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


def anchors(page: Path) -> list[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@table("page", [DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"])
def test_the_paths_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.*-]*)`", page.read_text()):
        assert [*ROOT.glob(path), *(ROOT / "addon" / "mitm_gateway").glob(path)], path


def test_the_readme_is_short_and_every_page_can_be_reached_from_it() -> None:
    text = README.read_text()
    assert len(text.split()) <= 900
    linked = {README.parent / target for target in re.findall(r"\]\(([^)#\s]+)", text)}
    second = {page.parent / target for page in linked if page.suffix == ".md"
              for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())}  # fmt: skip
    reached = {page.resolve() for page in linked | second}
    assert {page.resolve() for page in DOCS.glob("*.md")} <= reached


# ---- acceptance cases ----


def cases_in_tests() -> Iterator[tuple[int, str]]:
    for file in sorted((TESTS / "security").glob("test_*.py")):
        for numbers in _CASE.findall(file.read_text()):
            yield from (
                (int(number), f"tests/security/{file.name}") for number in numbers.strip("_").split("_")
            )


def test_every_acceptance_case_is_listed_and_has_a_test() -> None:
    text = (DOCS / "security-cases.md").read_text()
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert listed == list(range(1, len(listed) + 1))
    assert {number for number, _ in cases_in_tests()} == set(listed)
    assert all(f"`{file}`" in text for _, file in cases_in_tests())


def test_the_tests_that_the_cases_name_exist() -> None:
    text = (DOCS / "security-cases.md").read_text()
    for file, names in re.findall(r"`(tests/\S+\.py)`((?:,? `test_\w+`)*)", text):
        code = (ROOT / file).read_text()
        assert [name for name in re.findall(r"\w+", names) if f"def {name}(" not in code] == [], file


def test_readme_quotes_the_recorded_cost_of_a_small_request() -> None:
    quoted = re.search(r"a small request takes ([0-9.]+) of mitmdump's CPU", README.read_text())
    page = (DOCS / "performance.md").read_text().partition("<!-- mitmproxy 12 -->")[2]
    recorded = re.search(r"\| CPU 1 KB, of mitmdump's \| [^|]* \| ([0-9.]+) \|", page)
    assert quoted is not None
    assert recorded is not None
    assert quoted[1] == recorded[1]
