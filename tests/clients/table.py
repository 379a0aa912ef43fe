"""Write the table of docs/clients.md from the results of the last run of the matrix.

python tests/clients/table.py .cache/clients/results.xml docs/clients.md
"""

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from clients.test_matrix import ALL, Program

MODES = ("reverse", "run", "intercept")
BEGIN = "<!-- matrix: written by `make clients` -->"
END = "<!-- /matrix -->"


def results(report: Path) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the date of the run, and the outcome and version of each case."""
    suite = next(ET.parse(report).iter("testsuite"))
    found = {}
    for case in suite.iter("testcase"):
        name = re.sub(r".*\[(.*)\]", r"\1", case.get("name", ""))
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = "fails" if failed else "not tried" if case.find("skipped") is not None else "works"
        version = next((each.get("value", "") for each in case.iter("property")), "")
        found[name] = (outcome, version)
    return suite.get("timestamp", "")[:10], found


def table(date: str, found: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield BEGIN
    yield f"Last run: {date}."
    yield ""
    yield f"| program | version | {' | '.join(MODES)} |"
    yield "| --- | --- | --- | --- | --- |"
    for program in ALL:
        yield f"| {program.title} | {_version(program, found)} | {' | '.join(_cells(program, found))} |"
    yield END


def _version(program: Program, found: dict[str, tuple[str, str]]) -> str:
    versions = (found.get(f"{program.name}-{mode}", ("", ""))[1] for mode in MODES)
    return next(filter(None, versions), "–")


def _cells(program: Program, found: dict[str, tuple[str, str]]) -> Iterator[str]:
    for mode in MODES:
        yield found.get(f"{program.name}-{mode}", ("not tried", ""))[0] if mode in program.modes else "–"


def main(report: str, page: str) -> None:
    """Replace the table of the page."""
    file = Path(page)
    text = file.read_text()
    lines = "\n".join(table(*results(Path(report))))
    file.write_text(text[: text.index(BEGIN)] + lines + text[text.index(END) + len(END) :])


if __name__ == "__main__":
    main(*sys.argv[1:])
