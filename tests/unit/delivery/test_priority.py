from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overt.delivery import priority


@pytest.fixture
def own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "has_own_session", lambda: True)


@pytest.mark.usefixtures("own_session")
def test_a_session_of_its_own_is_weighed_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_AUTOGROUP", tmp_path / "autogroup")
    assert priority.compete()
    assert (tmp_path / "autogroup").read_text() == "0"
    assert priority.give_way()
    assert (tmp_path / "autogroup").read_text() == "19"


@pytest.mark.usefixtures("own_session")
def test_a_system_without_autogroups_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_AUTOGROUP", tmp_path / "absent" / "autogroup")
    assert priority.give_way()


@pytest.mark.usefixtures("own_session")
def test_one_that_is_asked_too_often_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def write_text(self, text: str, encoding: str) -> None:
            raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(priority, "_AUTOGROUP", Busy())
    assert not priority.give_way()


def test_a_system_that_keeps_no_account_of_threads_says_nothing_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no /proc, and whoever waits has the courier ask."""
    monkeypatch.setattr(priority, "_THREADS", tmp_path / "absent")
    assert priority.waited_for_cores_s() == 0


@pytest.mark.parametrize(("said", "can"), [("1\n", True), ("0\n", False), (None, False)])
def test_a_session_is_shared_where_sessions_are_weighed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, can: bool
) -> None:
    if said is not None:
        (tmp_path / "enabled").write_text(said)
    monkeypatch.setattr(priority, "_ARE_AUTOGROUPS_USED", tmp_path / "enabled")
    assert priority.can_share_session() is (can and hasattr(os, "SCHED_IDLE"))


def begun(code: str, **how: bool | int) -> list[str]:
    start = "import os\nfrom overt.delivery import priority\n"
    command = [sys.executable, "-c", start + code]
    return subprocess.run(command, check=True, capture_output=True, text=True, **how).stdout.split()  # type: ignore[call-overload,no-any-return]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle processes")
def test_one_in_anothers_session_is_idle_and_can_leave_it() -> None:
    code = """
priority.begin()
print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getpriority(os.PRIO_PROCESS, 0), os.getpgid(0) != os.getpid())
priority.leave_session()
priority.leave_session()
print(os.getsid(0) == os.getpid())
"""
    assert begun(code, process_group=0) == ["True", "0", "True", "True"]


def test_one_in_a_session_of_its_own_is_nice() -> None:
    code = "priority.begin(); print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid())"
    assert begun(code, start_new_session=True) == ["19", "True"]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle processes")
def test_one_that_may_not_be_idle_is_nice_in_a_session_of_its_own() -> None:
    code = """
def refuse(*given):
    raise PermissionError
os.sched_setscheduler = refuse
priority.begin()
print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid())
"""
    assert begun(code, process_group=0) == ["19", "True"]
