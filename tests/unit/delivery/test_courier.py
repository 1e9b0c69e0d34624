"""The courier and its supervisor, as real processes around a real script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.delivery.kept import KeptStore, install, load, only_run

from overt.delivery.priority import can_share_session
from overt.delivery.sync import sync
from overt.journal.folder import iter_run_folders
from overt.journal.owner import _started

ROOT = Path(__file__).parents[3]
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "runs.pickle"


@pytest.fixture
def environment(tmp_path: Path, kept: Path) -> dict[str, str]:
    kept.parent.mkdir()
    site = install(tmp_path / "site")
    path = os.pathsep.join([str(site), str(ROOT), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "OVERT_STORE": f"kept:{kept}"}


@pytest.fixture
def script(environment: dict[str, str]) -> Script:
    def run(text: str, *options: str, before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
        start = "import os, signal, sys, time, overt\nfrom overt.delivery.dispatch import dispatch\n"
        return subprocess.run(
            [*before, sys.executable, *options, "-c", start + text],
            env=environment | variables,
            check=False,
            capture_output=True,
            text=True,
            timeout=80,
        )

    return run


def until(is_so: Callable[[], object], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


PRIORITY = """
import threading
NAMES = {os.SCHED_OTHER: "other", os.SCHED_IDLE: "idle"}
weight = open("/proc/self/autogroup").read()  # nothing where this session was begun without one
run = overt.start_run("r")
overt.wait()
pid = dispatch().courier_pid

def state():
    policies = {NAMES[os.sched_getscheduler(int(thread))] for thread in os.listdir(f"/proc/{pid}/task")}
    return "+".join(sorted(policies)) + (" here" if os.getsid(pid) == os.getsid(0) else " away")

def until(expected):
    deadline = time.monotonic() + 20
    while state() != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    print(state())

until("idle here")
run.log_metric("loss", 0.5)
waiting = threading.Thread(target=overt.wait)
waiting.start()
until("other here")
waiting.join()
until("idle here")
print(os.getpgid(pid) not in (os.getpgid(0), pid), open("/proc/self/autogroup").read() == weight)
"""
weighs_sessions = pytest.mark.skipif(not can_share_session(), reason="this system weighs no sessions by autogroup")


def may_be_normal_again() -> bool:
    """Whether a process that is idle may become normal here, which takes privileges."""
    again = "from overt.delivery.priority import compete, give_way; assert give_way() and compete()"
    return subprocess.run([sys.executable, "-c", again], check=False, capture_output=True).returncode == 0


@weighs_sessions
def test_the_courier_is_idle_beside_a_training_and_as_good_as_any_while_somebody_waits(script: Script) -> None:
    if not may_be_normal_again():
        pytest.skip("to be normal again takes privileges")
    ended = script(PRIORITY, KEPT_WORK_S="0.3")
    assert (ended.stdout.splitlines(), ended.stderr) == (["idle here", "other here", "idle here", "True True"], "")


UNPRIVILEGED = """
import os, time
from overt.delivery import priority

schedule = os.sched_setscheduler

def refuse(pid, policy, parameter):
    if policy != os.SCHED_IDLE:
        raise PermissionError
    schedule(pid, policy, parameter)

os.sched_setscheduler = refuse
"""
LACKS_CORES = "priority.core_time = lambda pid: priority.CoreTime(had_s=time.monotonic(), lacked_s=time.monotonic())"
STARVED = "priority.core_time = lambda pid: priority.CoreTime(had_s=0.0, lacked_s=time.monotonic())"


@weighs_sessions
def test_a_courier_that_cannot_come_back_leaves_a_session_in_which_it_lacks_a_core(
    script: Script, tmp_path: Path
) -> None:
    (tmp_path / "site" / "sitecustomize.py").write_text(UNPRIVILEGED + LACKS_CORES)
    ended = script(
        """
run = overt.start_run("r")
while dispatch().courier_pid is None:
    time.sleep(0.01)
pid = dispatch().courier_pid
print(overt.wait(60), dispatch().courier_pid == pid, os.getsid(pid) == pid)
""",
        KEPT_WORK_S="1",
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (["True True True"], "")


def test_a_courier_that_gets_no_core_is_followed_by_one_that_never_gives_way(script: Script, tmp_path: Path) -> None:
    (tmp_path / "site" / "sitecustomize.py").write_text(UNPRIVILEGED + STARVED)
    ended = script(
        """
