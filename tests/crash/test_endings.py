"""Every way in which a script can end: the status is true, and the script ends as it would have without overt."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.crash.processes import (
    DEADLINE_S,
    Database,
    PlainFiles,
    bare,
    couriers_of,
    eventually,
    is_gone,
    kill,
    run_folders,
    start_python,
    sync_here,
)

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

HEAD = """
import multiprocessing, os, signal, sys, threading, time

if os.environ.get("WITHOUT_OVERT"):
    class Stub:
        key = "none"
        def __enter__(self): return self
        def __exit__(self, *error): return False
        def log_metric(self, name, value): pass
        def finish(self): pass
        def flush(self): pass
    class overt:
        start_run = staticmethod(lambda name: Stub())
else:
    import overt

def start():
    run = overt.start_run("ending")
    print(run.key, flush=True)
    run.log_metric("before", 1.0)
    return run

def ready():
    print("ready", flush=True)
    while True:
        time.sleep(60)

def worker(run):
    run.log_metric("child", 1.0)

def with_courier():  # a process that vanishes before its courier's start, some milliseconds, is left to doctor
    while not os.environ.get("WITHOUT_OVERT") and sys.modules["overt.delivery.dispatch"].dispatch().courier_pid is None:
        time.sleep(0.01)

def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}

if __name__ == "__main__":
    before = handlers()
"""

Act = Callable[[subprocess.Popen[str], Path], None]


def interrupt(process: subprocess.Popen[str], base: Path) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group


def terminate(process: subprocess.Popen[str], base: Path) -> None:
    os.kill(process.pid, signal.SIGTERM)


def kill_alone(process: subprocess.Popen[str], base: Path) -> None:
    kill(process.pid)


def kill_with_courier(process: subprocess.Popen[str], base: Path) -> None:
    couriers = couriers_of(base)
    kill(process.pid)
    for courier in couriers:
        kill(courier)


class Ending(NamedTuple):
    """A way to end."""

    body: str
    status: str
    code: int
    act: Act | None = None
    error: str | None = None
    metrics: tuple[str, ...] = ("before",)
    by_sync: bool = False


ENDINGS = {
    "return": Ending("with start(): pass", "FINISHED", 0),
    "exception": Ending("with start(): raise ValueError('boom')", "FAILED", 1, error="ValueError: boom"),
    "ctrl-c": Ending("with start(): ready()", "KILLED", -signal.SIGINT, interrupt),
    "ctrl-c without with": Ending("run = start(); ready()", "KILLED", -signal.SIGINT, interrupt),
    "sigterm": Ending("with start(): ready()", "KILLED", -signal.SIGTERM, terminate),
    "sys.exit(0)": Ending("with start(): sys.exit(0)", "FINISHED", 0),
    "sys.exit(3)": Ending("with start(): sys.exit(3)", "FAILED", 3, error="SystemExit: 3"),
    "sys.exit(text)": Ending("with start(): sys.exit('no data')", "FAILED", 1, error="SystemExit: no data"),
    "os._exit": Ending("with start(): with_courier(); os._exit(5)", "KILLED", 5),
    "kill -9": Ending("with start(): ready()", "KILLED", -signal.SIGKILL, kill_alone),
    "kill -9 with courier": Ending("with start(): ready()", "KILLED", -signal.SIGKILL, kill_with_courier, by_sync=True),
    "uncaught": Ending("run = start(); raise ValueError('boom')", "FAILED", 1, error="ValueError: boom"),
    "no finish": Ending("run = start()", "FINISHED", 0),
    "finish, then failure": Ending("run = start(); run.finish(); raise ValueError('boom')", "FINISHED", 1),
    "sys.exit in a fork": Ending(
        """
    with start() as run:
        child = os.fork()
        if child == 0:
            run.log_metric("child", 1.0)
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        run.log_metric("after", 1.0)
        """,
        "FINISHED",
        0,
        metrics=("before", "child", "after"),
    ),
    "normal end of a fork": Ending(
        """
    with start() as run:
        child = os.fork()
        run.log_metric("child" if child == 0 else "after", 1.0)
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            raise ValueError("the parent fails after its child went well")
        """,
        "FAILED",
        1,
        error="ValueError: the parent fails",
        metrics=("before", "child", "after"),
    ),
    "explicit finish in a fork": Ending(
        """
    run = start()
    child = os.fork()
    if child == 0:
        run.log_metric("child", 1.0)
        run.finish()
        run.flush()
        names = [thread.name for thread in threading.enumerate()]
        os._exit(len(names) - 1 if names == ["MainThread"] else 77)  # a worker starts no courier
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.log_metric("after", 1.0)
    raise ValueError("boom")
        """,
        "FAILED",
        1,
        error="ValueError: boom",
        metrics=("before", "child", "after"),
    ),
    **{
        f"{method} of multiprocessing": Ending(
            f"""
    with start() as run:
        child = multiprocessing.get_context("{method}").Process(target=worker, args=(run,))
        child.start()
        child.join()
        assert child.exitcode == 0
        run.log_metric("after", 1.0)
        sys.exit(4)
        """,
            "FAILED",
            4,
            error="SystemExit: 4",
            metrics=("before", "child", "after"),
        )
        for method in ("fork", "spawn")
    },
}

# Each status as MLflow has it, and the courier's death. How a script ends is nothing that a store knows of, so that all
# others end with one whose courier need not import MLflow first.
IN_MLFLOW = ("return", "exception", "kill -9", "kill -9 with courier")


def end(ending: Ending, base: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Let the script end that way; its exit code, first word and errors."""
    body = ending.body if ending.body.startswith("\n") else f"\n    {ending.body}\n"
    check = "\n    import atexit\n    atexit.register(lambda: print('handlers', handlers() == before, flush=True))\n"
    process = start_python(HEAD + check + body, env=environment)
    assert process.stdout is not None
    key = process.stdout.readline().strip()
    if ending.act is not None:
        assert process.stdout.readline() == "ready\n"
        if not environment:
            eventually(lambda: couriers_of(base), "the courier's start")
        ending.act(process, base)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert "handlers False" not in out, "overt has installed a signal handler"
    return process.returncode, key, err


