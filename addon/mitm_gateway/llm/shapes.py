"""Parts of a peer's JSON in the shape that an API gives them; anything else is empty."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Data: TypeAlias = Mapping[str, Any]
"""An object of JSON."""


def as_object(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one instead of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list, or an empty one instead of anything else."""
    return value if isinstance(value, list) else []
