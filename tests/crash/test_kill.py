"""Kill -9 at random moments: what a call had returned for is in MLflow, once, whoever has to bring it there."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.crash.processes import (
    DEADLINE_S,
    Database,
    Point,
    eventually,
    is_gone,
    kill,
    run_folders,
    run_python,
    start_python,
    sync_here,
    sync_until_delivered,
)

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

SEED = 20240611
KILLS = 50
AT_ONCE = 2
LONGEST_LIFE_S = 2.0  # a courier has delivered several batches by then

TRAINING = """
    import os, sys, time
    import overt
    from overt.delivery.dispatch import dispatch

    told = int(sys.argv[1])

    def tell(*words):
        os.write(told, (" ".join(map(str, words)) + "\\n").encode())

    def record(name, value, step, recorded_step):
        run.log_metric(name, value, step=step)
        tell("metric", name, value.hex(), recorded_step, run._series[name].last_ms)

    run = overt.start_run("killed", experiment="crash")
    tell("run", run.key)
    i = 0
    while True:
        for _ in range(4):  # a burst as tight as Python goes: equal milliseconds, two points at each step of "pair"
            record("loss", 1.0 / (i + 1), None, i)
            record("same", 0.5, 0, 0)
            record("pair", float(i % 2), i // 2, i // 2)
            i += 1
        tell("courier", dispatch().courier_pid)
        time.sleep(0.01)
"""


class Trial(NamedTuple):
    """One killed training process, and what it had been told is recorded."""

    key: str
    told: frozenset[Point]
    by_courier: bool


def kill_one(moment_s: float, *, with_courier: bool) -> Trial:
    """Let a training process live for so long after its first record, and kill it."""
    ours, theirs = os.pipe()
    training = start_python(TRAINING, theirs, pass_fds=[theirs])
    os.close(theirs)
    lines: list[str] = []
    has_recorded = threading.Event()

    def listen() -> None:
        with os.fdopen(ours) as pipe:
            for line in pipe:
                if line.endswith("\n"):
                    lines.append(line)
                    if line.startswith("metric"):
                        has_recorded.set()

    listener = threading.Thread(target=listen)
    listener.start()
    has_recorded.wait(DEADLINE_S)
    time.sleep(moment_s)  # the random moment itself; nothing is expected to be so or so by then
    kill(training.pid)
    if with_courier:
        for courier in {line.split()[1] for line in list(lines) if line.startswith("courier")} - {"None"}:
            kill(int(courier))
    _, err = training.communicate()
    listener.join(DEADLINE_S)
    assert not listener.is_alive(), "the courier holds the pipe that the training process was given"
    assert err == ""
    words = [line.split() for line in lines]
    told = [
        Point(name, float.fromhex(v), int(step), int(ms))
        for kind, *rest in words
        if kind == "metric"
        for name, v, step, ms in [rest]
    ]
    assert len(told) == len(set(told)), "two records cannot be told apart by name, value, step and millisecond"
    had_courier = any(kind == "courier" and rest != ["None"] for kind, *rest in words)  # not in its first milliseconds
    return Trial(words[0][1], frozenset(told), had_courier and not with_courier)


def missing_or_doubled(database: Database, trial: Trial) -> str:
    """What is wrong with a run in MLflow; empty if nothing is."""
    found = database.points(trial.key)
    missing = trial.told - found.keys()
    more = found.keys() - trial.told
    doubled = [point for point, count in found.items() if count > 1]
    status = database.status(trial.key)
    # One call may have written its line and been killed before it returned.
    return "".join(
        [
            f"{len(missing)} of {len(trial.told)} missing " if missing else "",
            f"{len(more)} that nobody recorded " if len(more) > 1 else "",
            f"{len(doubled)} doubled " if doubled else "",
            f"status {status} " if status != "KILLED" else "",
        ]
    )


@pytest.mark.serial  # tight loops on all cores, in which the couriers of other tests would starve
@pytest.mark.timeout(420)
def test_what_a_call_returned_for_survives_kill_9_at_any_moment(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    random_ = random.Random(SEED)
    moments = [(random_.choice([0.05, LONGEST_LIFE_S]) * random_.random(), i % 2 == 0) for i in range(KILLS)]
    database = Database(sqlite_uri)

    def attempt(moment: tuple[float, bool]) -> Trial:
        trial = kill_one(moment[0], with_courier=moment[1])
        if trial.by_courier:  # unasked, by its courier alone
            eventually(lambda: not (base / "runs" / trial.key).exists(), f"courier delivered run {trial.key}")
        return trial

    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = list(pool.map(attempt, moments))

    wrong = {t.key: problem for t in trials if t.by_courier and (problem := missing_or_doubled(database, t))}
    assert not wrong, f"by the courier alone: {wrong}"
    eventually(lambda: all(outcome.delivered for outcome in sync_here(base, sqlite_uri, keep=True)), "all synced")
    wrong = {t.key: problem for t in trials if (problem := missing_or_doubled(database, t))}
    assert not wrong, f"after sync: {wrong}"
    assert sum(len(trial.told) for trial in trials) > 10 * KILLS
    assert sum(trial.by_courier for trial in trials) > KILLS // 4
    assert len(run_folders(base)) > KILLS // 4, "no trial was left to sync, so that it was not tested"

    before = database.dump()
    sync_here(base, sqlite_uri, keep=True)
    assert database.dump() == before, "a further sync wrote something"
    for folder in run_folders(base):
        (folder / "delivered.json").unlink()
    sync_here(base, sqlite_uri, keep=True)
    assert database.dump() == before, "delivering from the first byte again wrote something"
    sync_until_delivered(base, sqlite_uri)
    assert database.dump() == before
    print(f"{KILLS} kills, {sum(len(t.told) for t in trials)} records told, {len(before)} lines of SQL")


LIVING = """
    import json, os, sys, time
    import overt
    from overt.delivery.dispatch import dispatch
    from overt.models.files import ModelFiles

    with overt.start_run("living", experiment="crash") as run:
        print(run.key, flush=True)
        i = 0
        while not os.path.exists("stop"):
            run.log_metric("loss", 1.0 / (i + 1), step=i)
            if i % 50 == 0:
                run.log_text(f"note {i}", f"notes/{i}.txt")
                run.log_param(f"p{i}", i)
                run.set_tag("latest", str(i))
            if i % 200 == 0:
                files = {"model.pkl": b"model %d" % i}
                fields = {"pickled_model": "model.pkl"}, {"loader_module": "mlflow.sklearn"}
                run.log_model(ModelFiles("sklearn", files, *fields), name=f"model_{i}")
            i += 1
            with open("courier", "w") as file:
                file.write(str(dispatch().courier_pid))
            os.replace("courier", "courier.pid")
            time.sleep(0.01)
    print(i, overt.wait(60), flush=True)
"""


def new_courier(known: set[int]) -> int:
    """Process id of a courier that is not in ``known``; waits for it."""
    found: list[int] = []

    def look() -> bool:
        text = Path("courier.pid").read_text() if Path("courier.pid").exists() else ""
        if text.isdigit() and int(text) not in known and not is_gone(int(text)):
            found.append(int(text))
        return bool(found)

    eventually(look, "a new courier")
    known.add(found[0])
    return found[0]


def test_a_courier_killed_at_any_moment_is_replaced_and_nothing_doubles(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    random_ = random.Random(SEED)
    training = start_python(LIVING)
    known: set[int] = set()
    for life_s in (random_.random(), random_.uniform(3.1, 4.5), random_.uniform(1, 3), random_.uniform(3.1, 4.5), 0.0):
        courier = new_courier(known)
        time.sleep(life_s)  # the random moment
        kill(courier)
    new_courier(known)
    Path("stop").touch()
    out, err = training.communicate(timeout=DEADLINE_S)
    key, count, arrived = out.split()
    assert (training.returncode, err, arrived) == (0, "", "True")
    assert len(known) == 6

    database, steps = Database(sqlite_uri), range(int(count))
    points = database.points(key)
    assert sorted((point.step, point.value, n) for point, n in points.items()) == [(i, 1 / (i + 1), 1) for i in steps]
    assert database.status(key) == "FINISHED"
    notes = {path.name: path.read_text() for path in (database.artifacts(key) / "notes").iterdir()}
    assert notes == {f"{i}.txt": f"note {i}" for i in steps if i % 50 == 0}
    assert database.params(key) == {f"p{i}": str(i) for i in steps if i % 50 == 0}
    assert database.tags(key)["latest"] == str(max(i for i in steps if i % 50 == 0))
    models = database.rows("SELECT name, status, artifact_location FROM logged_models")
    assert sorted(name for name, _, _ in models) == sorted(f"model_{i}" for i in steps if i % 200 == 0)
    for name, status, location in models:
        assert status == 2, f"{name} is not READY"
        assert Path(location.removeprefix("file://"), "model.pkl").read_bytes() == f"model {name[6:]}".encode()
    assert not run_folders(base)


def test_a_courier_that_never_lives_long_is_given_up_with_one_warning(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    training = start_python(LIVING)
    known: set[int] = set()
    for _ in range(3):
        kill(new_courier(known))
    Path("stop").touch()
    out, err = training.communicate(timeout=DEADLINE_S)
    key, count, arrived = out.split()
    assert (training.returncode, arrived) == (0, "True")
    assert err.count("OvertWarning:") == 1, err
    assert "no courier process can be kept running" in err
    database = Database(sqlite_uri)
    assert sorted(point.step for point in database.points(key)) == list(range(int(count)))
    assert database.status(key) == "FINISHED"
    assert not run_folders(base)


def test_a_pipe_handed_to_the_training_process_closes_with_it(sqlite_uri: str) -> None:
    script = """
        import overt
        overt.configure(store="http://127.0.0.1:1", drain_timeout_s=0)
        with overt.start_run("short") as run:
            run.log_metric("loss", 1.0)
    """
    ours, theirs = os.pipe()
    ended = run_python(script, pass_fds=[theirs])
    os.close(theirs)
    assert ended.code == 0
    reader = threading.Thread(target=os.read, args=(ours, 1))
    reader.start()
    reader.join(20)
    assert not reader.is_alive(), "a courier that lives on keeps a pipe open that it was never given"
    os.close(ours)
