"""The log file: opened again where it was moved away, and no reason to stop where the disk is full."""

import logging
from pathlib import Path

import pytest

from mitm_gateway.observe.log_file import LogFile


def test_a_log_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    log = LogFile(path)
    log.write("one")
    log.close()
    log = LogFile(path)
    path.rename(moved)
    log.write("two")
    log.close()
    assert (moved.read_text(), path.read_text()) == ("one\n", "two\n")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    log = LogFile(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.write("line")
            log._write_queued()
        log.close()
    told = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert told == [f"gateway_log: {link} cannot be written; requests continue without it"]
