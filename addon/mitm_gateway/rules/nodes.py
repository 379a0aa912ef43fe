"""Values with their positions, built from a parser's events under limits that hold while the text is read.

The builder keeps its own stack, so nothing recurses, and it records a fault without ending the walk where
reading on makes sense.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from ..text.redact import looks_like_key
from .problems import Pos

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
# Characters and nodes that aliases and merges may add: as much again as a whole file.
MAX_EXPANSION = MAX_BYTES
# Converting a longer number takes quadratic time, and nothing in a rules file needs one.
MAX_NUMBER = 64
_NODE_WEIGHT = 8
_MAX_SHOWN = 64

Scalar = str | int | float | bool | None

_SURROGATE = re.compile("[\ud800-\udfff]")
BOOLEAN_HINT = "(YAML reads on, off, yes and no as true or false: put it in quotes)"
_MERGE = "<<"


@dataclass(slots=True)
class Node:
    """A value with its position; the entries of a mapping carry the positions of their keys."""

    pos: Pos
    data: Any
    entries: dict[str, tuple[Pos, Node]] | None = None
    items: list[Node] | None = None
    height: int = 0
    weight: int = _NODE_WEIGHT

    def add_entry(self, key: str, key_pos: Pos, value: Node) -> None:
        """Add a key and its value to a mapping."""
        assert self.entries is not None
        self.entries[key] = (key_pos, value)
        self.data[key] = value.data
        self._grow(value)

    def add_item(self, value: Node) -> None:
        """Append a value to a list."""
        assert self.items is not None
        self.items.append(value)
        self.data.append(value.data)
        self._grow(value)

    def _grow(self, value: Node) -> None:
        self.height = max(self.height, value.height + 1)
        self.weight += value.weight


class Stop(Exception):
    """A fault after which the text cannot be read any further."""

    def __init__(self, pos: Pos | None, text: str) -> None:
        super().__init__(text)
        self.pos, self.text = pos, text


def type_name(value: object) -> str:
    """Return the type of a value in the words of a user's file."""
    match value:
        case None:
            return "empty"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def shown(key: str) -> str:
    """Return a key or name in quotes; "(not shown)" if it is long, unprintable or possibly a secret."""
    if len(key) > _MAX_SHOWN or not key.isprintable() or looks_like_key(key):
        return "(not shown)"
    return f'"{key}"'


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is still open."""

    node: Node
    anchor: str | None
    key: str = ""
    key_pos: Pos | None = None
    # The next event of a mapping is a key, the value of a usable key, a merged mapping, or a value to ignore.
    expects: Literal["key", "value", "merge", "ignored"] = "key"
    merges: list[tuple[Pos, Node]] = field(default_factory=list)
    merge_keys: int = 0

    @property
    def expects_key(self) -> bool:
        return self.node.entries is not None and self.expects == "key"


class Builder:
    """A builder of one document's nodes from events; it collects the faults."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.faults: list[tuple[Pos, str]] = []
        self.is_broken = False
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}  # None while the anchored node is still open
        self._expansion = 0

    def fault(self, pos: Pos, text: str) -> None:
        """Record a fault and continue."""
        self.faults.append((pos, text))

    def open(self, pos: Pos, data: dict[str, Any] | list[Any], anchor: str | None = None) -> None:
        """Begin a mapping or a list."""
        if len(self._stack) >= MAX_DEPTH:
            raise Stop(pos, f"nested deeper than {MAX_DEPTH} levels")
        node = Node(pos, data, {}, None) if isinstance(data, dict) else Node(pos, data, None, [])
        if anchor is not None:
            self._anchors[anchor] = None
        self._stack.append(_Frame(node, anchor))

    def close(self) -> None:
        """End the innermost mapping or list."""
        frame = self._stack.pop()
        self._merge(frame)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = frame.node
        self._add(frame.node)

    def scalar(self, pos: Pos, value: Scalar, text: str, anchor: str | None = None, *, merge: bool) -> None:
        """Take one value; `merge` marks a plain `<<`."""
        if isinstance(value, str) and _SURROGATE.search(value):
            self.fault(pos, "half of a surrogate pair; expected a complete character")
            value = ""
        node = Node(pos, value, weight=_NODE_WEIGHT + len(text))
        if anchor is not None:
            self._anchors[anchor] = node
        if self._stack and self._stack[-1].expects_key:
            self._key(self._stack[-1], pos, value, text, merge=merge)
        else:
            self._add(node)

    def alias(self, pos: Pos, name: str | None) -> None:
        """Take the node of an anchor again."""
        node = self._anchored(pos, name)
        is_key = bool(self._stack) and self._stack[-1].expects_key
        if is_key and not isinstance(node.data, dict | list):
            self._key(self._stack[-1], pos, node.data, str(node.data), merge=False)
        else:
            self._add(node)

    def _anchored(self, pos: Pos, name: str | None) -> Node:
        if name is None or name not in self._anchors:
            self.fault(pos, 'alias without an anchor before it; put text that starts with "*" in quotes')
            return Node(pos, None)
        target = self._anchors[name]
        if target is None:
            self.fault(pos, "alias inside its own anchor")
            return Node(pos, None)
        if len(self._stack) + target.height > MAX_DEPTH:
            raise Stop(pos, f"nested deeper than {MAX_DEPTH} levels")
        self._spend(pos, target.weight)
        return target

    def _spend(self, pos: Pos, weight: int) -> None:
        self._expansion += weight
        if self._expansion > MAX_EXPANSION:
            raise Stop(pos, "aliases or merges expand to more than a rules file may contain")

    def _key(self, frame: _Frame, pos: Pos, value: Scalar, text: str, *, merge: bool) -> None:
        entries = frame.node.entries or {}
        frame.key_pos = pos
        frame.node.weight += _NODE_WEIGHT + len(text)
        if merge:
            frame.expects = "merge"
            frame.merge_keys += 1
            if frame.merge_keys > 1:
                self.fault(pos, f'duplicate key "{_MERGE}"; give it a list of mappings')
        elif not isinstance(value, str):
            frame.expects = "ignored"
            self.fault(pos, _key_fault(value, text))
        elif value in entries:
            frame.expects = "ignored"
            first = entries[value][0]
            self.fault(pos, f"duplicate key {shown(value)}; first defined on line {first.line}")
        else:
            frame.expects, frame.key = "value", value
            # Reserved from now on: a nested fault must not hide a duplicate of this key.
            entries[value] = (pos, Node(pos, None))

    def _add(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        if frame.node.items is not None:
            frame.node.add_item(node)
            return
        expected, frame.expects = frame.expects, "key"
        match expected:
            case "key":  # a mapping or a list in place of a key
                self.fault(node.pos, f"a key is {type_name(node.data)}; expected text")
                frame.expects = "ignored"
            case "merge":
                self._take_merge(frame, node)
            case "value":
                assert frame.key_pos is not None
                frame.node.add_entry(frame.key, frame.key_pos, node)

    def _take_merge(self, frame: _Frame, node: Node) -> None:
        for source in node.items if node.items is not None else [node]:
            if source.entries is None:
                self.fault(source.pos, f'"{_MERGE}" is {type_name(source.data)}; expected a mapping')
            else:
                frame.merges.append((node.pos, source))

    def _merge(self, frame: _Frame) -> None:
        """Add the entries of merged mappings that the mapping itself lacks; the earlier of two wins."""
        node = frame.node
        for pos, source in frame.merges:
            self._spend(pos, source.weight)
            assert node.entries is not None
            for key, (key_pos, value) in (source.entries or {}).items():
                if key not in node.entries:
                    node.add_entry(key, key_pos, value)
                    node.weight += _NODE_WEIGHT + len(key)


def _key_fault(value: Scalar, text: str) -> str:
    match value:
        case None:
            return "a key is empty; expected text"
        case bool():
            return f"key {shown(text)} is a boolean; expected text {BOOLEAN_HINT}"
        case _:
            return f"key {shown(text)} is a number; expected text (put it in quotes)"
