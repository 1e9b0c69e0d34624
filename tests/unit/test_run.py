from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import threading
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import overt
from overt import clock
from overt.errors import ConfigurationError, OvertError, RecordError
from overt.models.files import ModelFiles
from overt.records import Attempt
from overt.run import Run
from overt.stores.memory import MemoryRun


@pytest.fixture
def captured() -> Any:
    with overt.testing.captured_runs() as runs:
        yield runs


@pytest.fixture
def run(captured: list[MemoryRun]) -> Run:
    return overt.start_run("mine")


@pytest.fixture
def stored(run: Run, captured: list[MemoryRun]) -> MemoryRun:
    return captured[0]


# -- metrics -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(-2, 4), st.integers(-3, 3)), max_size=30))
def test_no_two_points_of_a_name_share_step_and_time_whatever_the_clock_does(
    calls: list[tuple[str, int | None, int]],
) -> None:
    now = 1_000_000
    with overt.testing.captured_runs() as runs, pytest.MonkeyPatch.context() as patch:
        run = overt.start_run()
        for name, step, tick in calls:
            now += tick
            patch.setattr(clock, "time_ns", lambda now=now: now * clock.NS_PER_MS)
            run.log_metric(name, 0.5, step=step)
        history = runs[0].history
    assert len(history) == len(calls)
    for name in "ab":
        points = [(point.step, point.time_ms) for point in history if point.name == name]
        assert len(set(points)) == len(points)
        for step in {step for step, _ in points}:
            times = [time_ms for at, time_ms in points if at == step]
            assert times == sorted(times)
            assert len(set(times)) == len(times)


def test_a_step_left_out_is_the_names_next(run: Run, stored: MemoryRun) -> None:
    for name, step in (("a", None), ("a", None), ("b", None), ("a", 10), ("a", None), ("a", 3), ("a", None)):
        run.log_metric(name, 1.0, step=step)
    assert [point.step for point in stored.history if point.name == "a"] == [0, 1, 10, 11, 3, 12]
    assert [point.step for point in stored.history if point.name == "b"] == [0]


def test_an_epoch_is_the_step_of_a_series_of_epochs(run: Run, stored: MemoryRun) -> None:
    run.log_metric("val_loss", 1.0, epoch=7)
    run.log_metrics({"val_loss": 2.0, "val_acc": 3.0}, epoch=8)
    assert [(point.name, point.step) for point in stored.history] == [("val_loss", 7), ("val_loss", 8), ("val_acc", 8)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (True, 1.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (np.array(2.0), 2.0), (np.array([4.0]), None)],
)
def test_whatever_float_takes_is_a_value(run: Run, stored: MemoryRun, value: Any, expected: float | None) -> None:
    if expected is None:
        pytest.skip("numpy itself is changing its mind about arrays of one element")
    run.log_metric("x", value)
    assert stored.metrics == run.metrics == {"x": expected}


def spread(values: list[float], *, scale: float = 1.0) -> float:
    return scale * (max(values) - min(values))


def test_a_score_is_computed_recorded_and_returned_under_the_name_of_its_function(run: Run, stored: MemoryRun) -> None:
    assert run.score(spread, [1.0, 3.0]) == 2.0
    assert run.score(functools.partial(spread, scale=2.0), [1.0, 4.0]) == 6.0
    assert run.score(lambda values: values[0] + 2.0, [1], name="total") == 3.0
    assert run.score(spread, [0.0, 1.0], scale=5.0, name="wide") == 5.0
    points = [(point.name, point.step, point.value) for point in stored.history]
    assert points == [("spread", 0, 2.0), ("spread", 1, 6.0), ("total", 0, 3.0), ("wide", 0, 5.0)]


