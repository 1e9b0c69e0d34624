"""What stands on a terminal while loops go on, and that nothing is printed where nobody looks."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

import overt
from overt import bar
from overt.bar import is_shown
from overt.run import Run

TRAINING = """
import sys, time
import logging
import overt
logging.basicConfig(level="INFO", format="%(message)s")
streams = sys.stdout, sys.stderr
with overt.testing.captured_runs(), overt.start_run("mine") as run:
    for epoch in run.epochs(3):
        for number in run.batches(range(4)):
            if epoch == 1 and number == 2:
                logging.info("logged")
            time.sleep(0.04)
        run.log_metric("train_loss", 0.5 / (epoch + 1), epoch=epoch)
        print("printed", epoch, flush=True)
        assert (sys.stdout, sys.stderr) == streams
is_drawn = "tqdm" in sys.modules
"""


def on_a_terminal(script: str, *, columns: int = 80, **environment: str) -> str:
    """All that ``script`` writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name != "OVERT_QUIET"}
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=inherited | {"PYTHONUTF8": "1"} | environment
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # what Linux says where the other side is closed
        while piece := os.read(ours, 65536):
            written += piece
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines of a terminal that was given ``written``."""
    lines = [""]
    at = 0
    for character in written:
        assert character.isprintable() or character in "\r\n", "the cursor is moved by a carriage return only"
        if character == "\r":
            at = 0
        elif character == "\n":
            lines.append("")
        else:
            lines[-1] = lines[-1][:at] + character + lines[-1][at + 1 :]
            at += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_one_line_and_leaves_what_others_print() -> None:
    written = on_a_terminal(TRAINING)
    lines = screen(written)
    others = [line for line in lines if line.startswith("printed")]
    assert others == ["printed 0", "printed 1", "printed 2"]
    assert sum(line.endswith("logged") for line in lines) == 1
    assert re.fullmatch(r"epoch: 100%\|█+\| 3/3 \[00:0\d<00:00, .*it/s, train_loss=0\.167\]", lines[-2])
    assert lines[-1] == ""
    assert len(lines) == len(["printed"] * 3 + ["logged", "the line", ""])
    assert re.search(r"\repoch 1/3, batch:  75%\|█+[^|]*\| 3/4 \[.*?, train_loss=0\.5\]", written)


@pytest.mark.parametrize("environment", [{"OVERT_QUIET": "1"}, {"OVERT_DISABLED": "1"}, {"RANK": "1"}])
def test_a_terminal_stays_empty_where_nothing_is_to_be_said(environment: dict[str, str]) -> None:
    lines = TRAINING.replace("overt.testing.captured_runs(), ", "").splitlines()
    script = "\n".join(line for line in lines if "logg" not in line and "epoch == 1" not in line)
    written = on_a_terminal(script, OVERT_DELIVERY="manual", **environment)
    assert screen(written) == ["printed 0", "printed 1", "printed 2", ""]


def test_a_pipe_gets_not_one_byte() -> None:
    own = {name: value for name, value in os.environ.items() if name != "OVERT_QUIET"}
    script = TRAINING + "assert not is_drawn"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=own)
    assert done.stderr == "logged\n"
    assert done.stdout == "printed 0\nprinted 1\nprinted 2\n"


def test_a_line_fits_in_a_narrow_terminal_whatever_its_metrics_are_called() -> None:
    script = """
import overt
with overt.testing.captured_runs(), overt.start_run("mine") as run:
    run.log_metric("\\n\\x1b" + "손실" * 4, 0.5)
    for epoch in run.epochs(1):
        pass
"""
    written = on_a_terminal(script, columns=60)
    line, after = screen(written)  # which nothing but a carriage return may move in
    assert line.startswith("epoch: 100%|█| 1/1 [00:00<00:00, ")
    assert ", ??손실" in line
    assert len(line) + sum(character in "손실" for character in line) <= 60
    assert after == ""


def test_a_bar_starts_no_thread_and_leaves_the_start_method_to_the_user() -> None:
    script = """
import multiprocessing, threading
import overt
with overt.testing.captured_runs(), overt.start_run("mine") as run:
    before = threading.enumerate()
    for epoch in run.epochs(2):
        list(run.batches("ab"))
        assert threading.enumerate() == before
multiprocessing.set_start_method("spawn")
"""
    assert "epoch: 100%" in on_a_terminal(script)


@pytest.mark.parametrize(("variable", "value"), [("TQDM_DISABLE", "1"), ("TQDM_BAR_FORMAT", "{nothing}")])
def test_what_the_user_tells_tqdm_stops_no_loop(variable: str, value: str) -> None:
    written = on_a_terminal(TRAINING, **{variable: value})
    assert [line for line in screen(written) if line] == ["printed 0", "logged", "printed 1", "printed 2"]


# -- without a terminal ------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        super().isatty()  # which raises where it is closed
        return True


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERT_QUIET")


def terminal_for(patch: pytest.MonkeyPatch) -> Terminal:
    """What stderr is from here on; in a fixture pytest would put its own in its place."""
    stream = Terminal()
    patch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def run() -> Iterator[Run]:
    with overt.testing.captured_runs():
        yield overt.start_run("mine")


def test_it_is_shown_on_a_terminal_and_not_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_for(monkeypatch)
    assert is_shown()
    monkeypatch.setenv("OVERT_QUIET", "1")
    assert not is_shown()


def test_it_is_shown_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    notebooks = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", notebooks)
    assert is_shown()


def closed() -> Terminal:
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(), io.StringIO(), object()])
def test_it_is_not_shown_where_nobody_looks(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_shown()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_process_shows_nothing(method: str) -> None:
    script = f"""
import multiprocessing, sys, time, warnings
import overt