run = overt.start_run("r")
while dispatch().courier_pid is None:
    time.sleep(0.01)
pid = dispatch().courier_pid
run.log_metric("loss", 0.5)
print(overt.wait(60), dispatch().courier_pid != pid, os.getpriority(os.PRIO_PROCESS, dispatch().courier_pid))
""",
        KEPT_WORK_S="1.5",
    )
    assert (ended.stdout.splitlines(), ended.stderr) == (["True True 0"], "")


CROWDED = """
import multiprocessing

def work():
    while True:
        pass

crowd = [multiprocessing.Process(target=work, daemon=True) for _ in range(4 * os.cpu_count())]
run = overt.start_run("r")
if {is_warm}:
    overt.wait()
for each in crowd:
    each.start()
run.log_metric("loss", 0.5)
print(overt.wait(60))
for each in crowd:
    each.kill()
"""
NO_SESSION = """
import os

def refuse():
    raise PermissionError

os.setsid = refuse
"""


@pytest.mark.serial
@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize(
    ("is_privileged", "site"), [(True, ""), (False, ""), (False, NO_SESSION)], ids=["root", "user", "container"]
)
def test_whoever_waits_among_processes_that_take_all_cores_is_served(
    script: Script, tmp_path: Path, is_privileged: bool, site: str, is_warm: bool
) -> None:
    """In a container a session of its own weighs nothing: here none can be founded."""
    (tmp_path / "site" / "sitecustomize.py").write_text(site)
    before = [] if is_privileged or not may_be_normal_again() else ["setpriv", "--bounding-set=-sys_nice"]
    ended = script(CROWDED.format(is_warm=is_warm), before=before)
    assert (ended.stdout.splitlines(), ended.stderr) == (["True"], "")


RESTING = """
run = overt.start_run("r")
run.log_metric("loss", 0.0)
overt.wait()
stat = f"/proc/{dispatch().courier_pid}/stat"

def seconds_worked():
    fields = open(stat).read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

began, worked = time.monotonic(), seconds_worked()
while time.monotonic() - began < 4:
    run.log_metric("loss", 0.0)
    time.sleep(0.002)
print((seconds_worked() - worked) / (time.monotonic() - began))
"""


def test_the_courier_rests_nine_times_as_long_as_it_works(script: Script) -> None:
    """With a store that takes 20 ms a call, as MLflow does."""
    share = float(script(RESTING, KEPT_WORK_S="0.02").stdout)
    assert 0 < share < 0.25


def test_a_script_ends_with_everything_delivered_and_nothing_left(script: Script, kept: Path, tmp_path: Path) -> None:
    ended = script("""
with overt.start_run("mine", params={"lr": 0.1}) as run:
    for step in range(500):
        run.log_metric("loss", 1 / (step + 1), step=step)
    run.log_text("hello", "notes/a.txt")
assert overt.wait(20)
print(dispatch().courier_pid)
""")
    assert (ended.returncode, ended.stderr) == (0, "")
    run = only_run(kept)
    assert (run.status, run.params, len(run.history)) == ("FINISHED", {"lr": "0.1"}, 500)
    assert run.artifacts["notes/a.txt"] == b"hello"
    assert {"overt/environment.json", "overt/packages.json"} <= run.artifacts.keys()
    assert list(iter_run_folders(tmp_path / ".overt")) == []
    pid = int(ended.stdout)
    assert {line.split()[0] for line in kept.with_suffix(".calls").read_text().splitlines()} == {str(pid)}
    until(lambda: _started(pid) is None)


@pytest.mark.parametrize("delivery", ["process", "inline"])
def test_folder_and_variables_are_the_training_process_own_when_the_run_starts(
    script: Script, kept: Path, tmp_path: Path, delivery: str
) -> None:
    """A courier computes with one thread, and stays where it was started."""
    (tmp_path / "later").mkdir()
    script(
        f"""
overt.configure(delivery={delivery!r})
with overt.start_run("first"):
    pass
