from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import overt
from overt.errors import ConfigurationError, StoreUnavailable
from overt.records import ROWS_TAG
from overt.stores.memory import MemoryRun, MemoryStore
from overt.tracker import Tracker, open_for_hook


@pytest.fixture
def captured() -> Any:
    with overt.testing.captured_runs() as runs:
        yield runs


# -- a tracker is configuration ----------------------------------------------------------------------------------------


def test_a_tracker_survives_copies_pickles_and_clones() -> None:
    base = pytest.importorskip("sklearn.base")
    tracker = Tracker(experiment="mine", tags={"a": "b"}, store="sqlite:///x.db", enabled=False)
    for made in (copy.copy(tracker), copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        assert made.settings == tracker.settings
    assert base.clone(tracker) is tracker
    assert "experiment='mine'" in repr(tracker)
    assert "delivery" not in repr(tracker)


def test_a_run_survives_copies_pickles_and_clones_as_itself() -> None:
    base = pytest.importorskip("sklearn.base")
    run = Tracker(delivery="manual").start_run()
    assert copy.copy(run) is copy.deepcopy(run) is base.clone(run) is pickle.loads(pickle.dumps(run)) is run
    run.finish()


def test_a_null_run_survives_a_pickle() -> None:
    run = pickle.loads(pickle.dumps(Tracker(enabled=False).start_run("null")))
    run.log_metric("x", 1.0)
    assert (run.name, run.metrics) == ("null", {"x": 1.0})


def test_a_captured_run_survives_a_pickle_as_itself(captured: list[MemoryRun]) -> None:
    run = overt.start_run()
    assert pickle.loads(pickle.dumps(run)) is run


# -- disabled ----------------------------------------------------------------------------------------------------------

WATCHED = """
import json, os, sys, threading
seen = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen.append(f"{event} {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.posix_spawn", "os.fork", "os.exec", "os.mkdir", "os.system")):
        if event != "socket.gethostname":
            seen.append(event)
import overt, overt.tracker, overt.evaluation.report
sys.addaudithook(watch)
ENABLE
with overt.start_run("none", params={"a": 1}, tags={"b": "c"}, notes="d") as run:
    for step in range(10):
        run.log_metric("loss", step / 10, step=step)
    run.log_params({"lr": 0.1})
    run.set_tag("stage", "one")
    run.log_text("hello", "a.txt")
    run.log_artifact(sys.executable, "programs")
    with overt.start_run() as child:
        child.log_metric("x", 1)
    run.flush()
assert overt.wait(5)
assert run.status == "FINISHED" and run.metrics == {"loss": 0.9} and run.params["lr"] == "0.1"
print(json.dumps({"seen": seen, "threads": [t.name for t in threading.enumerate()], "files": os.listdir()}))
"""


def watched(enable: str, tmp_path: Path, **variables: str) -> dict[str, Any]:
    place = tmp_path / "empty"
    place.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED.replace("ENABLE", enable)],
        cwd=place,
        env={**os.environ, "OVERT_QUIET": "0", "OVERT_DIR": "", **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return {**json.loads(ended.stdout), "said": ended.stderr}


NOTHING = {"seen": [], "threads": ["MainThread"], "files": [], "said": ""}


def test_a_null_run_that_is_asked_for_its_store_says_that_it_is_kept_nowhere() -> None:
    with Tracker(enabled=False).start_run("null") as run:
        pass
    with pytest.raises(StoreUnavailable, match="run null is kept nowhere: tracking is switched off, or another rank"):
        _ = run.id
    with pytest.raises(LookupError, match="run null is kept nowhere"):
        _ = run.model_uri


@pytest.mark.parametrize("how", ["OVERT_DISABLED", "configure", "RANK", "SLURM_PROCID"])
def test_a_null_run_makes_no_file_no_thread_no_process_and_no_socket(tmp_path: Path, how: str) -> None:
    enable = "overt.configure(enabled=False)" if how == "configure" else ""
    assert watched(enable, tmp_path, **({} if how == "configure" else {how: "1"})) == NOTHING


def test_the_watch_sees_what_an_enabled_run_makes(tmp_path: Path) -> None:
    found = watched("overt.configure(delivery='manual', directory='journals')", tmp_path, OVERT_DISABLED="0")
    assert found["files"]
    assert found["seen"]
    assert found["said"]


@pytest.mark.parametrize(("rank", "is_main"), [("0", True), ("1", False), ("17", False), ("", True), ("x", True)])
def test_only_the_first_rank_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: str, is_main: bool) -> None:
    monkeypatch.setenv("RANK", rank)
    run = Tracker(delivery="manual").start_run()
    run.log_metric("x", 1.0)
    run.finish()
    assert (tmp_path / ".overt" / "runs" / run.key).exists() == is_main
    assert run.metrics == {"x": 1.0}