def work():
    with overt.testing.captured_runs(), overt.start_run("mine") as run:
        for epoch in run.epochs(2):
            time.sleep(0.2)

if __name__ == "__main__":
    worker = multiprocessing.get_context("{method}").Process(target=work)
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""
    if method == "spawn":
        with open("workers.py", "w") as file:
            file.write(script)
        script = "import runpy; runpy.run_path('workers.py', run_name='__main__')"
    assert on_a_terminal(script) == ""


def test_a_forked_child_leaves_the_line_to_its_parent() -> None:
    script = """
import os, time
import overt
is_child = False
with overt.testing.captured_runs(), overt.start_run("mine") as run:
    for epoch in run.epochs(2):
        for number in run.batches(range(3)):
            if (epoch, number) == (0, 1):
                is_child = os.fork() == 0
                if is_child:
                    reader, writer = os.pipe()
                    os.dup2(writer, 2)
                else:
                    assert os.wait()[1] == 0
            time.sleep(0.12)
if is_child:
    os.set_blocking(reader, False)
    try:
        os._exit(len(os.read(reader, 100)))
    except BlockingIOError:
        os._exit(0)
"""
    assert "epoch: 100%" in screen(on_a_terminal(script))[0]


def test_a_forked_child_may_draw_a_line_of_its_own() -> None:
    script = """
import os, signal, threading
import overt
from overt.bar import bar_class
with overt.testing.captured_runs(), overt.start_run("mine") as run:
    for epoch in run.epochs(1):
        threading.Thread(target=bar_class().get_lock().acquire).start()  # which the child has no such thread to release
        if not (child := os.fork()):
            signal.alarm(10)
            is_free = bar_class()._get_free_pos() == 0
            bar_class()("child's", 1, dict, done=0, stays=True).close()
            os._exit(not is_free)
        status = os.waitpid(child, 0)[1]
        os._exit(os.waitstatus_to_exitcode(status))
"""
    assert "child's:   0%" in on_a_terminal(script)


class Broken(Terminal):
    def write(self, text: str) -> int:
        raise OSError("gone")


def test_a_stream_that_breaks_stops_the_line_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    assert [list(run.batches("ab")) for _ in run.epochs(3)] == [["a", "b"]] * 3
    terminal = terminal_for(monkeypatch)
    for _ in run.epochs(2):
        terminal.close()
    assert run.metrics["epoch_seconds"] >= 0


def test_a_closed_stdout_stops_no_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_for(monkeypatch)
    monkeypatch.setattr(sys, "stdout", closed())  # which tqdm flushes
    assert list(run.epochs(2)) == [0, 1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tqdm.std.time", clock.now)
    return clock


class Clock:
    """What tqdm takes for the time."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def __call__(self, seconds: float) -> None:
        self.seconds += seconds


def test_the_values_are_asked_for_ten_times_a_second_at_most(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, asked = terminal_for(monkeypatch), []
    monkeypatch.setattr(run.loops, "latest", lambda: asked.append(clock.now()) or {})
    for _ in run.batches(range(1000)):
        clock(1 / 1024)
    assert len(asked) == terminal.getvalue().count("batch: ") == 9


def test_slow_batches_after_fast_ones_are_each_shown(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    for number in run.batches(range(1020)):
        clock(1 / 1024 if number < 1000 else 1)
    assert all(f"| {number}/1020 [" in terminal.getvalue() for number in range(1001, 1020))


def test_nothing_of_a_longer_line_is_left_beside_a_shorter_one(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_for(monkeypatch)
    for epoch in run.epochs(1):
        for batch in run.batches(x for x in "ab"):
            clock(1)
            if batch == "b":
                [line] = screen(terminal.getvalue())
                assert re.fullmatch(r"epoch 0/1, batch: 1it \[00:01, .*?it/s\]", line), epoch


def test_the_time_left_is_that_of_what_is_finished(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    for _ in run.batches(range(4)):
        clock(3600.4)
    drawn = re.findall(r"(\d/4 \[.*?),", terminal.getvalue())
    assert drawn == ["1/4 [1:00:00<3:00:01", "2/4 [2:00:00<2:00:00", "3/4 [3:00:01<1:00:00"]


def test_a_training_that_goes_on_is_shown_to_be_where_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        def restore(self, objects: Any) -> dict[str, Any]:
            return {"epoch": 2, "counted": {}}

        def save(self, objects: Any, **told: Any) -> None:
            pass

    terminal = terminal_for(monkeypatch)
    run.loops.keep_checkpoint(Kept(), counted=None, is_own=False)  # type: ignore[arg-type]
    assert list(run.epochs(3, checkpoint=Stateful())) == [2]
    assert "| 2/3 [" in terminal.getvalue()
    assert "| 3/3 [" in screen(terminal.getvalue())[0]


class Stateful:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_runs_within_each_other_share_the_line(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    for _ in run.epochs(2):
        clock(1)
        for _ in overt.start_run("child", parent=run).epochs(2):
            clock(1)
    lines = screen(terminal.getvalue())
    assert len(lines) == 2
    assert lines[0].startswith("epoch: 100%")
    assert "epoch 1/2, epoch:  50%" in terminal.getvalue()


def test_batches_alone_leave_an_empty_line(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    for _ in run.batches(x for x in "ab"):
        clock(1)
    assert "batch: 1it [00:01" in terminal.getvalue()
    assert screen(terminal.getvalue()) == [""]


def test_a_loop_that_is_left_gives_its_line_back(run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    for _ in run.epochs(2):
        for _ in run.batches("abc"):
            clock(1)
            break
        clock(1)
    assert screen(terminal.getvalue())[0].startswith("epoch: 100%")
    assert bar._open == {}
