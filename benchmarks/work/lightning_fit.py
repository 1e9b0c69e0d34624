"""Times ``Trainer.fit`` bare, with ``TrackingCallback``, and with Lightning's own loggers.

Arguments: the side (``overt``, ``mlflow``, ``tensorboard``, ``csv``) and ``log_every_n_steps``. The fit has a training
and a validation, and logs a loss for each step and each epoch.
"""

import csv
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import lightning
import torch
from blocks import in_turns, timed
from lightning.pytorch import loggers
from torch.utils.data import DataLoader, TensorDataset

side, every = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")  # about the number of workers

EPOCHS = 6
ROWS, WIDTH = 32, 64
STEPS = 60 if side == "mlflow" and every == 1 else 200
BLOCKS = 2 if side == "mlflow" and every == 1 else 4


class Network(lightning.LightningModule):
    """An MLP that logs as modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 4))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", torch.nn.functional.cross_entropy(logits, y))
        return {"logits": logits, "target": y}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Noting(lightning.Callback):
    """Notes when epochs start; first among the callbacks, it does so before anybody else does anything."""

    def __init__(self, starts: list[float]) -> None:
        self.starts = starts

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.starts.append(time.perf_counter())


X, y = torch.randn(ROWS * STEPS, 64), torch.randint(0, 4, (ROWS * STEPS,))
TRAIN = DataLoader(TensorDataset(X, y), batch_size=ROWS, shuffle=True)
VAL = DataLoader(TensorDataset(X[: ROWS * STEPS // 10], y[: ROWS * STEPS // 10]), batch_size=ROWS)
n_recorded = EPOCHS * STEPS // every
series = {"train_loss_step": n_recorded, "train_loss_epoch": EPOCHS, "val_loss": EPOCHS}
expect: dict[str, object] = {}


def fit(starts: list[float], *callbacks: lightning.Callback, logger: object = False) -> None:
    """Fit a new network."""
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=every,
        callbacks=[Noting(starts), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Network(), TRAIN, VAL)


def wait() -> None:
    """A bare fit shares the machine with no delivery."""
    if side == "overt":
        assert overt.wait(60), "not everything arrived"


if side == "overt":
    import overt

    runs = []

    def tracked(starts: list[float]) -> None:
        callback = overt.TrackingCallback()
        fit(starts, callback)
        runs.append(callback.run_)
else:
    LOGGERS = {
        "mlflow": lambda: loggers.MLFlowLogger("Default", tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
        "tensorboard": lambda: loggers.TensorBoardLogger("events"),
        "csv": lambda: loggers.CSVLogger("rows"),
    }
    used = []

    def tracked(starts: list[float]) -> None:
        used.append(LOGGERS[side]())
        fit(starts, logger=used[-1])


def arrived(logger: loggers.Logger) -> Mapping[str, int]:
    """Points of each series in the files of a logger."""
    if side == "tensorboard":
        from event_files import count_points

        logger.experiment.close()
        return count_points(logger.log_dir)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: sum(bool(row[name]) for row in rows) for name in series}


timed(fit)
timed(tracked)  # what is used for the first time, and a courier that starts
wait()
result = in_turns(fit, tracked, blocks=BLOCKS, before_bare=wait)
wait()
if side == "overt":
    files = ["val_confusion_matrix.json", "val_classification_report.json", "model_summary.txt"]
    expect = {run.id: {"metrics": series, "files": files, "models": 1} for run in runs}
elif side == "mlflow":
    expect = {logger.run_id: {"metrics": series} for logger in used}
else:
    for found in map(arrived, used):
        assert {name: found[name] for name in series} == series, "not every point is in the files"
print(json.dumps(result | {"step_us": 1e6 * result["epoch_s"] / STEPS, "expect": expect}))