# -- parents and the current run ---------------------------------------------------------------------------------------


def test_a_run_within_a_run_is_its_child_in_the_same_experiment(captured: list[MemoryRun]) -> None:
    with overt.start_run("outer", experiment="mine") as outer:
        assert overt.current_run() is outer
        with overt.start_run("inner") as inner:
            assert overt.current_run() is inner
            assert inner.spec.parent_key == outer.key
        assert overt.current_run() is outer
        elsewhere = overt.start_run("elsewhere", experiment="other")
        assert overt.current_run() is outer  # without `with`, nothing becomes current
    assert overt.current_run() is None
    assert overt.start_run().spec.parent_key is None
    assert [run.experiment for run in captured[:3]] == ["mine", "mine", "other"]
    assert elsewhere.spec.parent_key == outer.key


def test_a_run_within_a_run_goes_to_its_store_wherever_the_script_has_gone_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    with overt.Tracker(store="jsonl:mine", delivery="manual").start_run() as outer:
        monkeypatch.chdir("below")
        manual = overt.Tracker(delivery="manual")
        with manual.start_run() as inner, manual.start_run() as innermost:
            pass
        elsewhere = overt.start_run(tracker=overt.Tracker(store="jsonl:other", delivery="manual"))
    assert outer.spec.store == inner.spec.store == innermost.spec.store == f"jsonl:{tmp_path}/mine"
    assert elsewhere.spec.store == f"jsonl:{tmp_path}/below/other"
    assert len(list((tmp_path / ".overt" / "runs").iterdir())) == 4
    assert not (tmp_path / "below" / ".overt").exists()


def test_a_parent_may_be_a_run_or_its_key(captured: list[MemoryRun]) -> None:
    parent = overt.start_run()
    assert overt.start_run(parent=parent).spec.parent_key == parent.key
    assert overt.start_run(parent=parent.key).spec.parent_key == parent.key


