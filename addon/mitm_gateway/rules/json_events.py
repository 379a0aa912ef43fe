"""JSON text to builder events: tabs, surrogate pairs and numbers such as 1e5 mean what JSON defines."""

import json
import re
from collections.abc import Iterator

from .nodes import MAX_NUMBER, Builder
from .problems import Pos

_TOKEN = re.compile(r'[ \t\r\n]*(?:([{}\[\]])|[,:]|("(?:[^"\\]|\\.)*")|([^\s,:{}\[\]"]+))', re.DOTALL)


def is_json_object(text: str) -> bool:
    """Return whether a text is a JSON object."""
    if not text.lstrip(" \t\r\n").startswith("{"):
        return False
    try:
        json.loads(text, parse_int=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def walk_json(text: str, builder: Builder) -> None:
    """Send the tokens of a valid JSON text to the builder."""
    for pos, token in _tokens(text):
        match token[0]:
            case "{":
                builder.open(pos, {})
            case "[":
                builder.open(pos, [])
            case "}" | "]":
                builder.close()
            case '"':
                builder.scalar(pos, json.loads(token), token, merge=False)
            case _ if len(token) > MAX_NUMBER:
                builder.fault(pos, f"a number of more than {MAX_NUMBER} characters; put it in quotes")
                builder.scalar(pos, None, token, merge=False)
            case _:
                builder.scalar(pos, json.loads(token), token, merge=False)


def _tokens(text: str) -> Iterator[tuple[Pos, str]]:
    line, line_start, seen = 1, 0, 0
    for found in _TOKEN.finditer(text):
        if token := found[1] or found[2] or found[3]:
            start = found.end() - len(token)
            if breaks := text.count("\n", seen, start):
                line += breaks
                line_start = text.rfind("\n", seen, start) + 1
            seen = start
            yield Pos(line, start - line_start + 1), token
