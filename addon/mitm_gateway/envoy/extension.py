"""Envoy's extensions as plain data: a name, and a configuration of a type."""

from typing import Any


def typed(kind: str, **settings: Any) -> dict[str, Any]:
    """Return a configuration of a type below `envoy.`."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **settings}


def extension(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    """Return an extension with its configuration, of a type below `envoy.extensions.`."""
    return {"name": name, "typed_config": typed(f"extensions.{kind}", **settings)}