def test_a_key_in_the_environment_is_the_parent_where_there_is_no_nearer_one(
    captured: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = "ab" * 16
    monkeypatch.setenv("OVERT_PARENT_RUN", far)
    with overt.start_run() as outer:
        assert outer.spec.parent_key == far
        assert overt.start_run().spec.parent_key == outer.key


@pytest.mark.parametrize("key", ["last", "../../etc", "AB" * 16, "ab" * 15])
def test_a_parent_that_is_no_key_raises_at_once(
    captured: list[MemoryRun], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    with pytest.raises(ConfigurationError, match="`parent` must be a Run or a run's key"):
        overt.start_run(parent=key)
    monkeypatch.setenv("OVERT_PARENT_RUN", key)
    with pytest.raises(ConfigurationError, match="OVERT_PARENT_RUN must be"):
        overt.start_run()


def test_a_thread_begins_outside_any_run(captured: list[MemoryRun]) -> None:
    found: list[Any] = []
    with overt.start_run():
        thread = threading.Thread(target=lambda: found.append(overt.current_run()))
        thread.start()
        thread.join()
    assert found == [None]


def test_one_run_may_be_entered_twice(captured: list[MemoryRun]) -> None:
    with overt.start_run("outer") as outer:
        with overt.start_run("inner"), outer:
            assert overt.current_run() is outer
        assert overt.current_run() is outer


# -- which run a hook records into -------------------------------------------------------------------------------------


def test_a_hook_takes_the_run_it_is_given_before_all_others(captured: list[MemoryRun]) -> None:
    given, parent = overt.start_run("given"), overt.start_run("parent")
    with overt.start_run("current"):
        hook = open_for_hook("fit", run=given, parent=parent, params={"a": 1}, tags={"b": "c"}, notes="d")
    assert (hook.run, hook.owned) == (given, False)
    stored = captured[0]
    assert (stored.params, stored.tags["b"], stored.tags["mlflow.note.content"]) == ({"a": "1"}, "c", "d")


def test_a_hook_with_a_parent_gets_a_child_of_it(captured: list[MemoryRun]) -> None:
    parent = overt.start_run("parent")
    with overt.start_run("current"):
        hook = open_for_hook("fit", parent=parent)
    assert (hook.run.spec.parent_key, hook.owned) == (parent.key, True)


def test_the_first_hook_joins_the_current_run_and_later_ones_are_its_children(captured: list[MemoryRun]) -> None:
    with overt.start_run("current") as current:
        first, second = open_for_hook("fit"), open_for_hook("fit")
    assert (first.run, first.owned) == (current, False)
    assert (second.run.spec.parent_key, second.owned) == (current.key, True)


def test_a_hook_with_a_name_of_its_own_is_a_child_at_once(captured: list[MemoryRun]) -> None:
    with overt.start_run("current") as current:
        hook = open_for_hook("fit", run_name="named")
        assert (hook.run.name, hook.run.spec.parent_key, hook.owned) == ("named", current.key, True)
        assert open_for_hook("fit").run is current


def test_a_hook_alone_has_a_run_of_its_own_named_after_it(captured: list[MemoryRun]) -> None:
    hook = open_for_hook("Ridge", experiment="mine")
    assert hook.owned
    assert hook.run.name == f"Ridge-{hook.run.key[:4]}"
    assert (hook.run.experiment, hook.run.spec.parent_key) == ("mine", None)


def test_a_hook_joins_the_callers_mlflow_run_and_never_ends_it(sqlite_uri: str, captured: list[MemoryRun]) -> None:
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(sqlite_uri)
    try:
        with mlflow.start_run() as theirs:
            with overt.start_run("nearer") as nearer:
                assert open_for_hook("fit").run is nearer
            first, second = open_for_hook("fit"), open_for_hook("fit")
            assert (first.run.spec.joined_run_id, first.owned) == (theirs.info.run_id, False)
            assert (second.run.spec.parent_key, second.owned) == (first.run.key, True)
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("owned", [True, False])
def test_a_hook_that_fails_ends_only_a_run_of_its_own(captured: list[MemoryRun], owned: bool) -> None:
    run = None if owned else overt.start_run()
    hook = open_for_hook("fit", run=run)
    with pytest.raises(ValueError, match="no"), hook.ending():
        raise ValueError("no")
    assert captured[0].status == ("FAILED" if owned else "RUNNING")


# -- captured runs -----------------------------------------------------------------------------------------------------


def test_captured_runs_need_no_file_and_no_process(captured: list[MemoryRun], tmp_path: Path) -> None:
    with overt.start_run("mine", params={"a": 1}) as run:
        run.log_metric("loss", 0.5)
        assert captured[0].metrics == {"loss": 0.5}  # at once
        assert run.id == captured[0].id
    assert (captured[0].status, captured[0].name) == ("FINISHED", "mine")
    assert list(tmp_path.iterdir()) == []


def test_captures_nest_and_end_with_their_block() -> None:
    with overt.testing.captured_runs() as outer:
        with overt.testing.captured_runs() as inner:
            overt.start_run("in")
        overt.start_run("out")
    assert ([run.name for run in inner], [run.name for run in outer]) == (["in"], ["out"])


def test_runs_of_threads_are_captured_too(captured: list[MemoryRun]) -> None:
    thread = threading.Thread(target=lambda: overt.start_run("in a thread").log_metric("x", 1))
    thread.start()
    thread.join()
    assert captured[0].metrics == {"x": 1.0}


def test_a_store_object_gets_its_runs_in_this_process_when_somebody_waits() -> None:
    store = MemoryStore()
    tracker = Tracker(store=store)
    ids = []
    for number in range(3):  # each wait finds the thread of the one before, perhaps still at work
        with tracker.start_run(str(number)) as run:
            run.log_metric("x", number)
        ids.append(run.id)
    assert [store.runs[run_id].metrics for run_id in ids] == [{"x": 0.0}, {"x": 1.0}, {"x": 2.0}]


# -- trouble -----------------------------------------------------------------------------------------------------------

FULL = """
import resource, overt
tracker = overt.Tracker(delivery="manual")
with tracker.start_run("mine") as run:
    run.log_metric("x", 0)
    size = (run._writer.folder / "journal.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for step in range(1, 51):
        run.log_metric("x", step)
    run.log_text("y" * 100_000, "a.txt")
    print("alive", run.metrics["x"])
"""


def test_a_full_disk_is_said_once_per_cause_and_counted_at_the_end() -> None:
    ended = subprocess.run([sys.executable, "-W", "always", "-c", FULL], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "alive 50.0\n"), ended.stderr
    said = [line for line in ended.stderr.splitlines() if "OvertWarning" in line]
    assert sum("a record of run mine could not be written" in line for line in said) == 1
    assert sum("a.txt of run mine could not be kept" in line for line in said) == 1
    assert sum("record(s) that could not be written" in line for line in said) == 1
    assert len(said) == 3


def test_a_full_disk_raises_where_that_was_asked_for() -> None:
    strict = FULL.replace('delivery="manual"', 'delivery="manual", on_error="raise"')
    ended = subprocess.run([sys.executable, "-c", strict], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "JournalError" in ended.stderr


TWO_LEFT_OPEN = """
import overt
from overt.tracker import Tracker
tracker = Tracker(delivery="manual", on_error="raise")
runs = [tracker.start_run(name) for name in ("one", "two")]
def cannot(run):
    raise RuntimeError(f"{run.name} has a model that cannot be pickled")
for run in runs:
    run.call_at_end(cannot)
"""


def test_a_run_that_cannot_be_ended_in_full_keeps_no_other_from_its_end(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", TWO_LEFT_OPEN], check=False, capture_output=True, text=True)
    assert ended.returncode == 0
    for name in ("one", "two"):
        assert f"run {name} could not be ended in full ({name} has a model" in ended.stderr
    journals = list((tmp_path / ".overt" / "runs").glob("*/journal.jsonl"))
    assert [b'"status":"FINISHED"' in journal.read_bytes() for journal in journals] == [True, True]


def test_a_folder_that_cannot_be_written_is_replaced_by_the_users_cache_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    tracker = Tracker(delivery="manual", directory=str(tmp_path / "file"))
    with pytest.warns(overt.OvertWarning, match="cannot be written, so journals go to"):
        run = tracker.start_run()
    run.finish()
    tracker.start_run().finish()
    assert (tmp_path / ".cache" / "overt" / "runs" / run.key / "journal.jsonl").exists()


# -- what cannot be started --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("name", 5),
        ("name", ""),
        ("experiment", 5),
        ("experiment", ""),
        ("experiment", "e" * 501),
        ("notes", 5),
        ("tags", 5),
        ("tags", {5: "x"}),
        ("params", [1]),
        ("params", {"": 1}),
        ("parent", 5),
        ("parent", "no key"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_started(argument: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"`{argument}`"):
        Tracker(delivery="manual").start_run(**{argument: value})
    hooks = {"run_name" if argument == "name" else argument: value}
    with pytest.raises(ConfigurationError, match=f"`{next(iter(hooks))}`"):
        open_for_hook("fit", tracker=Tracker(delivery="manual"), **hooks)
    assert not (tmp_path / ".overt").exists()


@pytest.mark.parametrize("argument", ["run", "tracker"])
def test_a_hook_names_a_run_or_tracker_that_is_none(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{argument}` must be a"):
        open_for_hook("fit", **{argument: 5})  # type: ignore[arg-type]


# -- secrets in names --------------------------------------------------------------------------------------------------


def test_no_name_and_no_path_carries_a_secret_into_the_journal(tmp_path: Path) -> None:
    secret = "ghp_" + "a1B2" * 9
    run = Tracker(delivery="manual", keep_journal=True).start_run(secret, experiment=f"e {secret}", tags={secret: "t"})
    run.log_param(f"p {secret}", 1)
    run.log_metric(secret, 1.0)
    run.log_metric(secret, 2.0, model=secret, dataset=f"{secret}#1")
    run.set_tag(f"t {secret}", "x")
    run.log_text("x", f"{secret}.txt")
    run.log_dataset([[1.0]], name=secret)
    (tmp_path / secret).write_text("x")
    run.log_artifact(tmp_path / secret)
    run.finish()
    journal = b"".join(path.read_bytes() for path in (tmp_path / ".overt" / "runs").rglob("*.jsonl"))
    assert b"[redacted]" in journal
    assert secret.encode() not in journal


# -- runs that have ended ----------------------------------------------------------------------------------------------


def test_a_sealed_run_is_forgotten_and_still_known_by_its_key_while_anybody_has_it() -> None:
    import gc
    import weakref

    run = Tracker(delivery="manual").start_run()
    with run:
        pass
    assert pickle.loads(pickle.dumps(run)) is run
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None


def test_a_record_behind_the_seal_is_sealed_again_by_wait(captured: list[MemoryRun]) -> None:
    with overt.start_run() as run:
        pass
    run.log_metric("late", 1.0)
    assert not run._sealed
    overt.wait(5)
    assert run._sealed


# -- a hostile process -------------------------------------------------------------------------------------------------


def ended(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", script], check=False, capture_output=True, text=True)


HANDLER = """
import faulthandler, os, signal, threading, time
import overt
faulthandler.dump_traceback_later(20, exit=True)
overt.configure(delivery="manual", keep_journal=True)
run = overt.start_run("r")
handled = 0
def handler(number, frame):
    global handled
    run.set_tag("preempted", "yes")
    handled += 1
signal.signal(signal.SIGUSR1, handler)
def disturb():
    while handled < 200:
        seen = handled
        os.kill(os.getpid(), signal.SIGUSR1)
        while handled == seen:
            time.sleep(0.0001)
threading.Thread(target=disturb, daemon=True).start()
recorded = 0
while handled < 200:
    run.log_metric("loss", 1.0)
    run.flush()
    recorded += 1
run.finish()
lines = open(f".overt/runs/{run.key}/journal.jsonl").read().splitlines()
assert sum('"loss"' in line for line in lines) == recorded
assert sum('"preempted"' in line for line in lines) == 200
print("alive")
"""


def test_a_signal_handler_of_the_users_own_may_record_in_the_midst_of_a_recording_call() -> None:
    done = ended(HANDLER)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


DEAF = """
import os, sys
import overt
overt.configure(delivery="manual")
{closing}
with overt.start_run("r") as run:
    run.log_metric("loss", 1.0)
    run.warn("something")
print(run.status)
"""


@pytest.mark.parametrize(
    "closing",
    [
        "sys.stderr.close()",
        "sys.stderr = None",
        "r, w = os.pipe(); os.dup2(w, 2); os.close(w); os.close(r)",
    ],
    ids=["closed", "absent", "broken"],
)
def test_a_stderr_that_nobody_can_hear_stops_nothing(closing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_QUIET", "0")
    done = ended(DEAF.format(closing=closing))
    assert done.stdout == "FINISHED\n", done.stderr


def test_a_working_directory_that_was_deleted_stops_nothing(tmp_path: Path) -> None:
    done = ended(
        f"""
import os, tempfile
gone = tempfile.mkdtemp()
os.chdir(gone)
os.rmdir(gone)
import overt
overt.configure(delivery="manual", store="sqlite:///{tmp_path}/x.db")
with overt.start_run("r") as run:
    run.log_metric("loss", 1.0)
print(run.status, os.path.exists(gone))
"""
    )
    assert done.stdout == "FINISHED False\n", done.stderr


def test_params_given_at_the_start_are_recorded_as_those_given_later(captured: list[MemoryRun]) -> None:
    nested = {"sub": {"lr": 0.1, "api_key": "x"}, "depth": 3}
    with overt.start_run(params=nested):
        pass
    with overt.start_run() as later:
        later.log_params(nested)
    assert captured[0].params == captured[1].params == {"sub.lr": "0.1", "sub.api_key": "[redacted]", "depth": "3"}


def test_a_captured_run_that_is_left_open_ends_as_its_block_does() -> None:
    try:
        raise ValueError("of somebody else")
    except ValueError:
        with overt.testing.captured_runs() as fine:
            overt.start_run()
    with suppress(KeyError), overt.testing.captured_runs() as failed:
        overt.start_run()
        raise KeyError("x")
    assert (fine[0].status, failed[0].status) == ("FINISHED", "FAILED")


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_end_line_shows_what_says_most_of_a_model_first(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("OVERT_QUIET", raising=False)
    with Tracker(store=MemoryStore(), delivery="inline").start_run("forest") as run:
        run.log_metrics({"fit_seconds": 0.5, "training_accuracy": 1.0, "cv_accuracy": 0.93})
        run.log_metrics({"cv_mean_accuracy": 0.951234, "cv_std_accuracy": 0.02, "val_loss": 0.3})
    started, ended = capsys.readouterr().err.splitlines()
    assert started.startswith("overt: run forest in experiment ")
    assert ended.startswith("overt: run forest FINISHED (")
    assert ended.endswith(" s, cv_mean_accuracy 0.9512, val_loss 0.3, cv_accuracy 0.93)")


# -- what the code is called -------------------------------------------------------------------------------------------


def test_a_script_has_the_name_that_the_command_line_gives_it_while_that_leads_there(tmp_path: Path) -> None:
    program = """
        import os, overt
        for folder in (".", "sub"):
            os.chdir(folder)
            with overt.testing.captured_runs() as runs, overt.start_run():
                print(runs[0].tags["mlflow.source.name"])
    """
    (tmp_path / "sub").mkdir()
    (tmp_path / "train.py").write_text(textwrap.dedent(program), "utf-8")
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["train.py", str(tmp_path / "train.py")]


def test_a_notebook_has_the_name_of_its_file(captured: list[MemoryRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/mina/fraud.ipynb")
    overt.start_run().finish()
    monkeypatch.setattr(sys.modules["__main__"], "__vsc_ipynb_file__", "/home/mina/churn.ipynb", raising=False)
    overt.start_run().finish()
    assert [run.tags["mlflow.source.name"] for run in captured] == ["fraud.ipynb", "churn.ipynb"]


def test_a_run_that_may_never_arrive_is_not_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVERT_QUIET", "0")
    tracker = Tracker(delivery="manual")
    tracker.start_run("fits", tags={ROWS_TAG: "each is a fit"}).finish()
    tracker.start_run("other").finish()
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["other", "other"]
