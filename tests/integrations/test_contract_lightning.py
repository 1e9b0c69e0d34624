"""TrackingCallback keeps what every hook promises, in both trees of Lightning."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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
        lightning = importlib.import_module(self.tree)
        boring = importlib.import_module(f"{self.tree}.demos.boring_classes")

        class Disturbed(boring.BoringModel):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                during()
                loss = super().training_step(batch, batch_idx)
                self.log("loss", loss["loss"])
                return loss

        callback = importlib.import_module(self.home).TrackingCallback(**keywords)
        lightning.Trainer(
            callbacks=[callback],
            max_epochs=1,
            limit_train_batches=2,
            limit_val_batches=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=Path.cwd(),
            log_every_n_steps=1,
        ).fit(Disturbed())


class TestLightning(LightningContract):
    patchable = ("lightning", "torch")
    tree = "lightning.pytorch"
    home = "overt.integrations.lightning.lightning_pytorch"


class TestPytorchLightning(LightningContract):
    patchable = ("pytorch_lightning", "torch")
    tree = "pytorch_lightning"
    home = "overt.integrations.lightning.pytorch_lightning"
