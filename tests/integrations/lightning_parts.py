"""Modules, data and trainers for the tests of ``TrackingCallback``: small, seeded, without a logger unless asked."""

from __future__ import annotations

import importlib
from collections import defaultdict
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from overt.stores.memory import MemoryRun

TREES = ("lightning.pytorch", "pytorch_lightning")

# Lightning's own advice to users, which pytest would turn into errors.
FILTERS = [
    "ignore:The '.*_dataloader' does not have many workers",  # the data is three tensors
    "ignore:.*`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",  # lightning 2.6 on torch 2.13
    "ignore:.*`ckpt_path=None.` was called without a model",  # test() alone takes the best checkpoint, as is meant
    "ignore:You defined a `validation_step` but have no `val_dataloader`",  # some tests need no validation
    "ignore:Checkpoint directory .* exists and is not empty",  # a second fit in the same folder
]


def tree(name: str) -> ModuleType:
    """One of Lightning's two trees."""
    return importlib.import_module(name)


def callback_of(name: str) -> Any:
    """The ``TrackingCallback`` of a tree."""
    place = {"lightning.pytorch": "lightning_pytorch"}.get(name, name)
    return importlib.import_module(f"overt.integrations.lightning.{place}").TrackingCallback


def data(n_samples: int = 24, *, batch_size: int = 4) -> DataLoader[Any]:
    """Three classes that can be told apart, in the same order each time."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n_samples, 4, generator=generator)
    classes = (features[:, 0] > 0).long() + (features[:, 1] > 0).long()
    return DataLoader(TensorDataset(features, classes), batch_size=batch_size)


def network() -> torch.nn.Sequential:
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def classifier(tree_name: str = "lightning.pytorch") -> type[Any]:
    """A LightningModule class as in the tutorials, that logs in every way there is."""

    class Classifier(tree(tree_name).LightningModule):  # type: ignore[misc]
        def __init__(self, lr: float = 0.1, returns: str = "logits") -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def _step(self, batch: Any, stage: str, **how: Any) -> Any:
            x, y = batch
            logits = self(x)
            loss = torch.nn.functional.cross_entropy(logits, y)
            self.log(f"{stage}_loss", loss, **how)
            if stage == "train" or self.hparams.returns == "loss":
                return loss
            return {"loss": loss, self.hparams.returns: logits, "target": y}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self._step(batch, "train", on_step=True, on_epoch=True)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return self._step(batch, "val")

        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return self._step(batch, "test")

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0]).argmax(1)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]

    Classifier.__module__ = "__main__"  # pickled by value, as a class of the user's script is
    Classifier.__qualname__ = "Classifier"
    return Classifier


def trainer(callback: Any, *more: Any, tree_name: str = "lightning.pytorch", **settings: Any) -> Any:
    """A trainer on the CPU that prints and writes nothing by itself."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return tree(tree_name).Trainer(callbacks=[callback, *more], **{**defaults, **settings})


def series(run: MemoryRun) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each metric, in the order in which they were recorded."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for point in run.history:
        found[point.name].append((point.step, point.value))
    return dict(found)
