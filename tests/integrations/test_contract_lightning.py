"""TrackingCallback keeps what every hook promises, in both trees of Lightning."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from overt.testing import IntegrationContract

pytest.importorskip("lightning")
pytest.importorskip("pytorch_lightning")

from tests.integrations.lightning_parts import FILTERS

pytestmark = [pytest.mark.filterwarnings(message) for message in FILTERS]


class LightningContract(IntegrationContract):
    tree = ""
    home = ""

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        self.fit(during, **keywords)

    def train_in_two(self, folder: Path, **keywords: Any) -> None:
        batches = iter(range(100))

        def fail_once() -> None:
            if next(batches) == 3:  # the second of the second epoch
                raise ValueError("once")

        for during, path in ((fail_once, None), (lambda: None, str(folder / "last.ckpt"))):
            with pytest.raises(ValueError, match="once") if path is None else nullcontext():
                self.fit(during, folder, path, **keywords)

    def fit(
        self, during: Callable[[], None], folder: Path | None = None, path: str | None = None, **keywords: Any
    ) -> None:
        lightning = importlib.import_module(self.tree)
        boring = importlib.import_module(f"{self.tree}.demos.boring_classes")

        class Disturbed(boring.BoringModel):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                during()
                loss = super().training_step(batch, batch_idx)
                self.log("loss", loss["loss"])
                return loss

        callback = importlib.import_module(self.home).TrackingCallback(**keywords)
        saving = [lightning.callbacks.ModelCheckpoint(folder, save_last=True)] if folder else []
        lightning.Trainer(
            callbacks=[callback, *saving],
            max_epochs=3 if folder else 1,
            limit_train_batches=2,
            limit_val_batches=1,
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=Path.cwd(),
            log_every_n_steps=1,
        ).fit(Disturbed(), ckpt_path=path)


class TestLightning(LightningContract):
    patchable = ("lightning", "torch")
    tree = "lightning.pytorch"
    home = "overt.integrations.lightning.lightning_pytorch"


class TestPytorchLightning(LightningContract):
    patchable = ("pytorch_lightning", "torch")
    tree = "pytorch_lightning"
    home = "overt.integrations.lightning.pytorch_lightning"