@pytest.mark.parametrize("name", ENDINGS)
def test_the_status_is_true_and_the_exit_code_unchanged(
    name: str, sqlite_uri: str, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = sqlite_uri if name in IN_MLFLOW else f"jsonl:{tmp_path / 'experiments'}"
    monkeypatch.setenv("OVERT_STORE", uri)
    ending = ENDINGS[name]
    bare_code, _, bare_err = end(ending, base, bare())
    code, key, err = end(ending, base, {})
    assert bare_code == ending.code, bare_err
    assert code == bare_code, err
    assert "overt" not in err
    assert err.splitlines()[-1:] == bare_err.splitlines()[-1:]
    assert err.count("Traceback") == bare_err.count("Traceback")

    if ending.by_sync:
        outcomes = sync_here(base, uri)
        assert [(outcome.finding.state, outcome.closed) for outcome in outcomes] == [("vanished", True)]
    eventually(lambda: not run_folders(base), "delivered and removed")
    database = Database(uri) if name in IN_MLFLOW else PlainFiles(uri)
    assert database.status(key) == ending.status
    assert sorted(point.name for point in database.points(key)) == sorted(ending.metrics)
    tags = database.tags(key)
    trace = database.artifacts(key) / "overt" / "traceback.txt"
    if ending.error is None:
        assert "overt.error" not in tags
        assert not trace.exists()
    else:
        assert tags["overt.error"].startswith(ending.error)
        assert "Traceback (most recent call last)" in trace.read_text()
        assert "script-" in trace.read_text()


def test_a_handler_of_the_users_own_is_called_and_decides(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    ending = Ending(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); before = handlers()\n    with start(): ready()",
        "",
        7,
        terminate,
    )
    code, key, _ = end(ending, base, {})
    assert code == 7
    eventually(lambda: not run_folders(base), "delivered and removed")
    assert Database(sqlite_uri).status(key) == "FAILED"


def test_a_worker_that_outlives_its_killed_parent_does_not_leave_the_run_running(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    process = start_python(
        """
        import multiprocessing, time
        import overt

        def work(run, is_done):
            run.log_metric("child", 1.0)
            is_done.set()
            time.sleep(300)

        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            is_done = context.Event()
            with overt.start_run("with a worker") as run:
                run.log_metric("parent", 1.0)
                child = context.Process(target=work, args=(run, is_done))
                child.start()
                is_done.wait()
                print(run.key, child.pid, flush=True)
                time.sleep(300)
        """
    )
    assert process.stdout is not None
    key, child = process.stdout.readline().split()
    eventually(lambda: couriers_of(base), "the courier's start")
    kill(process.pid)
    process.wait()
    database = Database(sqlite_uri)
    eventually(lambda: database.status(key) == "KILLED", "the run is closed")
    assert not is_gone(int(child)), "its worker still runs"
    assert sorted(point.name for point in database.points(key)) == ["child", "parent"]
    kill(int(child))
    process.communicate()
    eventually(lambda: (sync_here(base, sqlite_uri), not run_folders(base))[1], "delivered and removed")
    assert database.status(key) == "KILLED"