def test_a_score_that_is_none_is_said_at_once_and_not_recorded(run: Run, stored: MemoryRun) -> None:
    with pytest.raises(RecordError, match="no name of its own"):
        run.score(lambda: 1.0)
    with pytest.raises(RecordError, match="'sorted' must be one number"):
        run.score(sorted, [2, 1])
    with pytest.raises(ZeroDivisionError):
        run.score(lambda: 1 / 0, name="own")
    assert stored.history == []


@pytest.mark.parametrize("name", ["", 5])
def test_the_name_of_a_score_is_checked_before_it_is_computed(run: Run, name: Any) -> None:
    with pytest.raises(RecordError, match="score: the name must be"):
        run.score(lambda: pytest.fail("computed"), name=name)


def test_a_scorer_has_the_name_of_its_function(run: Run, stored: MemoryRun) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    model = pytest.importorskip("sklearn.dummy").DummyClassifier().fit([[0], [1]], [1, 1])
    run.score(sklearn_metrics.get_scorer("f1"), model, [[0]], [1])
    run.score(sklearn_metrics.get_scorer("neg_mean_squared_error"), model, [[0]], [1])
    assert [point.name for point in stored.history] == ["f1_score", "neg_mean_squared_error"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_recorded_as_they_are(run: Run, stored: MemoryRun, value: float) -> None:
    run.log_metric("x", value)
    assert repr(stored.metrics["x"]) == repr(run.metrics["x"]) == repr(value)


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1], {}, 1j, object(), np.zeros(3)])
def test_a_value_that_is_no_number_is_a_record_error(run: Run, stored: MemoryRun, value: Any) -> None:
    with pytest.raises(RecordError, match="'loss' must be"):
        run.log_metric("loss", value)
    assert stored.history == []
    assert run.metrics == {}


@pytest.mark.parametrize("step", [0.5, "1", math.nan, math.inf, 2**63, -(2**63), 2**70, [1], None.__class__])
def test_a_step_that_is_none_is_a_record_error(run: Run, stored: MemoryRun, step: Any) -> None:
    with pytest.raises(RecordError, match="step of 'x'"):
        run.log_metric("x", 1.0, step=step)
    assert stored.history == []
    run.log_metric("x", 2.0)
    assert stored.metrics == {"x": 2.0}


@pytest.mark.parametrize("step", [3.0, np.int32(3), np.float64(3.0)])
def test_a_whole_number_of_any_type_is_a_step(run: Run, stored: MemoryRun, step: Any) -> None:
    run.log_metric("x", 1.0, step=step)
    assert [point.step for point in stored.history] == [3]


@pytest.mark.parametrize("name", ["", None, 5, b"x", ["x"]])
def test_a_name_that_is_none_is_a_record_error(run: Run, name: Any) -> None:
    for call in (run.log_metric, run.log_param, run.set_tag):
        with pytest.raises(RecordError, match="name must be a text"):
            call(name, 1)


def test_a_name_with_half_a_surrogate_is_one_series_and_arrives(run: Run, stored: MemoryRun) -> None:
    for value in (1.0, 2.0):
        run.log_metric("loss\ud800", value)
    run.log_param("\udfff", "\ud800")
    run.set_tag("\udfff", "\ud800")
    assert [(point.name, point.step) for point in stored.history] == [("loss?", 0), ("loss?", 1)]
    assert run.metrics == {"loss?": 2.0}
    assert (stored.params, stored.tags["?"]) == ({"?": "?"}, "?")


@pytest.mark.parametrize("bad", [{"b": "0.5"}, {"b": None}, {3: 0.5}, {"b": [1.0, 2.0]}])
def test_metrics_of_which_one_is_refused_are_not_recorded_by_half(
    run: Run, stored: MemoryRun, bad: dict[Any, Any]
) -> None:
    with pytest.raises(overt.errors.RecordError, match=r"^log_metric: "):
        run.log_metrics({"a": 1.0, **bad, "c": 2})
    run.log_metrics({"d": 1.0, "e": 2}, step=3)
    assert [(point.name, point.step) for point in stored.history] == [("d", 3), ("e", 3)]
    assert run.metrics == {"d": 1.0, "e": 2.0}


