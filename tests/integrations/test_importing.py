"""Plain files carried into MLflow: everything arrives, once, with its times, or nothing does."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.tree import DecisionTreeClassifier
from tests.unit.cli.conftest import Overt, Said

import overt
from overt.errors import ConfigurationError, StoreUnavailable
from overt.importing import import_runs
from overt.query.finding import open_configured, open_query
from overt.stores.csv import CsvStore
from overt.stores.jsonl import JsonlStore

pytestmark = pytest.mark.timeout(120)
X, y = load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what has been recorded once is kept for the tests that follow."""
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(params=["jsonl:experiments", "csv:experiments.csv"])
def recorded(request: pytest.FixtureRequest, shelf: Path) -> JsonlStore:
    """A store of the test's own with a fit, a run nested in another, and one that failed."""
    uri: str = request.param
    kept = shelf / uri.partition(":")[0]
    overt.configure(store=uri, experiment="wine", delivery="inline")
    if not kept.exists():
        _record()
        shutil.copytree(Path.cwd(), kept, ignore=lambda folder, names: {".overt", ".cache"})
    shutil.copytree(kept, Path.cwd(), dirs_exist_ok=True)
    return CsvStore(Path("experiments.csv")) if uri.startswith("csv") else JsonlStore(Path("experiments"))


def _record() -> None:
    model = overt.TrackedEstimator(DecisionTreeClassifier(random_state=0), cv=3, run_name="tree").fit(X[::2], y[::2])
    model.evaluate(X[1::2], y[1::2])
    with overt.start_run("parent"), overt.start_run("child") as child:
        for step in range(5):
            child.log_metric("loss", 1 / (step + 1))
    overt.start_run("failed").finish("FAILED")
    assert overt.wait()


def test_runs_arrive_whole_with_their_times_and_models(recorded: JsonlStore, sqlite_uri: str) -> None:
    import mlflow

    imported = {done.run.name: done for done in import_runs(recorded.path, store=sqlite_uri)}
    assert not any(done.problem for done in imported.values())
    there, here = open_query(sqlite_uri), recorded
    for run in here.iter_runs():
        before, after = here.read_run(run.id), there.read_run(imported[run.name].run_id)
        assert after.run.key == run.key
        for field in ("name", "experiment", "status", "started_ms", "ended_ms", "metrics", "params"):
            assert getattr(after.run, field) == getattr(before.run, field), field
        assert after.points == before.points
        assert {(d.name, d.digest, d.context) for d in after.datasets} == {
            (d.name, d.digest, d.context) for d in before.datasets
        }
        files = {file.path for file in before.files if not file.path.startswith("model/")}
        assert files <= {file.path for file in after.files}
        for name in run.metrics:
            points = sorted((p.step, p.time_ms, p.value) for p in here.iter_points(run.id, name))
            assert points == sorted((p.step, p.time_ms, p.value) for p in there.iter_points(after.run.id, name))
    parent, child = imported["parent"].run_id, there.read_run(imported["child"].run_id)
    assert child.run.tags["mlflow.parentRunId"] == parent
    tree = there.read_run(imported["tree"].run_id)
    assert not [file.path for file in tree.files if file.path.startswith("model/")], "the model's files came twice"
    (model,) = tree.models
    assert model.status == "READY"
    mlflow.set_tracking_uri(sqlite_uri)
    try:
        loaded = mlflow.sklearn.load_model(model.uri)
    finally:
        mlflow.set_tracking_uri(None)
    bare = DecisionTreeClassifier(random_state=0).fit(X[::2], y[::2])
    assert np.array_equal(loaded.predict(X), bare.predict(X))


def test_a_second_import_doubles_nothing(recorded: JsonlStore, sqlite_uri: str) -> None:
    first = [done.run_id for done in import_runs(recorded.path, store=sqlite_uri)]
    there = open_query(sqlite_uri)
    before = [there.read_run(run_id) for run_id in first]
    assert [done.run_id for done in import_runs(recorded.path, store=sqlite_uri)] == first
    assert [there.read_run(run_id) for run_id in first] == before


