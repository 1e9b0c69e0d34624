from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overt.delivery.lock import holder, lock_within, try_lock


def test_a_lock_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with try_lock(lock) as first, lock_within(lock, 0.2) as second:
        assert (first, second) == (True, False)
    with lock_within(lock, 0.0) as third:
        assert third


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")
def test_who_holds_a_lock_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert holder(lock) is None
    with try_lock(lock):
        told = "import sys, pathlib, overt.delivery.lock as lock; print(lock.holder(pathlib.Path(sys.argv[1])))"
        said = subprocess.run([sys.executable, "-c", told, str(lock)], capture_output=True, text=True, check=True)
        assert int(said.stdout) == os.getpid()
    assert holder(lock) is None