def test_a_score_of_a_model_that_was_not_logged_is_recorded_and_said_once(run: Run, stored: MemoryRun) -> None:
    text = r"^model='nosuch' names no model that run \S+ logged before its scores, .*; there is none\. log_model comes"
    with pytest.warns(overt.OvertWarning, match=text) as told:
        run.log_metrics({"f1": 0.5, "recall": 0.4}, model="nosuch", dataset="mine#1")
    assert len(told) == 1
    assert [point.model for point in stored.history] == ["nosuch", "nosuch"]
    run.log_model(ModelFiles("mine", {"a.bin": b"a"}, {}, {}), name="small")
    run.log_metric("f1", 0.6, model="small")
    with pytest.warns(overt.OvertWarning, match="model='smal' names no model .*; there is 'small'"):
        run.log_metric("f1", 0.6, model="smal")


def test_what_mlflow_takes_for_no_registered_model_is_refused_at_once(run: Run, stored: MemoryRun) -> None:
    with pytest.raises(overt.errors.ConfigurationError, match="`register_as` must be a name of up to 250 characters"):
        run.log_model(ModelFiles("mine", {"a.bin": b"a"}, {}, {}), register_as="fraud\ndetector")
    assert stored.models == {}


def test_where_there_are_no_registered_models_register_as_is_said_to_do_nothing(tmp_path: Path) -> None:
    overt.configure(store=f"jsonl:{tmp_path / 'experiments'}", delivery="manual")
    with overt.start_run() as run, pytest.warns(overt.OvertWarning, match="^register_as='fraud' registers nothing: "):
        run.log_model(ModelFiles("mine", {"a.bin": b"a"}, {}, {}), register_as="fraud")


def test_names_of_models_and_datasets_survive_half_surrogates(run: Run, stored: MemoryRun) -> None:
    run.log_metric("f1", 0.5, model="m\ud800", dataset="d\ud800#1")
    assert (stored.history[0].model, stored.history[0].dataset) == ("m?", "d?#1")


@pytest.mark.parametrize("dataset", ["holdout", "holdout#", "#1", 3])
def test_a_score_names_its_data_with_a_digest(run: Run, stored: MemoryRun, dataset: Any) -> None:
    with pytest.raises(RecordError, match="log_metric"):
        run.log_metric("profit", 1.0, dataset=dataset)
    assert stored.history == []


