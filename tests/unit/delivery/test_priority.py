from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from overt.delivery import priority
from overt.delivery.supervisor import CourierProcess, Deliveries


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
    monkeypatch.setattr(priority, "_PROCESSES", tmp_path / "absent")
    assert priority.core_time(os.getpid()) == (0, 0)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system keeps no account of threads")
def test_who_works_has_a_core() -> None:
    before = priority.core_time(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert priority.core_time(os.getpid()).had_s - before.had_s > 0.09


@pytest.mark.parametrize(
    ("had_s", "lacked_s", "is_starved"),
    [(0.04, 3.5, True), (0.0, 2.0, False), (1.0, 19.0, False), (1.0, 68.0, True), (5.0, 0.0, False)],
    ids=["idle", "too_soon_to_say", "one_of_twenty", "nice", "served"],
)
def test_one_that_gets_next_to_nothing_of_what_it_lacks_is_starved(
    had_s: float, lacked_s: float, is_starved: bool
) -> None:
    before = priority.CoreTime(10.0, 200.0)
    assert priority.CoreTime(10.0 + had_s, 200.0 + lacked_s).is_starved_since(before) is is_starved


@pytest.mark.parametrize(
    ("lacked_s", "tells"), [(0.0, False), (2.9, False), (3.1, True), (-0.5, True)], ids=["0", "2.9", "3.1", "fewer"]
)
def test_a_few_seconds_of_lack_tell_and_so_does_the_end_of_a_thread(lacked_s: float, tells: bool) -> None:
    """What a courier had while it was started says nothing of the time in which somebody waits for it."""
    before = priority.CoreTime(10.0, 200.0)
    assert priority.CoreTime(15.0, 200.0 + lacked_s).tells_since(before) is tells


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


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle processes")
@pytest.mark.parametrize("session", [{"process_group": 0}, {"start_new_session": True}], ids=["another's", "its own"])
def test_one_that_follows_a_starved_one_gives_no_way(session: dict[str, Any]) -> None:
    code = """
priority.begin(is_to_give_way=False)
print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
"""
    assert begun(code, **session) == ["True", "0"]


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


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle processes")
def test_an_idle_courier_that_somebody_waits_for_is_raised_from_without() -> None:
    """It cannot do so itself before it has a core."""
    idle = subprocess.Popen(["sleep", "60"])
    try:
        os.sched_setscheduler(idle.pid, os.SCHED_IDLE, os.sched_param(0))
        courier = CourierProcess(Deliveries(lambda trouble: None), lambda reason: None, log=Path(os.devnull))
        courier.pid = courier._unreaped = idle.pid
        if not priority.raise_to_normal(idle.pid):
            pytest.skip("to be normal again takes privileges")
        os.sched_setscheduler(idle.pid, os.SCHED_IDLE, os.sched_param(0))
        courier.help_to_a_core(since=priority.CoreTime(0.0, 0.0))
        assert os.sched_getscheduler(idle.pid) == os.SCHED_OTHER
    finally:
        idle.kill()
        idle.wait()
