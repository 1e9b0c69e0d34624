"""overt's threads take no signal from the user's program, and its courier has nothing held back that they hold back."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from tests.crash.processes import couriers_of, eventually, run_python, start_python

pytestmark = pytest.mark.usefixtures("store")

TRAINING = """
    import os, signal, sys, threading, time
    import overt
    from overt.delivery.dispatch import dispatch

    def courier():
        while dispatch().courier_pid is None:
            time.sleep(0.01)
        return dispatch().courier_pid
"""


@pytest.fixture
def store(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_STORE", "jsonl:experiments")
    monkeypatch.setenv("OVERT_WAIT", "0")  # what is delivered is not the question here


def test_a_signal_that_the_user_holds_back_waits_for_the_user() -> None:
    """In another thread its default would end the process at once, in the middle of what it was held back for."""
    ended = run_python(
        TRAINING
        + """
    overt.start_run("checkpoint")
    courier()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)
    print("written", flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        """
    )
    assert (ended.out, ended.code) == ("written\n", -signal.SIGTERM), ended.err


def test_no_thread_of_overts_takes_a_signal_and_the_users_threads_are_as_before() -> None:
    ended = run_python(
        TRAINING
        + """
    def held_back(thread):
        status = open(f"/proc/self/task/{thread.native_id}/status").read()
        mask = int(status.partition("SigBlk:")[2].split()[0], 16)
        return {number for number in signal.valid_signals() if mask >> number - 1 & 1}

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    overt.start_run("threads")
    courier()
    crashes = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}
    all_others = signal.valid_signals() - crashes - {signal.SIGKILL, signal.SIGSTOP}
    deadline = time.monotonic() + 60
    ours = {}
    while len(ours) < 2 or any(numbers != all_others for numbers in ours.values()):
        assert time.monotonic() < deadline, ours
        time.sleep(0.01)
        begun = [thread for thread in threading.enumerate()[1:] if thread.native_id]
        ours = {thread.name: held_back(thread) for thread in begun}
    assert held_back(threading.main_thread()) == {signal.SIGUSR1}
    print(sorted(ours))
        """
    )
    assert ended.out == "['overt-courier', 'overt-courier-inbox']\n", ended.err


def test_a_courier_holds_no_signal_back(base: Path) -> None:
    """Neither its starter's nor the user's: whoever ends it politely, a machine that shuts down, is obeyed."""
    training = start_python(
        TRAINING
        + """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    overt.start_run("courier")
    print(courier(), flush=True)
    sys.stdin.read()
        """,
        stdin=subprocess.PIPE,
    )
    assert training.stdout is not None
    try:
        pid = int(training.stdout.readline())
        eventually(lambda: pid in couriers_of(base), "the courier's start")
        assert "SigBlk:\t0000000000000000\n" in Path(f"/proc/{pid}/status").read_text()
    finally:
        training.communicate()
