from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

import overt
from overt.errors import ConfigurationError, OvertWarning, RunNotFound
from overt.records import Metric, RunSummary
from overt.stores.jsonl import JsonlStore
from overt.stores.mlflow import query


@pytest.fixture
def recorded(sqlite_uri: str) -> str:
    """Four runs in two experiments; the ids are those of nobody's choosing."""
    overt.configure(store=sqlite_uri)
    for name, experiment, score in (("one", "a", 0.5), ("two", "a", 0.9), ("three", "b", 0.7), ("odd", "a", math.nan)):
        with overt.start_run(name, experiment=experiment, params={"depth": len(name)}, notes=f"about {name}") as run:
            run.log_metric("f1_score", score)
            run.log_metrics({"mAP@0.5": score}, step=0)
            for epoch in range(3):
                run.log_metric("train_loss", 1 / (epoch + 1), epoch=epoch)
    return sqlite_uri


def test_runs_are_a_frame_of_what_this_process_recorded(recorded: str) -> None:
    frame = overt.runs()
    assert list(frame["run_name"]) == ["odd", "three", "two", "one"]
    assert frame["param_depth"].tolist() == [3, 5, 3, 3]
    assert frame["notes"].tolist() == ["about odd", "about three", "about two", "about one"]
    assert frame["metric_mAP@0.5"].tolist()[1:] == [0.7, 0.9, 0.5]
    assert not [column for column in frame if column.startswith(("tag_mlflow", "tag_overt"))]


def test_a_filter_an_order_and_a_limit_choose_among_them(recorded: str) -> None:
    frame = overt.runs(
        "a", where="metrics.`mAP@0.5` > 0.1 and params.depth = '3'", order_by="metrics.f1_score DESC", store=recorded
    )
    assert list(frame["run_name"]) == ["two", "one"]
    assert list(overt.runs("a", order_by=["metrics.f1_score"], limit=2)["run_name"]) == ["one", "two"]
    assert list(overt.runs(where="run_name = 'three'")["experiment"]) == ["b"]