def test_many_threads_lose_and_double_nothing(run: Run, stored: MemoryRun) -> None:
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(250):
            run.log_metric("x", 0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(point.step for point in stored.history) == list(range(2000))


def test_a_long_series_is_captured_in_a_moment(run: Run, stored: MemoryRun) -> None:
    began = clock.now_ms()
    for _ in range(20_000):
        run.log_metric("x", 0.5)
    assert len(stored.history) == 20_000
    assert clock.now_ms() - began < 15_000


# -- params and tags ---------------------------------------------------------------------------------------------------


@dataclass
class Config:
    lr: float = 0.1
    layers: tuple[int, ...] = (1, 2)


def test_params_of_any_kind_become_text(run: Run, stored: MemoryRun) -> None:
    run.log_params({"a": 1, "b": {"c": None, "d": "text"}})
    run.log_params(Config())
    run.log_params(Namespace(seed=7))
    expected = {"a": "1", "b.c": "None", "b.d": "text", "lr": "0.1", "layers": "(1, 2)", "seed": "7"}
    assert stored.params == run.params == expected


def test_a_later_tag_replaces_an_earlier_one(run: Run, stored: MemoryRun) -> None:
    run.set_tags({"stage": "one", "n": 1})
    run.set_tag("stage", "two")
    assert (stored.tags["stage"], stored.tags["n"], run.tags["stage"]) == ("two", "1", "two")


def test_secrets_reach_neither_params_nor_tags_nor_texts_nor_tracebacks(captured: list[MemoryRun]) -> None:
    token = "ghp_" + "a1B2" * 9
    with (  # noqa: PT012
        pytest.raises(ValueError, match="no"),
        overt.start_run(tags={"api_key": "hunter2"}, params={"password": "hunter2"}, notes=f"see {token}") as run,
    ):
        run.log_param("db_password", "hunter2")
        run.log_params({"auth": {"secret": "hunter2"}, "url": "postgres://me:hunter2@host/db", "max_tokens": 5})
        run.set_tag("token", "hunter2")
        run.set_tag("note", f"use {token}")
        run.log_text(f"export GITHUB_TOKEN={token}", "notes.txt")
        run.log_dict({"text": token}, "notes.json")
        run.log_table({"t": [token]}, "notes.csv")
        raise ValueError(f"no access with {token}")
    stored = captured[0]
    everything = repr((stored.params, stored.tags, stored.artifacts))
    assert "hunter2" not in everything
    assert token not in everything
    assert stored.params["max_tokens"] == "5"
    assert "[redacted]" in stored.artifacts["overt/traceback.txt"].decode()
    assert "ValueError: no access" in stored.tags["overt.error"]


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_and_a_folder_are_recorded_as_they_are_now(run: Run, stored: MemoryRun, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a")
    (folder / "deep" / "b.bin").write_bytes(b"\x00")
    run.log_artifact(folder / "a.txt")
    run.log_artifact(str(folder / "a.txt"), "copies/of")
    run.log_artifact(folder, "runs")
    (folder / "a.txt").write_bytes(b"changed")
    assert stored.artifacts == {
        "a.txt": b"a",
        "copies/of/a.txt": b"a",
        "runs/results/a.txt": b"a",
        "runs/results/deep/b.bin": b"\x00",
    }


def test_nothing_at_a_path_is_the_users_mistake(run: Run) -> None:
    with pytest.raises(FileNotFoundError, match="log_artifact"):
        run.log_artifact("nowhere.txt")


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "", "a//b", "C:/x", "a\\b", "a\nb"])
def test_a_path_that_leads_elsewhere_is_a_record_error(run: Run, stored: MemoryRun, path: str) -> None:
    with pytest.raises(RecordError, match="path must be relative"):
        run.log_text("x", path)
    with pytest.raises(RecordError):
        run.log_dict({}, path)
    assert stored.artifacts == {}


def test_a_path_that_leads_elsewhere_is_said_of_the_method_that_was_called(run: Run) -> None:
    for method, content in ((run.log_text, "x"), (run.log_dict, {}), (run.log_table, {"a": [1]}), (run.log_bytes, b"")):
        with pytest.raises(RecordError, match=f"^{method.__name__}: an artifact's path"):
            method(content, "../y.csv")


def test_no_file_takes_the_place_of_what_overt_itself_records(run: Run, stored: MemoryRun, tmp_path: Path) -> None:
    (tmp_path / "overt").mkdir()
    (tmp_path / "overt" / "packages.json").write_text("{}")
    for record in (
        lambda: run.log_text("mine", "overt/packages.json"),
        lambda: run.log_row({"a": 1}, "overt/rows.csv"),
        lambda: run.log_artifact(tmp_path / "overt"),
    ):
        with pytest.raises(RecordError, match="in its folder overt/, and would replace a file of yours"):
            record()
    run.log_text("mine", "overtly/packages.json")
    assert list(stored.artifacts) == ["overtly/packages.json"]


