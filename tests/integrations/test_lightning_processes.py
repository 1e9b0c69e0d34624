"""Lightning in real processes: delivered to MLflow, interrupted, and on two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from overt.journal.reader import iter_heads, iter_records
from overt.records import Metric, RunEnd, Tag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PARTS = """
    import logging, os, sys, warnings
    warnings.simplefilter("ignore")
    sys.path.insert(0, {root!r})
    import torch
    import overt
    from overt.integrations.lightning.lightning_pytorch import TrackingCallback
    from tests.integrations.lightning_parts import classifier, data, trainer
    torch.set_num_threads(1)
"""


def start(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A script of the user's, in ``folder``."""
    parts = PARTS.format(root=str(Path(__file__).parents[2]))
    script = folder / "train.py"
    script.write_text(textwrap.dedent(parts) + textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(code: str, folder: Path, *, exit_code: int = 0, **environment: str) -> str:
    """What the script printed."""
    process = start(code, folder, **environment)
    out, err = process.communicate(timeout=150)
    assert process.returncode == exit_code, err
    return out


def journals(folder: Path) -> dict[str, list[Any]]:
    """Records of each run that lies undelivered in ``folder``, by name."""
    found = {}
    for place in sorted((folder / ".overt" / "runs").iterdir()):
        head = next(iter(iter_heads(place)))[1]
        found[head.spec.name] = list(iter_records(place))
    return found


FIT_AND_TEST = """
    import lightning

    class Digits(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx, stage="train"):
            logits = self(batch[0])
            loss = torch.nn.functional.cross_entropy(logits, batch[1])
            self.log(f"{{stage}}_loss", loss, on_step=stage == "train", on_epoch=True)
            return {{"loss": loss, "logits": logits, "target": batch[1]}}

        def validation_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx, "val")

        def test_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx, "test")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    overt.configure(store={uri!r})
    callback = TrackingCallback(experiment="digits", log_every_n_steps=1)
    fitted, module = trainer(callback, enable_checkpointing=True), Digits()
    fitted.fit(module, data(), data())
    fitted.test(module, data(), verbose=False)
    assert overt.wait(90)
    torch.save([data().dataset.tensors[0], module(data().dataset.tensors[0])], "expected.pt")
    assert "mlflow" not in sys.modules
    print(callback.run_.id, callback.run_.model_uri)
"""

LOAD = """
    import sys
    sys.modules["overt"] = None  # not there
    import mlflow, torch
    mlflow.set_tracking_uri({uri!r})
    inputs, expected = torch.load("expected.pt")
    model = mlflow.pytorch.load_model({model_uri!r})
    assert torch.equal(model.eval()(inputs), expected)
    by_run = mlflow.pytorch.load_model("runs:/{run_id}/model")
    assert torch.equal(by_run.eval()(inputs), expected)
    served = mlflow.pyfunc.load_model({model_uri!r})
    assert (served.predict(inputs.numpy()) == expected.detach().numpy()).all()
"""


def test_a_fit_is_in_mlflow_and_its_model_loads_without_overt(sqlite_uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run_id, model_uri = finished(FIT_AND_TEST.format(uri=sqlite_uri), tmp_path).split()[-2:]
    client = MlflowClient(sqlite_uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer"] == "SGD"
    assert [point.step for point in client.get_metric_history(run_id, "train_loss_step")] == list(range(1, 13))
    assert [point.step for point in client.get_metric_history(run_id, "val_loss")] == [0, 1]
    paths = {item.path for item in client.list_artifacts(run_id)}
    assert {"confusion_matrix.png", "classification_report.json", "roc_curve.png", "model_summary.txt"} <= paths
    assert [item.path for item in client.list_artifacts(run_id, "checkpoints")]
    assert client.get_logged_model(model_uri.rpartition("/")[2]).metrics  # the test's scores are the model's
    load = textwrap.dedent(LOAD.format(uri=sqlite_uri, model_uri=model_uri, run_id=run_id))
    command = [sys.executable, "-W", "ignore", "-c", load]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


INTERRUPTED = """
    import signal
    class Slow(classifier()):
        def on_train_batch_end(self, *_):
            if self.global_step == 3:
                os.kill(os.getpid(), signal.{signal})
    overt.configure(delivery="manual", store="sqlite:///away.db")
    trainer(TrackingCallback(log_every_n_steps=1)).fit(Slow(), data())
    print("went on")
"""


@pytest.mark.parametrize(("signal", "exit_code"), [("SIGINT", 1), ("SIGTERM", 0)])
def test_a_signal_ends_the_run_as_killed_whatever_exit_follows(tmp_path: Path, signal: str, exit_code: int) -> None:
    out = finished(INTERRUPTED.format(signal=signal), tmp_path, exit_code=exit_code)
    assert "went on" not in out
    (records,) = journals(tmp_path).values()
    assert [record.status for record in records if isinstance(record, RunEnd)][:1] == ["KILLED"]
    steps = [record.step for record in records if isinstance(record, Metric) and record.name == "train_loss_step"]
    assert steps[:3] == [1, 2, 3]


TWO_RANKS = """
    import json, torch.distributed as dist
    class Reduces(classifier()):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            total = loss.detach().clone()
            dist.all_reduce(total)
            self.log("total", total, on_step=True, on_epoch=False)
            self.log("synced", float(self.global_rank), on_step=False, on_epoch=True, sync_dist=True)
            if self.global_rank == 0:
                self.log("only_on_zero", 1.0, rank_zero_only=True)
            return loss
        def test_step(self, batch, batch_idx):
            return super().test_step(batch, batch_idx) if {both} or self.global_rank == 0 else None

    if __name__ == "__main__":
        overt.configure(delivery="manual", store="sqlite:///away.db")
        callback = TrackingCallback(log_every_n_steps=1)
        fitted = trainer(callback, strategy="ddp", devices=2, use_distributed_sampler=True)
        module = Reduces(returns="{returns}")
        fitted.fit(module, data(), data())
        fitted.test(module, data(25), verbose=False)  # each rank gets 13
        with open(f"rank{{fitted.global_rank}}.json", "w") as file:
            json.dump([callback.run_.key, callback.run_.metrics, callback.run_.status], file)
"""


@pytest.mark.parametrize(
    ("both", "returns"),
    [(True, "loss"), (False, "logits")],
    ids=["losses are seen on both ranks", "one rank returns"],
)
def test_two_ranks_make_one_run(tmp_path: Path, both: bool, returns: str) -> None:
    if not __import__("torch").distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    finished(TWO_RANKS.format(both=both, returns=returns), tmp_path)
    (records,) = journals(tmp_path).values()
    points: dict[str, list[Any]] = {}
    for record in records:
        if isinstance(record, Metric):
            points.setdefault(record.name, []).append((record.step, record.value))
    assert [step for step, _ in points["total"]] == [1, 2, 3, 4, 5, 6]
    assert points["synced"] == [(0, 0.5), (1, 0.5)]
    assert points["only_on_zero"] == [(step, 1.0) for step in range(1, 7)]
    assert not [record for record in records if isinstance(record, Tag) and "not_recorded" in record.name]
    assert [record.status for record in records if isinstance(record, RunEnd)] == ["FINISHED"]

    (key, metrics, status), (other_key, *_) = (json.loads((tmp_path / f"rank{n}.json").read_text()) for n in (0, 1))
    assert key == other_key
    assert status == "FINISHED"
    matrix = next(r for r in records if getattr(r, "path", "") == "confusion_matrix.json").blob
    place = next((tmp_path / ".overt" / "runs").iterdir())
    table = json.loads((place / "files" / matrix.sha256).read_text())["matrix"]
    assert sum(map(sum, table)) == (25 if both else 13), "of both ranks, and none twice"
    assert 0 <= metrics["accuracy"] <= 1


SPAWNED = """
    import time
    import lightning

    class Fails(classifier()):
        def training_step(self, batch, batch_idx):
            if self.global_rank:
                time.sleep(60)  # the first to fail has the others terminated
            raise ValueError("in a process of its own")

    Fails.__qualname__, Fails.__module__ = "Fails", "__main__"
    overt.configure(delivery="manual")  # in the spawned processes as well
    if __name__ == "__main__":
        try:
            trainer(TrackingCallback(run_name="spawned"), strategy="ddp_spawn", devices=2).fit(Fails(), data())
        except BaseException as error:
            print(error)
"""


def test_a_fit_that_fails_in_a_spawned_process_is_failed(tmp_path: Path) -> None:
    assert "in a process of its own" in finished(SPAWNED, tmp_path)
    ends = [record.status for record in journals(tmp_path)["spawned"] if isinstance(record, RunEnd)]
    assert ends == ["FAILED"]
