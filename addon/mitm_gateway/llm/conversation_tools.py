"""The tools of a request as text: name, description and parameters."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ..text.printable import compact, folded, indented
from .conversation_parts import section
from .shapes import as_object

_SCHEMAS = ("input_schema", "parameters", "inputSchema", "parametersJsonSchema")
_MAX_DEPTH, _MAX_PARAMETERS = 4, 200


def tool_text(tool: Any, limit: int) -> str:
    """Return a tool as text; its description is folded at the limit."""
    tool = as_object(tool)
    tool = as_object(tool.get("function")) or tool
    name = compact(tool.get("name") or tool.get("server_label") or tool.get("type") or "?")
    kind = tool.get("type")
    title = f"{name} ({compact(kind)})" if kind not in (None, "function", "custom", name) else name
    lines = [folded(compact(tool["description"]), limit)] if tool.get("description") else []
    schema = next((as_object(tool[key]) for key in _SCHEMAS if key in tool), {})
    parameters = list(_parameters(as_object(schema.get("json")) or schema, _MAX_DEPTH))
    if parameters:
        lines.append(folded(section("parameters", parameters), limit))
    return section(title, lines) if lines else title


def _parameters(schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    required = schema.get("required")
    properties = as_object(schema.get("properties"))
    for name, value in islice(properties.items(), _MAX_PARAMETERS):
        is_required = isinstance(required, list) and name in required
        yield _parameter(compact(name), as_object(value), depth, is_required=is_required)
    if len(properties) > _MAX_PARAMETERS:
        yield f"… {len(properties) - _MAX_PARAMETERS:,} more parameters"


def _parameter(name: str, value: dict[str, Any], depth: int, *, is_required: bool) -> str:
    kinds = [compact(value["type"])] if "type" in value else []
    if isinstance(value.get("enum"), list):
        kinds.append("one of " + ", ".join(map(compact, value["enum"][:50])))
    kinds += ["required"] if is_required else []
    title = f"{name} ({', '.join(kinds)})" if kinds else name
    text = f"{title}: {compact(value['description'])}" if value.get("description") else title
    inner = as_object(value.get("items")) or value
    below = list(_parameters(inner, depth - 1)) if depth else []
    return "\n".join([text, *map(indented, below)])
