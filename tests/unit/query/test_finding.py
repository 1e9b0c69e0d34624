from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.query.shelf import Shelf, run

import overt
from overt.audit import trail
from overt.errors import ConfigurationError, RunNotFound, StoreUnavailable
from overt.query.finding import find_run, run_id_of


@pytest.mark.parametrize("run_id", ["abc-1", "0f8fad5b-d9cb-469f-a165-70867728950e", "RUN 1", "f" * 40, "실험-1"])
def test_any_id_that_a_store_lists_is_found_by_its_whole_and_by_its_beginning(run_id: str) -> None:
    store = Shelf(run(run_id), run("zzz"))
    assert find_run(store, run_id) == run_id
    assert find_run(store, run_id[:-1]) == run_id


def test_a_whole_id_means_one_run_however_many_others_begin_so() -> None:
    store = Shelf(run("run-1", 0), *(run(f"run-1{i}", i + 1) for i in range(10)))
    assert find_run(store, "run-1") == "run-1"
    with pytest.raises(RunNotFound, match=r"may be run-19 .* and others: give more of the id"):
        find_run(store, "run-")


def test_no_text_means_no_run() -> None:
    with pytest.raises(RunNotFound, match="no run answers to ''"):
        find_run(Shelf(run("a")), "")


def test_what_is_no_run_is_an_error_that_fits_whatever_argument_it_came_in() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^a run must be given as a Run, a listed run, or an id.* \(got int\)"
    ):
        run_id_of(Shelf(), 5)  # type: ignore[arg-type]


def test_runs_that_somebody_else_wrote_into_a_file_are_compared_by_the_ids_that_are_listed(tmp_path: Path) -> None:
    ids = ["abc-1", "0f8fad5b-d9cb-469f-a165-70867728950e"]
    common = {"experiment": "e", "run_name": "n", "timestamp": "2024-01-01T00:00:00"}
    lines = [{"run_id": run_id, **common, "params": {"k": i}, "metrics": {"f": i}} for i, run_id in enumerate(ids)]
    (tmp_path / "runs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    store = f"jsonl:{tmp_path}"
    listed = overt.runs(order_by="metrics.f", store=store)["run_id"]
    assert list(listed) == ids
    assert overt.compare(*listed, store=store).params == {"k": ("0", "1")}
    assert overt.history(listed, store=store)["value"].tolist() == [0, 1]


def test_a_run_that_another_store_does_not_take_keeps_nobody_from_reading_this_one(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    here, other = f"jsonl:{tmp_path / 'here'}", tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    overt.configure(delivery="inline", drain_timeout_s=0.2)
    with overt.start_run("good", tracker=overt.Tracker(store=here)) as good:
        good.log_metric("f1", 0.5)
    with overt.start_run("bad", tracker=overt.Tracker(store=f"csv:{other}")) as bad:
        bad.log_metric("f1", 0.5)
    assert not overt.wait()
    assert list(overt.runs(store=here)["run_name"]) == ["good"]
    with pytest.raises(StoreUnavailable, match="has not arrived in this store yet"):
        overt.runs(store=f"csv:{other}")
    other.unlink()
    assert overt.wait()


@pytest.mark.parametrize(
    "ask",
    [
        lambda uri: overt.load_model("m@champion", store=uri),
        lambda uri: overt.register("last", "m", store=uri),
        lambda uri: overt.promote("m", 1, "champion", store=uri),
        lambda uri: trail("m@champion", uri),
        lambda uri: overt.runs(store=uri),
    ],
)
def test_a_dead_server_is_one_sentence_within_seconds(ask: Callable[[str], object]) -> None:
    """MLflow by itself tries for four minutes, which is longer than a test may take here."""
    before = dict(os.environ)
    with pytest.raises(StoreUnavailable) as raised:
        ask("http://user:word@127.0.0.1:9")
    assert str(raised.value) == (
        "http://127.0.0.1:9 does not answer (Connection refused). See that it runs, or name another store with "
        "store=, --store or OVERT_STORE"
    )
    assert dict(os.environ) == before


def test_a_server_that_says_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreUnavailable, match=rf"^http://127.0.0.1:{port} does not answer \(timed out\)\. See"):
            overt.load_model("m@champion", store=f"http://127.0.0.1:{port}")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


@pytest.mark.parametrize("store", ["jsonl:.", "csv:table.csv"])
def test_a_warning_of_what_was_read_points_at_the_line_that_asked(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs.jsonl").write_text("no run\n")
    Path("table.csv").write_text("timestamp,experiment\nnever,e\n")
    with pytest.warns(overt.OvertWarning, match="is left out, since it is no run") as told:
        overt.runs(store=store)
    assert [warning.filename for warning in told] == [__file__]