def test_mlflow_does_the_searching_page_by_page(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    as_it_was = query._summary

    def counted(*of: object) -> RunSummary:
        made.append(of)
        return as_it_was(*of)  # type: ignore[arg-type]

    overt.wait()
    monkeypatch.setattr(query, "PAGE_RUNS", 2)
    monkeypatch.setattr(query, "_summary", counted)
    assert list(overt.runs(order_by="metrics.f1_score")["run_name"]) == ["one", "three", "two", "odd"]
    made.clear()
    assert overt.best_run("f1_score").name == "two"
    assert len(made) == 1
    made.clear()
    assert len(overt.runs(where="metrics.f1_score > 0.6", limit=3)) == 2
    assert len(made) == 2


def test_a_filter_on_a_name_that_no_run_has_gives_nothing_and_one_warning(recorded: str) -> None:
    with pytest.warns(OvertWarning, match=r"none of 4 runs has the metric 'f1_scroe': did you mean f1_score\?") as said:
        frame = overt.runs(where="metrics.f1_scroe > 0.9")
    (ours,) = [warning for warning in said if warning.category is OvertWarning]
    assert ours.filename == __file__
    assert list(frame) == ["run_id", "run_name", "experiment", "status", "start_time", "end_time", "notes"]
    with pytest.warns(OvertWarning, match="metric 'recal'"):
        assert len(overt.runs(order_by="metrics.recal DESC")) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert overt.runs(where="metrics.f1_score > 5").empty


def test_an_experiment_that_is_not_there_is_an_error_that_names_those_that_are(recorded: str) -> None:
    for ask in (lambda: overt.runs("c"), lambda: overt.best_run("f1_score", experiment="c")):
        with pytest.raises(RunNotFound, match=r"no experiment 'c' .* there is Default, a, b"):
            ask()


def test_the_best_run_is_a_listed_run(recorded: str) -> None:
    assert overt.best_run("f1_score").name == "two"
    assert overt.best_run("mAP@0.5", experiment="b").params["depth"] == "5"
    assert overt.best_run("f1_score", mode="min").name == "one"
    assert overt.best_run("train_loss", where="params.depth = '5'").name == "three"
    with pytest.raises(RunNotFound, match="did you mean f1_score"):
        overt.best_run("f1_scor")
    with pytest.raises(RunNotFound, match="none of 4 runs has the metric 'depth'"):
        overt.best_run("depth")


def test_a_run_that_is_printed_says_which_it_is_and_not_all_that_it_holds() -> None:
    run = RunSummary("1", "forest", "e", "FINISHED", 1, params={"a": "1", "b": "2"}, metrics={"loss": 0.5})
    assert repr(run) == "RunSummary(id='1', name='forest', experiment='e', status='FINISHED', n_metrics=1, n_params=2)"


def test_a_listed_run_is_shown_in_a_notebook_with_nothing_of_it_able_to_act() -> None:
    run = RunSummary("1", "<script>x</script>", "e", "FINISHED", 1, params={"<b>": "&"}, metrics={"loss": 0.5})
    shown = run._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    for text in ("&lt;script&gt;x&lt;/script&gt;", "&lt;b&gt;", "&amp;", "metric loss", "0.5"):
        assert text in shown


def test_a_history_has_every_point_of_every_run_asked_for(recorded: str) -> None:
    frame = overt.history("two")
    assert list(frame) == ["run_id", "run_name", "metric", "step", "time", "value"]
    assert set(frame["metric"]) >= {"f1_score", "mAP@0.5", "train_loss"}
    loss = overt.history([overt.best_run("f1_score"), "three"], "train_loss")
    assert loss["run_name"].tolist() == ["two"] * 3 + ["three"] * 3
    assert loss["step"].tolist() == [0, 1, 2] * 2
    assert loss["value"].tolist() == [1, 0.5, 1 / 3] * 2
    assert str(loss["time"].dt.tz) == "UTC"
    with pytest.raises(RunNotFound, match=r"none of these runs has the metric 'lss': there is .*train_loss"):
        overt.history("two", "lss")
    with pytest.raises(RunNotFound, match="no run answers to 'four'"):
        overt.history("four")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: overt.runs(where=5), "`where` must be a text"),  # type: ignore[arg-type]
        (lambda: overt.runs(order_by=5), "`order_by` must be texts"),  # type: ignore[arg-type]
        (lambda: overt.runs(limit="5"), "`limit` must be a whole number"),  # type: ignore[arg-type]
        (lambda: overt.runs(5), "`experiment` must be a name"),  # type: ignore[arg-type]
        (lambda: overt.best_run(5), "`metric` must be a name"),  # type: ignore[arg-type]
        (lambda: overt.history(5), "a run must be given as"),  # type: ignore[arg-type]
        (lambda: overt.history(["two", 5]), "a run must be given as"),  # type: ignore[list-item]
        (lambda: overt.history("two", ["f1_score"]), "`names` must be texts"),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_the_wrong_kind_is_an_error_that_names_it(
    tmp_path: Path, ask: Callable[[], object], says: str
) -> None:
    overt.configure(store=f"jsonl:{tmp_path / 'shelf'}", delivery="inline")
    overt.start_run("two").finish()
    with pytest.raises(ConfigurationError, match=says):
        ask()


def test_a_store_that_gives_all_series_at_once_is_read_once_for_each_run(tmp_path: Path) -> None:
    read = []

    class Watched(JsonlStore):
        def iter_all_points(self, run_id: str) -> Iterator[Metric]:
            read.append(run_id)
            return super().iter_all_points(run_id)

        def iter_points(self, run_id: str, name: str) -> Iterator[Metric]:
            raise AssertionError(f"{name} was asked for by itself")

    overt.configure(store=f"jsonl:{tmp_path / 'shelf'}")
    for name in ("one", "two"):
        with overt.start_run(name) as run:
            for step in (1, 0):
                run.log_metrics({"b": 10 + step, "a": step}, step=step)
    overt.wait()
    store = Watched(tmp_path / "shelf")
    frame = overt.history(["one", "two"], store=store)
    assert [read.count(run_id) for run_id in frame["run_id"].unique()] == [1, 1]
    series = {key: list(points["value"]) for key, points in frame.groupby(["run_name", "metric"])}
    assert series == {("one", "a"): [0, 1], ("one", "b"): [10, 11], ("two", "a"): [0, 1], ("two", "b"): [10, 11]}
    assert overt.history("two", "b", store=store)["value"].tolist() == [10, 11]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "of the document's"])
