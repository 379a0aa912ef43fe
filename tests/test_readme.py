"""The README tells the truth: its rules load, its commands and options exist, its reference is the schema's.

`UPDATE_README=1` writes the reference anew.
"""

from __future__ import annotations

import os
import re
import types
import typing

import pytest
from pydantic import BaseModel

from mitm_gateway.mitm.options import add_options
from mitm_gateway.rules import edits, schema
from mitm_gateway.rules.fields import keys_of
from mitm_gateway.rules.json_schema import field_texts
from mitm_gateway.rules.load import parse_rules
from support.constants import ROOT

README = ROOT / "README.md"
MARKS = ("<!-- reference: generated from addon/mitm_gateway/rules/schema.py by tests/test_readme.py -->",
         "<!-- /reference -->")  # fmt: skip
PARTS = (
    ("At the top", schema.RulesFile),
    ("`credentials.NAME`", schema.Credential),
    ("`rules[]`", schema.Rule),
    ("`match`", schema.Match),
    ("`auth`", schema.Auth),
    ("`headers`", edits.Headers),
    ("`beta`", edits.Beta),
    ("`body`", edits.Body),
    ("`models`", edits.Models),
    ("`respond`", schema.Respond),
)


def reference() -> str:
    """The tables of all keys."""
    lines = []
    for title, model in PARTS:
        lines += [f"**{title}**", "", "| key | meaning |", "| --- | --- |"]
        lines += [f"| `{name}` | {text} |" for name, text in described(model)]
        lines += [""]
    return "\n".join(lines)


def described(model: type[BaseModel]) -> list[tuple[str, str]]:
    texts = field_texts(model)
    return [(key, texts.get(key, "")) for key in keys_of(model)]


def test_the_reference_is_the_schemas() -> None:
    text = README.read_text()
    start, end = (text.index(mark) for mark in MARKS)
    expected = f"{MARKS[0]}\n\n{reference()}\n"
    if os.environ.get("UPDATE_README"):
        README.write_text(text[:start] + expected + text[end:])
    else:
        assert text[start:end] == expected


def test_every_key_is_described() -> None:
    assert all(text for _, model in PARTS for _, text in described(model))


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL))
def test_the_rules_in_the_readme_load(block: str) -> None:
    if "rules:" in block:
        parse_rules(block.encode(), "README.md", {})


def test_the_table_of_options_is_complete() -> None:
    declared: dict[str, str] = {}
    loader = types.SimpleNamespace(add_option=lambda name, *_, **__: declared.setdefault(name, name))
    add_options(typing.cast("typing.Any", loader))
    assert set(re.findall(r"^\| `(gateway_\w+)` \|", README.read_text(), re.MULTILINE)) == set(declared)


def test_the_make_targets_in_the_readme_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"(?:^\$ |`)make ([a-z]+)", README.read_text(), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_commands_in_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from mitm_gateway.cli import main

    for command in set(re.findall(r"mitm-gateway ([a-z][a-z-]*)", README.read_text())):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, command
