"""Claude Code's settings as a source of rules."""

from pathlib import Path

import pytest

from mitm_gateway.clients.claude_settings import desktop_rules


@pytest.mark.parametrize(
    ("content", "is_source"),
    [
        ('{"inferenceProvider": "gateway"}', True),
        (
            '{"inferenceProvider" : "gateway" "x": 1}',
            True,
        ),  # its fault is reported, and no other rules are taken
        ('{"env": {"inferenceProvider": "gateway"}}', False),
        ('{"a": "inferenceProvider", }', False),
        ("[]", False),
        ("", False),
    ],
)
def test_settings_with_desktops_keys_are_rules(tmp_path: Path, content: str, is_source: bool) -> None:
    file = tmp_path / "settings.json"
    file.write_text(content)
    assert desktop_rules({"CLAUDE_CONFIG_DIR": str(tmp_path)}) == (file if is_source else None)
    file.unlink()
    assert desktop_rules({"CLAUDE_CONFIG_DIR": str(tmp_path)}) is None