os.chdir({str(tmp_path / "later")!r})
os.environ["CUDA_VISIBLE_DEVICES"] = "3"
del os.environ["OMP_NUM_THREADS"]
with overt.start_run("second"):
    pass
""",
        OMP_NUM_THREADS="7",
        MKL_NUM_THREADS="",
    )
    found = {run.name: json.loads(run.artifacts["overt/environment.json"]) for run in load(kept).runs.values()}
    first, second = (found[name]["variables"] for name in ("first", "second"))
    assert (first["OMP_NUM_THREADS"], first["MKL_NUM_THREADS"]) == ("7", "")
    assert "OPENBLAS_NUM_THREADS" not in first
    assert second["CUDA_VISIBLE_DEVICES"] == "3"
    assert "OMP_NUM_THREADS" not in second
    assert found["second"]["cwd"] == str(tmp_path / "later")


def test_a_killed_courier_is_replaced_though_a_child_of_the_training_holds_its_pipes(script: Script) -> None:
    """A worker that is forked at the moment at which the courier is started, as by a pool or a loader."""
    ended = script("""
spawn, children = os.posix_spawn, []

def spawn_beside_a_fork(*given, **named):
    children.append(os.fork() or time.sleep(60) or os._exit(0))
    return spawn(*given, **named)