def test_a_line_that_is_no_run_is_named_and_nothing_is_carried_over(recorded: JsonlStore, sqlite_uri: str) -> None:
    with open(recorded.lines, "ab") as file:
        file.write(recorded.lines.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match=r"line 5 of .*runs\.jsonl is no run: .*nothing has been imported"):
        list(import_runs(recorded.path, store=sqlite_uri))
    assert list(open_query(sqlite_uri).iter_runs()) == []


def test_a_torn_table_is_named_and_nothing_is_carried_over(sqlite_uri: str) -> None:
    table = 'timestamp,experiment,notes\n2026-02-14T09:30:00,rf,ok\n2026-02-14T09:30:00,rf,"torn'
    Path("runs.csv").write_text(table)
    with pytest.raises(StoreUnavailable, match=r"line 3 of .*runs\.csv cannot be read"):
        list(import_runs(Path("runs.csv"), store=sqlite_uri))
    assert list(open_query(sqlite_uri).iter_runs()) == []
    assert Path("runs.csv").read_text() == table


def test_from_one_light_store_to_the_other(recorded: JsonlStore) -> None:
    own, other = (
        ("csv:experiments.csv", "jsonl:other")
        if isinstance(recorded, CsvStore)
        else ("jsonl:experiments", "csv:other.csv")
    )
    assert len(list(import_runs(recorded.path, store=other))) == 4
    carried = open_configured(other)
    assert {run.id for run in carried.iter_runs()} == {run.id for run in recorded.iter_runs()}
    with pytest.raises(ConfigurationError, match="is the store itself"):
        list(import_runs(recorded.path, store=own))