def test_a_dict_is_json_and_what_json_cannot_say_is_described(run: Run, stored: MemoryRun) -> None:
    run.log_dict({"값": [1, None], "array": np.arange(2), "of": Config}, "a.json")
    content = json.loads(stored.artifacts["a.json"])
    assert content["값"] == [1, None]
    counts = {np.int64(3): np.int64(5), ("a", 1): np.float32(0.5), None: 1, 2: 2}
    run.log_dict(counts, "counts.json")
    assert json.loads(stored.artifacts["counts.json"]) == {"3": 5, "('a', 1)": 0.5, "null": 1, "2": 2}
    assert isinstance(content["array"], str)
    assert "값" in stored.artifacts["a.json"].decode()


def test_a_table_is_csv_or_json_by_its_ending(run: Run, stored: MemoryRun) -> None:
    columns = {"name": ["가", 'q"uo,te'], "score": [np.float64(0.5), 2]}
    run.log_table(columns, "t.csv")
    run.log_table(columns, "t.json")
    assert list(csv.reader(io.StringIO(stored.artifacts["t.csv"].decode()))) == [
        ["name", "score"],
        ["가", "0.5"],
        ['q"uo,te', "2"],
    ]
    assert json.loads(stored.artifacts["t.json"]) == {
        "columns": ["name", "score"],
        "data": [["가", 0.5], ['q"uo,te', 2]],
    }


def test_a_data_frame_is_a_table(run: Run, stored: MemoryRun) -> None:
    pandas = pytest.importorskip("pandas")
    run.log_table(pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "t.json")
    assert json.loads(stored.artifacts["t.json"]) == {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}


def test_rows_by_column_are_a_table(run: Run, stored: MemoryRun) -> None:
    run.log_table([{"a": 1}, {"a": 2, "b": "x"}], "t.csv")
    assert stored.artifacts["t.csv"] == b"a,b\n1,\n2,x\n"


@pytest.mark.parametrize("data", [5, [1, 2], "text", None])
def test_what_is_no_table_is_a_record_error(run: Run, data: Any) -> None:
    with pytest.raises(RecordError, match=r"log_table: `data` must be a DataFrame, .* \(got \w+\)"):
        run.log_table(data, "t.csv")


def test_a_table_of_another_ending_is_a_record_error(run: Run) -> None:
    with pytest.raises(RecordError, match=r"\.csv or \.json"):
        run.log_table({"a": [1]}, "t.xlsx")


def test_a_table_with_columns_of_different_lengths_is_a_record_error(run: Run, stored: MemoryRun) -> None:
    with pytest.raises(RecordError, match="equal length"):
        run.log_table({"a": [1, 2], "b": [1]}, "t.csv")
    assert stored.artifacts == {}


def test_rows_become_a_table_with_a_column_for_each_name(run: Run, stored: MemoryRun) -> None:
    run.log_row({"a": 1, "text": 'q"uo,te'}, "t/rows.csv")
    run.log_row({"b": np.float32(0.5), "a": None, "flag": True}, "t/rows.csv")
    run.log_row({"a": math.inf, "b": math.nan, "list": [1, "x"]}, "t/rows.csv")
    run.log_row({"a": 10**30}, "t/rows.csv")
    assert list(csv.reader(io.StringIO(stored.artifacts["t/rows.csv"].decode()))) == [
        ["a", "text", "b", "flag", "list"],
        ["1", 'q"uo,te', "", "", ""],
        ["", "", "0.5", "True", ""],
        ["inf", "", "nan", "", "[1, 'x']"],
        [str(10**30), "", "", "", ""],
    ]


def test_each_table_has_its_own_rows(run: Run, stored: MemoryRun) -> None:
    for path in ("a.csv", "b.csv", "a.csv"):
        run.log_row({"of": path}, path)
    assert (stored.artifacts["a.csv"], stored.artifacts["b.csv"]) == (b"of\na.csv\na.csv\n", b"of\nb.csv\n")