os.posix_spawn = spawn_beside_a_fork
run = overt.start_run("r")
assert overt.wait(20)
os.kill(dispatch().courier_pid, signal.SIGKILL)
run.log_metric("loss", 0.5)
print(overt.wait(20), len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
""")
    assert (ended.stdout.splitlines(), ended.stderr) == (["True 2"], "")


def test_a_killed_courier_is_replaced_and_nothing_doubles(script: Script, kept: Path) -> None:
    ended = script("""
seen = set()
def courier():
    while dispatch().courier_pid in seen | {None}:
        time.sleep(0.001)
    seen.add(dispatch().courier_pid)
    return dispatch().courier_pid
with overt.start_run("mine") as run:
    for step in range(4000):
        run.log_metric("loss", 0.5, step=step)
        if step in (1000, 2500):
            run.flush()
            pid = courier()
            if step == 2500:
                assert dispatch().wait([run.key], timeout_s=20, patience_s=20)
                run.log_metric("between", 1.0)
            os.kill(pid, signal.SIGKILL)
    courier()
assert overt.wait(30)
assert len(seen) == 3, seen
""")
    assert (ended.returncode, ended.stderr) == (0, "")
    run = only_run(kept)
    assert run.status == "FINISHED"
    assert sorted(point.step for point in run.history if point.name == "loss") == list(range(4000))


@pytest.mark.parametrize("interpreter", ["", "/bin/false", "/nonexistent/python"])
def test_where_no_courier_can_be_started_one_warning_is_given_and_delivery_is_inline(
    script: Script, kept: Path, interpreter: str
) -> None:
    ended = script(
        f"""
sys.executable = {interpreter!r}
for number in range(3):
    with overt.start_run(f"run {{number}}") as run:
        run.log_metric("x", number)
deadline = time.monotonic() + 20
while not dispatch()._hopeless and time.monotonic() < deadline:
    time.sleep(0.01)
assert overt.wait(20)
with overt.start_run("later") as run:
    run.log_metric("x", 3)
""",
        "-W",
        "always",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("OvertWarning") == 1, ended.stderr
    assert "overt sync" in ended.stderr
    runs = load(kept).runs.values()
    assert sorted(run.metrics["x"] for run in runs) == [0.0, 1.0, 2.0, 3.0]
    assert {run.status for run in runs} == {"FINISHED"}
    assert all("overt/environment.json" in run.artifacts for run in runs), (
        "what surrounds a run is captured all the same"
    )


@pytest.mark.parametrize("interpreter", ["", "/nonexistent/python"])
def test_a_warning_that_is_an_error_is_printed_and_never_raised_into_training(
    script: Script, kept: Path, interpreter: str
) -> None:
    ended = script(
        f"""
sys.executable = {interpreter!r}
with overt.start_run() as run:
    run.log_metric("x", 1)
assert overt.wait(20)
""",
        "-W",
        "error",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("overt: no courier process") == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert only_run(kept).metrics == {"x": 1.0}


def test_a_store_that_is_away_costs_one_warning_and_no_record(script: Script, kept: Path, tmp_path: Path) -> None:
    away = kept.with_suffix(".away")
    away.touch()
    ended = script(
        """
with overt.start_run() as run:
    for step in range(100):
        run.log_metric("x", step)
deadline = time.monotonic() + 40
while not dispatch().deliveries.failures and time.monotonic() < deadline:
    time.sleep(0.01)
assert not overt.wait(1.0)
""",
        "-W",
        "always",
        OVERT_WAIT="0.1",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("OvertWarning") == 1, ended.stderr
    assert "overt sync" in ended.stderr
    assert not kept.exists()
    (folder,) = iter_run_folders(tmp_path / ".overt")
    away.unlink()
    until(lambda: kept.exists() and only_run(kept).status == "FINISHED", seconds=40)
    assert len(only_run(kept).history) == 100
    until(lambda: not folder.exists())


def test_a_killed_script_is_noticed_by_its_courier_which_closes_the_run(
    environment: dict[str, str], kept: Path, tmp_path: Path
) -> None:
    text = """
import time, overt
from overt.delivery.dispatch import dispatch
run = overt.start_run("mine")
for step in range(200):
    run.log_metric("x", step)
run.log_text("left", "left.txt")
while dispatch().courier_pid is None:  # one that was never started is the doctor's case
    time.sleep(0.001)
print("ready", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    until(lambda: kept.exists() and only_run(kept).status == "KILLED")
    run = only_run(kept)
    assert [point.step for point in run.history] == list(range(200))
    assert run.artifacts["left.txt"] == b"left"
    until(lambda: not list(iter_run_folders(tmp_path / ".overt")))


def test_a_manual_run_stays_until_it_is_synced_and_a_second_sync_sends_nothing(
    script: Script, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = script(
        """
with overt.start_run("mine") as run:
    run.log_metric("x", 1)
assert dispatch().courier_pid is None
""",
        OVERT_DELIVERY="manual",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not kept.exists()
    monkeypatch.setattr("overt.delivery.sync.open_store", KeptStore)
    for keep in (True, True, False):
        (outcome,) = sync(tmp_path / ".overt", store_of=lambda spec: f"kept:{kept}", keep=keep)
        assert outcome.delivered
        calls = kept.with_suffix(".calls").read_text()
    assert calls.count("log_batch") == only_calls(calls)
    assert only_run(kept).metrics == {"x": 1.0}
    assert list(sync(tmp_path / ".overt", store_of=lambda spec: f"kept:{kept}")) == []


def only_calls(calls: str) -> int:
    """How many batches one delivery of a manual run makes: its tags before and its metric after the captured files."""
    return 2 if calls.count("log_artifacts") == 1 else -1


def test_a_script_that_does_not_wait_is_delivered_after_it(script: Script, kept: Path, tmp_path: Path) -> None:
    ended = script(
        """
with overt.start_run() as run:
    run.log_metric("x", 1)
""",
        OVERT_WAIT="0",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    until(lambda: kept.exists() and only_run(kept).status == "FINISHED")
    until(lambda: not list(iter_run_folders(tmp_path / ".overt")))


def test_a_late_record_of_a_removed_journal_arrives(script: Script, kept: Path) -> None:
    ended = script("""
with overt.start_run() as run:
    run.log_metric("x", 1)
assert overt.wait(20)
deadline = time.monotonic() + 20
while os.path.exists(f"{os.environ['OVERT_DIR']}/runs/{run.key}") and time.monotonic() < deadline:
    time.sleep(0.01)
assert not os.path.exists(f"{os.environ['OVERT_DIR']}/runs/{run.key}")
run.log_metric("f1_score", 0.5)
run.log_text("late", "late.txt")
assert overt.wait(20)
print(run.id)
""")
    assert (ended.returncode, ended.stderr) == (0, "")
    run = only_run(kept)
    assert (run.metrics, run.status, run.artifacts["late.txt"]) == ({"x": 1.0, "f1_score": 0.5}, "FINISHED", b"late")
    assert ended.stdout.strip() == run.id
