"""YAML or JSON text to plain data, with the position of every key and value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from .json_events import is_json_object, walk_json
from .nodes import MAX_BYTES, Builder, Node, Stop, type_name
from .problems import Loc, Mistake, Pos, Problem, RulesError
from .yaml_events import walk_yaml

# PowerShell and Notepad write it.
_UTF_16 = " but UTF-16; save it as UTF-8"
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a file and the position of each part."""

    file: str
    root: Node

    @property
    def data(self) -> Any:
        """The content as dict, list, str, int, float, bool and None; aliased parts are shared."""
        return self.root.data

    def pos(self, loc: Loc) -> Pos:
        """Return the position of the value at a path, or of its nearest existing ancestor."""
        return self._walk(loc)[1].pos

    def value(self, loc: Loc) -> Any:
        """Return the value at a path, or its nearest existing ancestor."""
        return self._walk(loc)[1].data

    def key_pos(self, loc: Loc) -> Pos:
        """Return the position of the key at a path, or of the key of its nearest existing ancestor."""
        return self._walk(loc)[0]

    def pos_of(self, mistake: Mistake) -> Pos:
        """Return the position of a mistake."""
        return self.key_pos(mistake.loc) if mistake.at_key else self.pos(mistake.loc)

    def _walk(self, loc: Loc) -> tuple[Pos, Node]:
        key_pos, node = self.root.pos, self.root
        for step in loc:
            if isinstance(step, str) and node.entries is not None and step in node.entries:
                key_pos, node = node.entries[step]
            elif isinstance(step, int) and node.items is not None and step < len(node.items):
                node = node.items[step]
                key_pos = node.pos
            else:
                break
        return key_pos, node


RULES = 'a mapping with "rules"; `mitm-gateway init PRESET` writes an example'


def parse(text: bytes, file: str, expected: str = RULES) -> Document:
    """Return the document of a file. Raises RulesError with every fault in its YAML."""
    document, problems = read_document(text, file, expected)
    if document is None or problems:
        raise RulesError(problems)
    return document


@cache
def packaged_files(package: str) -> Mapping[str, Traversable]:
    """Return the YAML files of a package, by their names without the ending and in alphabetical order."""
    files = (file for file in resources.files(package).iterdir() if file.name.endswith(".yaml"))
    return dict(sorted((file.name.removesuffix(".yaml"), file) for file in files))


def read_document(text: bytes, file: str, expected: str = RULES) -> tuple[Document | None, list[Problem]]:
    """Return the document, unless it is unreadable, and its problems in file order."""
    try:
        builder = _built(_decoded(text), expected)
    except Stop as fault:
        return None, [Problem(file, fault.pos, fault.text)]
    problems = [Problem(file, pos, text) for pos, text in sorted(builder.faults)]
    if builder.is_broken or builder.root is None:
        return None, problems
    if not isinstance(builder.root.data, dict):
        # A fault of the top level itself, such as a tag, is enough.
        return None, problems or [
            Problem(file, builder.root.pos, _not_a_mapping(builder.root.data, expected))
        ]
    return Document(file, builder.root), problems


def _not_a_mapping(data: object, expected: str) -> str:
    return f"the file is {type_name(data)}; expected {expected}"


def _decoded(text: bytes) -> str:
    if len(text) > MAX_BYTES:
        raise Stop(None, f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        characters = text.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        before = text[: fault.start].decode("utf-8-sig", "replace")
        fault_text = "the file is not UTF-8" + _UTF_16 * text.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise Stop(_pos_at(before, len(before)), fault_text) from None
    if found := _NOT_PRINTABLE.search(characters):
        pos = _pos_at(characters, found.start())
        raise Stop(pos, f"the file contains a control character (U+{ord(found[0]):04X})")
    return characters


def _pos_at(text: str, index: int) -> Pos:
    line_start = text.rfind("\n", 0, index) + 1
    return Pos(text.count("\n", 0, index) + 1, index - line_start + 1)


def _built(text: str, expected: str) -> Builder:
    builder = Builder()
    try:
        (walk_json if is_json_object(text) else walk_yaml)(text, builder)
    except Stop as fault:
        builder.is_broken = True
        builder.fault(fault.pos or Pos(1, 1), fault.text)
    if builder.root is None and not builder.is_broken:
        builder.fault(Pos(1, 1), _not_a_mapping(None, expected))
    return builder
