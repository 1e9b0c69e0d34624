"""One line for each public name, read by mypy --strict: what a user may write, with the types they may rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, assert_type

import pytest

import overt
from overt import OvertError, OvertWarning, Report, Run, Tracker
from overt.query.comparing import Comparison
from overt.records import Dataset, Metric, ModelVersion, Param, Promotion, RunSpec, RunSummary, Tag
from overt.stores.memory import MemoryRun, MemoryStore
from overt.stores.protocols import JoinableStore, ModelStore, Store
from overt.testing import Fault, FlakyStore, StoreContract, StoredPoint, StoredRun, captured_runs

store: Store = MemoryStore()
flaky: Store = FlakyStore(store, ["unavailable", Fault("after_effect")], longest_hang_s=1.0)
models: ModelStore = MemoryStore()
joinable: JoinableStore = MemoryStore()
errors: tuple[type[Exception], type[Warning]] = (OvertError, OvertWarning)

overt.configure(store="sqlite:///mlflow.db", experiment="mine", tags={"team": "a"}, delivery="manual", on_error="raise")
overt.configure(enabled=False, keep_journal=True, drain_timeout_s=1.0, directory=".overt")
tracker: Tracker = Tracker(experiment="mine", store=store)
best: RunSummary = overt.best_run("f1_score", mode="max", experiment="e", where="params.a = '1'", store="jsonl:runs")
compared: Comparison = overt.compare(best, "last", store="jsonl:experiments")
frames: list[Any] = [
    overt.runs("e", where="metrics.loss < 1", order_by=["metrics.loss DESC"], limit=5, store=store),
    overt.runs(order_by="metrics.loss"),
    overt.history(best, "loss"),
    overt.history(overt.runs("e"), "loss"),
    overt.history(["last", best], store="jsonl:experiments"),
    compared.to_frame(),
]
assert_type(compared.metrics, Mapping[str, tuple[float | None, ...]])
assert_type(compared.params, Mapping[str, tuple[str | None, ...]])
assert_type(overt.wait(), bool)
version = overt.register("last", "m", model="model", alias="a", description="d", tags={"a": 1}, store="sqlite:///m.db")
assert_type(version, ModelVersion)
assert_type(overt.promote("m", "challenger", "champion", if_better="f1_score", mode="max", store=store), Promotion)
overt.load_model("m@champion", allow_pickle=True, trusted_types=("a.B", int), store=None)
assert_type(overt.wait(timeout_s=1.5), bool)
assert_type(overt.current_run(), Run | None)
assert_type(tracker.start_run("name", experiment="e", tags={"a": 1}, params={"b": 2}, notes="n", parent=None), Run)


callback = overt.SklearnTrackingCallback(experiment="e", tags={"a": 1}, live_scores=True, max_propagation_depth=0)
assert_type(callback, overt.SklearnTrackingCallback)


@overt.track_training(experiment="e", observe=["loss"], stop_on_nan=True)
def trained(lr: float) -> int:
    return 1


@overt.track_training
def trained_too(lr: float) -> str:
    return ""


@overt.track_training
def trained_explicitly(lr: float, run: overt.Run | None = None) -> float:
    assert run is not None
    return lr


assert_type(trained(0.1), int)
assert_type(trained_explicitly(0.1), float)
assert_type(trained_too(0.1), str)


def recorded(report: Report, figure: object, image: object) -> None:
    with overt.start_run("name", experiment="e", tags={"a": 1}, params={"b": 2}, notes="n", tracker=tracker) as run:
        assert_type(run, Run)
        child: Run = overt.start_run(parent=run)
        overt.start_run(parent=child.key)
        run.log_param("lr", 0.1)
        run.log_params({"lr": 0.1})
        run.log_metric("loss", 0.5, step=1)
        run.log_metric("loss", 0.5, epoch=1, model="model", dataset="train#1")
        run.log_metrics({"loss": 0.5, "acc": 1}, step=1)
        assert_type(run.score(max, [0.1, 0.2], name="best"), float)
        run.set_tag("stage", "one")
        run.set_tags({"stage": 1})
        run.log_artifact("a.txt")
        run.log_artifact(Path("a"), "folder")
        run.log_bytes(b"", "a.bin")
        run.log_text("a", Path("a.txt"))
        run.log_dict({"a": [1]}, "a.json")
        run.log_dict([1, 2], "a.json")
        run.log_table({"a": [1]}, "a.csv")
        run.log_row({"a": 1, "b": "x", "c": None}, "rows.csv")
        run.log_figure(figure, "a.png")
        run.log_image(image, "a.png")
        run.log_report(report, prefix="val_")
        assert_type(run.log_dataset([[1.0]], [1], name="train", context="fit"), str)
        for epoch in run.epochs(3, checkpoint=object()):
            assert_type(epoch, int)
        for batch in run.batches([1.0]):
            assert_type(batch, float)
        assert_type(run.epoch, int | None)
        assert_type(run.to_checkpoint(), dict[str, Any])
        run.call_at_end(lambda ended: None)
        with run.as_current() as current:
            assert_type(current, Run)
        run.flush()
        run.let_go()
        run.finish("FAILED", error=ValueError())
    assert_type(run.metrics, dict[str, float])
    assert_type(run.params, dict[str, str])
    assert_type(run.tags, dict[str, str])
    ids: tuple[str, str, str, str, str] = (run.key, run.id, run.name, run.experiment, run.model_uri)
    assert run.status in ("RUNNING", "FINISHED", "FAILED", "KILLED"), ids


def reproduced(model: str) -> None:
    plan = overt.reproduce.plan("last", store="jsonl:experiments")
    assert_type(plan, overt.reproduce.Plan)
    assert_type(plan.missing, tuple[str, ...])
    assert_type(overt.reproduce.apply(plan, "folder").folder, Path)
    assert_type(overt.reproduce.apply(plan, Path("folder")), overt.reproduce.Rebuilt)
    trail = overt.audit.trail(model)
    assert_type(trail, overt.audit.Trail)
    assert_type(trail.missing, tuple[str, ...])


def captured() -> MemoryRun:
    with captured_runs() as runs, overt.testing.captured_runs() as inner:
        assert_type(runs, list[MemoryRun])
    return inner[0]


class TestMine(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def read(self, store: MemoryStore, run_id: str) -> StoredRun:
        run = store.runs[run_id]
        point = StoredPoint("x", step=0, time_ms=1, value=0.5)
        return StoredRun(run.name, run.experiment, run.status, 1, run.ended_ms, {}, {}, run.tags, (point,), {})

    def reopened(self, store: MemoryStore) -> MemoryStore:
        return store


records: list[Metric | Param | Tag | Dataset] = [Metric("x", 0.5, 0, 1), Param("a", "1"), Tag("a", "1")]
store.log_batch(store.create_run(RunSpec("0" * 32, "name", "experiment", 1)), records)
hook: Callable[..., Any] = captured
