"""The JSON Schema of a rules file, which gives editors completion and early errors."""

import ast
import inspect
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from .edits import Beta, BodyEdits, HeaderEdits, Models, QueryEdits
from .schema import Auth, Credential, Match, Respond, Rule, RulesFile

_PARTS = (Credential, Match, Auth, HeaderEdits, QueryEdits, Beta, BodyEdits, Models, Respond, Rule)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a rules file."""
    schema = RulesFile.model_json_schema()
    _describe(schema, RulesFile)
    for part in _PARTS:
        _describe(schema["$defs"][part.__name__], part)
    tidied: dict[str, Any] = _tidied(schema)
    return tidied | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mitmproxy-gateway rules",
    }


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a part, each with the text under its field."""
    [definition] = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[model.model_fields[name].alias or name] = " ".join(text.split())
    return texts


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    for key, text in field_texts(model).items():
        schema["properties"][key]["description"] = text


def _tidied(node: Any) -> Any:
    """Return a schema without null, which no key of the file takes, and with each text on one line."""
    match node:
        case {"anyOf": [*others, {"type": "null"}], **rest}:
            rest.pop("default", None)
            return _tidied((others[0] if len(others) == 1 else {"anyOf": others}) | rest)
        case dict():
            return {key: _tidied(value) for key, value in node.items()}
        case list():
            return [_tidied(item) for item in node]
        case str():
            return " ".join(node.split())
        case _:
            return node