def test_rows_stand_in_the_order_of_their_time(run: Run, stored: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for now in (30, 10, 20):
        monkeypatch.setattr(clock, "time_ns", lambda now=now: now * clock.NS_PER_MS)
        run.log_row({"at": now}, "rows.csv")
    assert stored.artifacts["rows.csv"] == b"at\n10\n20\n30\n"


def test_rows_of_many_threads_are_all_there(run: Run, stored: MemoryRun) -> None:
    threads = [threading.Thread(target=run.log_row, args=({"n": n}, "rows.csv")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored.artifacts["rows.csv"].split()[1:], key=int) == [b"%d" % n for n in range(20)]


def test_a_secret_in_a_row_is_hidden(run: Run, stored: MemoryRun) -> None:
    run.log_row({"password": "hunter2", "api_key": 12345, "n": 1}, "rows.csv")
    assert stored.artifacts["rows.csv"] == b"password,api_key,n\n[redacted],[redacted],1\n"


def test_a_row_elsewhere_than_in_a_csv_file_is_a_record_error(run: Run, stored: MemoryRun) -> None:
    for path in ("rows.json", "../rows.csv"):
        with pytest.raises(RecordError, match=r"\.csv|relative"):
            run.log_row({"a": 1}, path)
    assert stored.artifacts == {}


def test_a_resumed_run_has_a_table_of_its_own_for_each_attempt(run: Run, stored: MemoryRun) -> None:
    run.log_row({"a": 1}, "rows.csv")
    run._writer.attempt = Attempt(2, clock.now_ms())
    run.log_row({"a": 2}, "rows.csv")
    assert (stored.artifacts["rows.csv"], stored.artifacts["rows.attempt-2.csv"]) == (b"a\n1\n", b"a\n2\n")


def test_a_row_after_the_end_is_a_record_error(run: Run) -> None:
    run.finish()
    with pytest.raises(RecordError, match="has ended, and with it the table"):
        run.log_row({"a": 1}, "rows.csv")


def test_a_matplotlib_figure_is_saved_in_the_format_of_its_ending(run: Run, stored: MemoryRun) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    figure.subplots().plot([1, 2])
    run.log_figure(figure, "plots/a.png")
    run.log_figure(figure, "a.svg")
    assert stored.artifacts["plots/a.png"].startswith(b"\x89PNG")
    assert b"<svg" in stored.artifacts["a.svg"]


def test_what_is_no_figure_is_a_record_error(run: Run) -> None:
    with pytest.raises(RecordError, match=r"matplotlib or plotly figure \(got str\)"):
        run.log_figure("figure", "a.png")


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1), (4, 3, 3), (4, 3, 4)])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_an_image_keeps_its_pixels(run: Run, stored: MemoryRun, shape: tuple[int, ...], kind: str) -> None:
    images = pytest.importorskip("PIL.Image")
    whole = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    run.log_image(whole if kind == "uint8" else (whole / 255).astype("float32"), "a.png")
    read = np.asarray(images.open(io.BytesIO(stored.artifacts["a.png"])))
    assert np.array_equal(read, whole[..., 0] if shape[-1] == 1 else whole)


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[-5, 7, 300]]), [[0, 7, 255]]),
        (np.array([[0, 1000]], dtype="uint16"), [[0, 255]]),
        (np.array([[-0.5, 0.5, 2.0]]), [[0, 128, 255]]),
    ],
)
def test_an_image_of_other_numbers_is_no_other_image(
    run: Run, stored: MemoryRun, image: Any, pixels: list[list[int]]
) -> None:
    images = pytest.importorskip("PIL.Image")
    run.log_image(image, "a.png")
    assert np.asarray(images.open(io.BytesIO(stored.artifacts["a.png"]))).tolist() == pixels


def test_a_pil_image_is_saved_in_the_format_of_its_ending(run: Run, stored: MemoryRun) -> None:
    images = pytest.importorskip("PIL.Image")
    run.log_image(images.new("RGB", (2, 2)), "a.jpg")
    assert stored.artifacts["a.jpg"].startswith(b"\xff\xd8")


