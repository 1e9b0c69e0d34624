"""Format 1 as it was written when it was new: today's code reads it whole and delivers it."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.formats.make_v1 import KEY, SPEC, write

from overt.delivery.deliver import RunDelivery
from overt.delivery.sync import examine, sync
from overt.journal.codec import encode
from overt.journal.reader import iter_heads, iter_records
from overt.records import Metric, Record
from overt.stores.memory import MemoryStore

V1 = Path(__file__).parent / "v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy, for a delivery writes beside the journal."""
    return shutil.copytree(V1, tmp_path / "v1") / "runs" / KEY


def kinds(folder: Path) -> Counter[str]:
    return Counter(type(record).__name__ for record in iter_records(folder))


def test_every_kind_of_record_is_in_it() -> None:
    assert kinds(V1 / "runs" / KEY).keys() == {kind.__name__ for kind in Record.__args__}


def test_it_is_read_as_it_was_meant(folder: Path, tmp_path: Path) -> None:
    assert [head.spec for _, head in iter_heads(folder)] == [SPEC, SPEC]
    assert repr(list(iter_records(folder))) == repr(list(iter_records(write(tmp_path / ".overt"))))


def test_what_is_written_today_is_written_as_it_was_then(folder: Path) -> None:
    lines = (V1 / "runs" / KEY / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (_, head), *_ = iter_heads(folder)
    main = list(iter_records(folder))[: len(lines) - 1]
    assert [encode(head), *map(encode, main)] == lines


def test_it_is_delivered_whole(folder: Path) -> None:
    store = MemoryStore()
    delivery = RunDelivery(folder, store, store_name="memory", draw=lambda kind, data: kind.encode())
    assert examine(folder).state in ("ended", "elsewhere")
    delivery.deliver()
    assert (delivery.problems, delivery.progress.bad_lines, delivery.progress.rejected) == ([], 0, 0)
    run = store.runs[KEY]
    assert (run.status, run.ended_ms, run.name) == ("FAILED", SPEC.started_ms + 60_000, "실험 하나")
    assert run.params == {"lr": "0.1", "긴 값": "x" * 7_000}
    assert {"stage": "train", "mlflow.user": "mina"}.items() <= run.tags.items()
    assert run.tags["overt.lost_records"].startswith("2:")
    assert run.artifacts["notes/읽기.txt"].decode() == "내용"
    assert run.artifacts["confusion_matrix.png"] == b"confusion_matrix"
    assert run.artifacts["model/model.pkl"] == b"not a pickle, and never opened"
    assert list(run.models) == ["model"]
    assert [data.digest for data in run.datasets] == ["abc123"]
    losses = [point.value for point in run.history if point.name == "loss"]
    assert (losses[0], math.isnan(losses[1]), losses[2:]) == (0.5, True, [math.inf, -math.inf])
    worker = Metric("f1_score", 0.75, 0, SPEC.started_ms + 7, "model", "train#abc123")
    assert worker in run.history
    assert run.artifacts["fits.csv"].decode().splitlines() == [
        "단계,seconds,more,n,ok",
        ",inf,x,,",
        '"a, b",0.5,,3,True',
    ]
    assert delivery.remove_if_safe(is_over=True)


def test_it_is_synced_into_mlflow(folder: Path, sqlite_uri: str) -> None:
    (outcome,) = sync(folder, store_of=lambda spec: sqlite_uri, keep=True)
    assert (outcome.delivered, outcome.problem) == (True, "")
    assert outcome.run_id is not None
    client = MlflowClient(tracking_uri=sqlite_uri)
    run = client.get_run(outcome.run_id)
    assert (run.info.status, run.info.end_time) == ("FAILED", SPEC.started_ms + 60_000)
    assert run.data.metrics["mAP:at:0.5"] == 1e-300
    assert len(client.get_metric_history(outcome.run_id, "loss")) == 4
    picture = Path(client.download_artifacts(outcome.run_id, "confusion_matrix.png"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    (logged,) = run.outputs.model_outputs
    assert client.get_logged_model(logged.model_id).name == "model"
    assert json.loads((folder / "delivered.json").read_bytes())
