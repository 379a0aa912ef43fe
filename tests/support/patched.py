"""Patches applied for a while, by name."""

from collections.abc import Iterator
from contextlib import contextmanager

from mitm_gateway.patches.patch import Gateway, Patches
from mitm_gateway.patches.table import PATCHES


def no_patches() -> Patches:
    """Return patches of which none is applied yet, for a gateway without limits."""
    return Patches(Gateway(body_limit=lambda flow: None, refuse=lambda flow, refusal: None))


@contextmanager
def applied(*names: str, gateway: Gateway | None = None) -> Iterator[Patches]:
    """Apply the named patches for the duration of the block, by default for a gateway without limits."""
    patches = Patches(gateway) if gateway else no_patches()
    try:
        for patch in PATCHES:
            if patch.name in names:
                patches.apply(patch)
        yield patches
    finally:
        patches.undo("speed", "safety")
