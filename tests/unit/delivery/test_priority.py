from __future__ import annotations

from pathlib import Path

import pytest

from overt.delivery import priority
from overt.delivery.priority import LOWEST, NORMAL, set_session_priority


def test_the_session_is_weighed_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_AUTOGROUP", tmp_path / "autogroup")
    assert set_session_priority(NORMAL)
    assert (tmp_path / "autogroup").read_text() == "0"
    assert set_session_priority(LOWEST)
    assert (tmp_path / "autogroup").read_text() == "19"


def test_a_system_without_autogroups_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_AUTOGROUP", tmp_path / "absent" / "autogroup")
    assert set_session_priority(LOWEST)


def test_one_that_is_asked_too_often_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def write_text(self, text: str, encoding: str) -> None:
            raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(priority, "_AUTOGROUP", Busy())
    assert not set_session_priority(LOWEST)