@pytest.mark.parametrize("image", ["text", np.zeros(3), np.zeros((2, 2, 2)), np.zeros((1, 2, 2, 3)), None])
def test_what_is_no_image_is_a_record_error(run: Run, stored: MemoryRun, image: Any) -> None:
    with pytest.raises(RecordError, match="log_image"):
        run.log_image(image, "a.png")
    assert stored.artifacts == {}


def test_a_dataset_is_recorded_by_digest_and_named_for_its_metrics(run: Run, stored: MemoryRun) -> None:
    X = np.arange(6.0).reshape(3, 2)
    first = run.log_dataset(X, name="train")
    assert run.log_dataset(X.copy(), name="train") == first
    assert run.log_dataset(X + 1, name="train") != first
    name, _, digest = first.rpartition("#")
    assert (name, digest) == (stored.datasets[0].name, stored.datasets[0].digest)
    assert len(stored.datasets) == 2
    assert "0.0" not in stored.datasets[0].schema


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (SystemExit(), "FINISHED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(3), "FAILED"),
        (SystemExit("sorry"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (ValueError("no"), "FAILED"),
        (GeneratorExit(), "FINISHED"),
    ],
)
def test_a_block_ends_truthfully_and_lets_its_error_through(
    captured: list[MemoryRun], error: BaseException | None, status: str
) -> None:
    caught = None
    try:
        with overt.start_run():
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001
        caught = raised
    assert caught is error
    assert captured[0].status == status
    assert ("overt/traceback.txt" in captured[0].artifacts) == (status == "FAILED")


def test_the_first_ending_wins_and_late_records_leave_it(run: Run, stored: MemoryRun) -> None:
    run.finish("FAILED")
    ended_ms = stored.ended_ms
    run.finish("FINISHED")
    run.log_metric("f1_score", 0.5)
    assert (stored.status, stored.ended_ms, run.status) == ("FAILED", ended_ms, "FAILED")
    assert stored.metrics == {"f1_score": 0.5}


def test_an_exception_that_cannot_be_printed_does_not_hide_itself(captured: list[MemoryRun]) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(Broken), overt.start_run():
        raise Broken
    assert captured[0].status == "FAILED"


def test_a_run_without_a_model_says_so(run: Run) -> None:
    with pytest.raises(LookupError, match="has no model"):
        _ = run.model_uri


def test_a_status_that_is_none_is_refused_and_the_run_ends_as_it_would(run: Run, stored: MemoryRun) -> None:
    with run:
        with pytest.raises(RecordError, match=r"must be one of FINISHED, FAILED, KILLED \(got 'failed'\)"):
            run.finish("failed")  # type: ignore[arg-type]
        assert run.status == "RUNNING"
    assert stored.status == run.status == "FINISHED"


def test_what_a_call_cannot_take_is_said_by_it(run: Run, stored: MemoryRun) -> None:
    for call, pairs in (
        (run.log_metrics, [("a", 1)]),
        (run.set_tags, None),
        (lambda row: run.log_row(row, "a.csv"), [1]),
    ):
        with pytest.raises(RecordError, match="expected a mapping of names to values"):
            call(pairs)  # type: ignore[operator]
    with pytest.raises(RecordError, match=r"`text` must be a text \(got bytes\)"):
        run.log_text(b"a", "a.txt")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"`tracker` must be a Tracker \(got str\)"):
        overt.start_run(tracker="http://localhost:5000")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"`tags` must have texts .* \(got 1\)"):
        overt.configure(tags={1: "a"})
    assert stored.artifacts == stored.metrics == {}


