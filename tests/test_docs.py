"""The documents agree with the code: package table, acceptance cases, links. `UPDATE_DOCS=1` writes them anew."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.constants import ROOT, TESTS
from test_layers import PACKAGES

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
_CASE = re.compile(r"^(?:async )?def test_((?:\d\d+_)+)", re.MULTILINE)


def generated(page: Path, name: str, expected: str) -> None:
    """Assert that the part of a page between `<!-- NAME: … -->` and `<!-- /NAME -->` is the expected text."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    text = page.read_text()
    written = pattern.sub(lambda found: found[1] + expected + found[3], text)
    assert pattern.search(text), f"{page.name} has no part {name}"
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(written)
    assert page.read_text() == written


def test_the_package_table_is_the_one_that_the_layers_test_enforces() -> None:
    rows = "".join(f"| `{name}` | {line} |\n" for name, line in PACKAGES.items())
    generated(DOCS / "architecture.md", "packages", f"| package | holds |\n| --- | --- |\n{rows}")


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_paths_and_make_targets_that_a_page_names_exist(page: Path) -> None:
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.*-]*)`", text):
        found = [*ROOT.glob(path), *(ROOT / "addon" / "mitm_gateway").glob(path)]
        assert found, path
    for target in re.findall(r"`make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
