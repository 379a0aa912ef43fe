"""The table of patches: what applies, what does not fit, what is undone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from mitmproxy import ctx, version
from mitmproxy.proxy.layers.http import HttpStream, _http1
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.test import taddons

from mitm_gateway.patches import table
from mitm_gateway.patches.patch import Patch, Patches, Unexpected
from support.patched import no_patches


@pytest.fixture
async def patches() -> AsyncIterator[Patches]:
    made = no_patches()
    with taddons.context():
        yield made
        made.undo("speed", "safety")


async def test_every_patch_fits_this_mitmproxy_and_is_listed_with_its_reason(patches: Patches) -> None:
    assert table.apply(patches, "safety") == table.apply(patches, "speed") == []
    lines = table.describe(patches)
    assert len(lines) == len(table.PATCHES) == len({patch.name for patch in table.PATCHES})
    for line, patch in zip(lines, table.PATCHES, strict=True):
        assert line.split()[:3] == ["on", patch.kind, patch.name]
        assert patch.why in line


async def test_a_patch_that_does_not_fit_names_the_part_and_the_version(
    patches: Patches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(self: Any, event: Any, more: Any) -> None: ...

    changed.__qualname__ = "HttpStream.state_consume_request_body"
    monkeypatch.setattr(HttpStream, "state_consume_request_body", changed)
    [problem] = table.apply(patches, "safety")
    part = "HttpStream.state_consume_request_body"
    assert problem == f"patch body-limit not applied: {part} changed in mitmproxy {version.VERSION}"
    assert HttpStream.state_consume_request_body is changed
    assert [line.split()[2] for line in table.describe(patches) if line.startswith("off  safety")] == [
        "body-limit"
    ]


async def test_a_part_that_is_missing_is_named(patches: Patches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_http1, "make_error_response")
    [problem] = table.apply(patches, "safety")
    assert "json-error-pages not applied: mitmproxy.proxy.layers.http._http1.make_error_response" in problem


async def test_a_patch_that_fails_half_way_leaves_nothing_behind(patches: Patches) -> None:
    owner = type("Owner", (), {"one": 1})

    def install(patches: Patches) -> None:
        patches.set(owner, "one", 2)
        patches.set(owner, "two", 2)
        raise Unexpected("Owner.three")

    with pytest.raises(Unexpected, match=r"patch half not applied: Owner\.three changed in"):
        patches.apply(Patch("half", "safety", "", None, install))
    assert (owner.one, hasattr(owner, "two")) == (1, False)  # type: ignore[attr-defined]


async def test_undoing_restores_what_several_patches_changed(patches: Patches) -> None:
    owners = (
        HttpStream, _http1, _http1.Http1Connection, _http1.Http1Client, _http1.Http1Server, ConnectionHandler,
        ctx.master.addons,
    )  # fmt: skip
    before = [dict(vars(owner)) for owner in owners]
    table.apply(patches, "safety")
    safe = [dict(vars(owner)) for owner in owners]
    table.apply(patches, "speed")
    assert [dict(vars(owner)) for owner in owners] != safe
    patches.undo("speed")
    assert [dict(vars(owner)) for owner in owners] == safe != before
    table.apply(patches, "speed")
    patches.undo("speed", "safety")
    assert [dict(vars(owner)) for owner in owners] == before
