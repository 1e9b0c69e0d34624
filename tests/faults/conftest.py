from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.processes import nothing_left_running


@pytest.fixture(autouse=True)
def base(isolated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's ``.overt`` folder; whatever still works on it is killed in the end."""
    monkeypatch.setenv("OVERT_WAIT", "60")  # a courier starts at the lowest priority, and these machines are busy
    with nothing_left_running(tmp_path / ".overt"):
        yield tmp_path / ".overt"