def test_a_path_may_be_a_path(run: Run, stored: MemoryRun, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    run.log_artifact(tmp_path / "a.txt", Path("kept"))
    run.log_text("a", Path("texts/a.txt"))
    run.log_dict({}, Path("a.json"))
    run.log_table({"a": [1]}, Path("t.csv"))
    run.log_row({"a": 1}, Path("rows.csv"))
    assert sorted(stored.artifacts) == ["a.json", "kept/a.txt", "rows.csv", "t.csv", "texts/a.txt"]


def test_every_error_of_the_users_is_one_of_ours_and_a_builtin() -> None:
    assert issubclass(RecordError, OvertError)
    assert issubclass(RecordError, TypeError)


def test_two_columns_of_one_name_are_two_columns(run: Run, stored: MemoryRun) -> None:
    pandas = pytest.importorskip("pandas")
    run.log_table(pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "t.csv")
    assert stored.artifacts["t.csv"] == b"a,a\n1,2\n3,4\n"


def test_a_column_that_is_none_is_refused_by_name(run: Run) -> None:
    with pytest.raises(RecordError, match="log_table: each column"):
        run.log_table({"a": 1}, "t.csv")


def test_secrets_in_tables_and_dicts_are_replaced_cell_by_cell_and_the_files_stay_whole() -> None:
    with overt.testing.captured_runs() as runs, overt.start_run("r") as run:
        table = {"password": ["hunter2secret", "x"], "max_tokens": [1, 2]}
        run.log_table(table, "t.json")
        run.log_table(table, "t.csv")
        run.log_dict({"db": {"password": "hunter2secret"}, "rows": [1, "two"]}, "d.json")
        nested = {"secrets": {"db": {"value": "hunter2secret"}, "all": [{"x": "hunter2secret"}], "on": True}}
        run.log_dict(nested, "nested.json")
        run.log_table([{"config": nested}], "nested.csv")
        run.log_dict({"postgresql://me:hunter2secret@host/db": 1}, "key.json")
    files = runs[0].artifacts
    assert not any(b"hunter2secret" in content for content in files.values())
    assert json.loads(files["t.json"])["data"] == [["[redacted]", 1], ["[redacted]", 2]]
    assert json.loads(files["d.json"]) == {"db": {"password": "[redacted]"}, "rows": [1, "two"]}
    assert json.loads(files["nested.json"])["secrets"]["on"] is True


def test_the_first_value_of_a_param_is_the_one_that_counts_here_as_in_the_store() -> None:
    with overt.testing.captured_runs() as runs, overt.start_run("r") as run:
        run.log_param("a", 1)
        run.log_param("a", 2)
        assert run.params == runs[0].params == {"a": "1"}


# -- files with names that others give them ----------------------------------------------------------------------------


def test_legal_file_names_arrive_and_those_that_are_no_text_recognisably(
    run: Run, stored: MemoryRun, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "2026-01-01T12:30:00.log").write_text("time")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.txt")).write_text("latin")
    run.log_artifact(folder)
    run.log_artifact(folder / "2026-01-01T12:30:00.log")
    assert sorted(stored.artifacts) == ["2026-01-01T12:30:00.log", "odd/2026-01-01T12:30:00.log", "odd/caf?.txt"]


def test_the_working_directory_itself_is_a_folder_with_a_name(
    run: Run, stored: MemoryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path / "here")
    run.log_artifact(".")
    assert list(stored.artifacts) == ["here/a.txt"]


def test_a_folder_with_a_name_that_no_store_takes_is_refused_before_any_of_it_is_recorded(
    run: Run, stored: MemoryRun, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b\\c.txt").write_text("b")
    with pytest.raises(RecordError, match="a backslash"):
        run.log_artifact(folder)
    assert stored.artifacts == {}


def test_an_empty_folder_is_not_dropped_without_a_word(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.warns(overt.OvertWarning, match="there is no file in it"):
        run.log_artifact(tmp_path / "empty")


def test_a_run_that_is_left_in_another_context_than_it_was_entered_in_ends_all_the_same(stored: MemoryRun) -> None:
    import contextvars

    run = overt.start_run("elsewhere")
    contextvars.copy_context().run(run.__enter__)
    run.__exit__(None, None, None)
    assert run.status == "FINISHED"