def test_the_store_itself_is_known_by_whatever_path(recorded: JsonlStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(recorded.folder)
    own = f"csv:{recorded.path}" if isinstance(recorded, CsvStore) else f"jsonl:{recorded.folder}"
    for path in (recorded.folder, tmp_path / "link"):
        with pytest.raises(ConfigurationError, match="is the store itself"):
            list(import_runs(path, store=own))


def test_runs_that_go_on_are_left_out_with_those_nested_in_them_until_they_end(sqlite_uri: str) -> None:
    overt.configure(store="jsonl:experiments")
    with overt.start_run("parent") as parent:
        with overt.start_run("child") as child:
            child.log_metric("loss", 1.0)
        assert overt.wait()
        outcomes = {done.run.name: done for done in import_runs(Path("experiments"), store=sqlite_uri)}
        assert {name for name, done in outcomes.items() if not done.run_id} == {"parent", "child"}
        assert "left out" in outcomes["parent"].problem
        assert list(open_query(sqlite_uri).iter_runs()) == []
    assert overt.wait()
    arrived = {done.run.name: done.run_id for done in import_runs(Path("experiments"), store=sqlite_uri)}
    there = open_query(sqlite_uri)
    assert there.read_run(arrived["child"]).run.tags["mlflow.parentRunId"] == arrived["parent"]
    assert there.read_run(arrived["parent"]).run.key == parent.key


def test_a_parent_that_started_in_the_same_millisecond_arrives_first(sqlite_uri: str) -> None:
    parent, child = "a" * 32, "b" * 32
    line = {"experiment": "e", "params": {}, "metrics": {}, "started_ms": 1, "ended_ms": 2}
    lines = [
        line | {"run_id": child, "run_name": "child", "tags": {"mlflow.parentRunId": parent}},
        line | {"run_id": parent, "run_name": "parent", "tags": {"mlflow.parentRunId": child}},
    ]
    for these in (lines, [lines[0], line | {"run_id": parent, "run_name": "parent", "tags": {}}]):  # first a circle
        Path("runs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in these))
        arrived = {done.run.name: done.run_id for done in import_runs(Path("runs.jsonl"), store="jsonl:other")}
        assert set(arrived) == {"parent", "child"}
    arrived = {done.run.name: done.run_id for done in import_runs(Path("runs.jsonl"), store=sqlite_uri)}
    assert open_query(sqlite_uri).read_run(arrived["child"]).run.tags["mlflow.parentRunId"] == arrived["parent"]


@pytest.mark.parametrize(
    "fields", [{"run_id": "../../x"}, {"run_id": "x" * 300}, {"run_name": "\ud800"}, {"started_ms": 10**18}]
)
def test_a_run_that_cannot_be_carried_over_stops_the_import_before_it_begins(
    fields: dict[str, object], sqlite_uri: str
) -> None:
    line = {"experiment": "e", "run_name": "a", "params": {}, "metrics": {}, "started_ms": 1}
    lines = [line | {"run_id": "fine"}, line | {"run_id": "bad"} | fields]
    Path("runs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(ConfigurationError, match="nothing has been imported"):
        list(import_runs(Path("runs.jsonl"), store=sqlite_uri))
    assert list(open_query(sqlite_uri).iter_runs()) == []


def test_that_a_run_was_resumed_comes_along(sqlite_uri: str) -> None:
    overt.configure(store="jsonl:experiments")
    overt.start_run("twice").finish()
    overt.start_run(resume="twice").finish()
    assert overt.wait()
    (done,) = import_runs(Path("experiments"), store=sqlite_uri)
    assert len(json.loads(open_query(sqlite_uri).read_run(done.run_id).run.tags["overt.attempts"])) == 1


def test_a_damaged_file_of_a_model_is_said_and_the_rest_arrives(recorded: JsonlStore, sqlite_uri: str) -> None:
    (run,) = [run for run in recorded.iter_runs() if run.name == "tree"]
    path = recorded.folder / "artifacts" / run.id / "model" / "model.pkl"
    path.write_bytes(path.read_bytes()[:-1])
    problems = [done.problem for done in import_runs(recorded.path, store=sqlite_uri) if done.problem]
    assert len(problems) == 1
    assert "model" in problems[0]
    assert len(list(open_query(sqlite_uri).iter_runs())) == 4


@pytest.mark.parametrize("name", ["absent", "absent.jsonl", "empty", "note.txt"])
def test_what_holds_no_runs_says_what_does(name: str, sqlite_uri: str) -> None:
    Path("empty").mkdir()
    Path("note.txt").touch()
    with pytest.raises(ConfigurationError, match=r"FILE must be a runs\.jsonl"):
        list(import_runs(Path(name), store=sqlite_uri))


def test_the_command_says_what_it_carried_over(sqlite_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {
            "run_id": "abc",
            "experiment": "e",
            "run_name": "a",
            "timestamp": "2026-02-14T09:30:00",
            "params": {},
            "metrics": {},
        },
        {
            "run_id": "abd",
            "experiment": "e",
            "run_name": "b",
            "timestamp": "2026-02-15T09:30:00",
            "params": {},
            "metrics": {},
        },
    ]
    Path("runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def command(*arguments: str) -> Said:
        return Overt(capsys)("import", *arguments, "--store", sqlite_uri)

    done = command("runs.jsonl")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"2 runs carried into {sqlite_uri}."
    assert command("runs.jsonl").out.splitlines()[-1] == f"0 runs carried into {sqlite_uri}; 2 were there already."
    as_json = json.loads(command("runs.jsonl", "--json").out)
    assert [run["name"] for run in as_json["runs"]] == ["a", "b"]
    wrong = command("nothing.jsonl")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("overt: FILE must be")
    assert len(wrong.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["artifacts", "records", "open"])
def test_a_folder_behind_a_link_is_not_imported(name: str, sqlite_uri: str, tmp_path: Path) -> None:
    Path("experiments").mkdir()
    Path("experiments/runs.jsonl").touch()
    Path("experiments", name).symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"{name} is a link, and what lies behind it may be nobody's run"):
        list(import_runs(Path("experiments"), store=sqlite_uri))


DOCUMENTS = {"run_id": "abc", "experiment": "e", "run_name": "a", "timestamp": "2026-02-14T09:30:00", "params": {}}


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Moves this process to another time zone."""

    def moved(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield moved
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.csv"])
@pytest.mark.parametrize("kind", ["jsonl", "mlflow"])
def test_a_file_that_is_read_in_another_zone_doubles_nothing(
    name: str, kind: str, sqlite_uri: str, in_zone: Callable[[str], None]
) -> None:
    store = sqlite_uri if kind == "mlflow" else "jsonl:other"
    Path("runs.jsonl").write_text(json.dumps(DOCUMENTS | {"metrics": {"loss": 0.5}}) + "\n")
    Path("runs.csv").write_text("timestamp,experiment,metric_loss\n2026-02-14T09:30:00,e,0.5\n")
    outcomes = []
    for zone in ("UTC", "Asia/Seoul"):
        in_zone(zone)
        outcomes += import_runs(Path(name), store=store)
    there = open_query(store)
    assert [(done.run_id, done.was_there) for done in outcomes] == [
        (outcomes[0].run_id, False),
        (outcomes[0].run_id, True),
    ]
    assert len(list(there.iter_runs())) == 1
    assert len(list(there.iter_points(outcomes[0].run_id, "loss"))) == 1


def test_a_second_import_into_plain_files_adds_no_line() -> None:
    Path("runs.csv").write_text("timestamp,experiment,metric_loss\n2026-02-14T09:30:00,e,0.5\n")
    contents = []
    for _ in range(2):
        list(import_runs(Path("runs.csv"), store="jsonl:other"))
        contents.append({path: path.read_bytes() for path in Path("other").rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_a_run_whose_line_is_lost_is_imported_from_its_records(recorded: JsonlStore, sqlite_uri: str) -> None:
    recorded.lines.write_bytes(b"".join(recorded.lines.read_bytes().splitlines(keepends=True)[:-1]))
    assert len([done for done in import_runs(recorded.path, store=sqlite_uri) if done.run_id]) == 4


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-20]], r"1 line\(s\) of .* cannot be read"),
        (lambda lines: [lines[0], b"no record\n", *lines[2:]], r"1 line\(s\) of .* cannot be read"),
        (lambda lines: [b"no record\n", *lines[1:]], "does not begin as the records of a run do"),
    ],
    ids=["cut off", "changed", "changed at its start"],
)
def test_records_that_cannot_be_read_are_said(damage: Callable[[list[bytes]], list[bytes]], said: str) -> None:
    overt.configure(store="jsonl:experiments", delivery="inline")
    with overt.start_run("damaged") as run:
        run.log_metric("loss", 0.5)
        run.log_param("depth", 3)
    assert overt.wait()
    records = Path("experiments/records", f"{run.key}.jsonl")
    records.write_bytes(b"".join(damage(records.read_bytes().splitlines(keepends=True))))
    with pytest.warns(overt.OvertWarning, match=said) as told:
        (imported,) = import_runs(Path("experiments"), store="jsonl:elsewhere")
    assert [warning.filename for warning in told] == [__file__]
    assert JsonlStore(Path("elsewhere")).read_run(imported.run_id).run.params == {"depth": "3"}


def test_a_number_that_was_cut_off_is_not_imported(sqlite_uri: str) -> None:
    Path("runs.csv").write_text("timestamp,experiment,metric_loss\n2026-02-14T09:30:00,e,9.8")
    with pytest.raises(StoreUnavailable, match=r"line 2 of .* its last cell may have been cut off"):
        list(import_runs(Path("runs.csv"), store=sqlite_uri))


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.csv"])
def test_a_file_that_cannot_be_read_is_named(name: str, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).write_text("x")

    def refuses(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(ConfigurationError, match=rf"{name} cannot be read \(Permission denied\): make it readable"):
        list(import_runs(Path(name), store=sqlite_uri))


def test_a_place_that_cannot_be_written_to_is_named() -> None:
    Path("runs.jsonl").write_text(json.dumps(DOCUMENTS | {"metrics": {}}) + "\n")
    Path("file").touch()
    with pytest.raises(ConfigurationError, match=r"must be a place that can be written to, and .*file is not"):
        list(import_runs(Path("runs.jsonl"), store="jsonl:file/other"))