def test_histories_of_many_runs_read_the_listing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_ours: bool
) -> None:
    """Sixty seconds for a thousand of the document's runs, when each was looked up by reading all."""
    place = tmp_path / ("runs" if kind == "jsonl" else "runs.csv")
    if is_ours:
        overt.configure(store=f"{kind}:{place}")
        for number in range(5):
            with overt.start_run() as run:
                run.log_metric("loss", number)
        assert overt.wait()
    elif kind == "jsonl":
        place.mkdir()
        line = '{{"run_id": "{}", "experiment": "e", "run_name": "r", "timestamp": "2026-01-01", '
        line += '"params": {{}}, "metrics": {{"loss": {}}}, "tags": {{}}, "artifacts": []}}\n'
        (place / "runs.jsonl").write_text("".join(line.format(f"run{number}", number) for number in range(5)))
    else:
        rows = (f"2026-01-0{number + 1},e,,{number}\n" for number in range(5))
        place.write_text("timestamp,experiment,notes,metric_loss\n" + "".join(rows))
    frame = overt.runs(where="metrics.loss > 0", store=f"{kind}:{place}")
    read: list[str] = []
    as_it_was = Path.read_bytes

    def counted(path: Path) -> bytes:
        read.append(path.name)
        return as_it_was(path)

    folders: list[object] = []
    listdir = os.listdir
    monkeypatch.setattr(Path, "read_bytes", counted)
    monkeypatch.setattr(os, "listdir", lambda folder: folders.append(folder) or listdir(folder))
    found = overt.history(frame, "loss", store=f"{kind}:{place}")
    assert sorted(found["value"]) == [1.0, 2.0, 3.0, 4.0]
    assert list(found["run_id"]) == list(frame["run_id"])
    for name in ("runs.jsonl", "runs.csv"):
        assert read.count(name) <= 1, read
    assert [str(folder).endswith("records") for folder in folders].count(True) == 1, folders


def test_a_run_object_and_a_real_training_are_found_again(sqlite_uri: str) -> None:
    X, X_test, y, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    model = overt.TrackedEstimator(
        DecisionTreeClassifier(max_depth=2, random_state=0), tracker=overt.Tracker(store=sqlite_uri)
    )
    model.fit(X, y)
    report = model.evaluate(X_test, y_test)
    best = overt.best_run("f1_score", where="params.model_type = 'DecisionTreeClassifier'", store=sqlite_uri)
    assert best.metrics["f1_score"] == report["f1_score"]
    points = overt.history(model.run_, "f1_score", store=sqlite_uri)
    assert points["value"].tolist() == [report["f1_score"]]
    context = overt.runs(where="datasets.context = 'eval'", store=sqlite_uri)
    assert context["param_max_depth"].tolist() == [2]
    assert context["param_random_state"].dtype == "int64"


def test_nothing_but_frames_needs_pandas(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["pandas"] = None
import overt
overt.configure(store="jsonl:shelf")
for depth in (3, 5):
    with overt.start_run(f"of {depth}", params={"depth": depth}) as run:
        run.log_metric("f1_score", depth / 10)
print(overt.best_run("f1_score").name)
print("depth" in str(overt.compare("of 3", "of 5")))
try:
    overt.runs()
except overt.OvertError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == [
        "of 5",
        "True",
        "pandas is needed here and not installed: pip install 'overt[pandas]'",
    ], said.stderr


def test_times_are_those_that_were_recorded(recorded: str) -> None:
    frame = overt.runs("b")
    run = overt.best_run("f1_score", experiment="b")
    assert frame["start_time"][0] == pandas.Timestamp(run.started_ms, unit="ms", tz="UTC")
    assert frame["end_time"][0] == pandas.Timestamp(run.ended_ms, unit="ms", tz="UTC")
