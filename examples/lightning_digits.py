"""Train a small convolutional network on scikit-learn's digits with Lightning, test it, load it back and check it.

The only line about tracking is the callback. Nothing is downloaded: the digits come with scikit-learn.

Run it with ``python examples/lightning_digits.py`` where ``overt[mlflow,lightning,sklearn]`` is installed.
"""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import overt

EXPERIMENT = "digits-lightning"


class DigitsClassifier(lightning.LightningModule):
    """Two convolutions and two linear layers."""

    def __init__(self, lr: float = 3e-3, channels: int = 12, dropout: float = 0.2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * 16, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def _step(self, batch: list[torch.Tensor], stage: str, **how: bool) -> dict[str, torch.Tensor]:
        images, digits = batch
        logits = self(images)
        loss = nn.functional.cross_entropy(logits, digits)
        self.log(f"{stage}_loss", loss, **how)
        return {"loss": loss, "logits": logits, "target": digits}  # what overt makes a confusion matrix and report of

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train", on_step=True, on_epoch=True)

    def validation_step(self, batch, batch_idx):
        return self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        return self._step(batch, "test")

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def loaders() -> tuple[DataLoader, DataLoader, DataLoader]:
    """Images of 8 by 8 pixels and the digits that they show: 60 % to train, 20 % to validate, 20 % to test."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    targets = torch.tensor(digits.target)
    rest, test = train_test_split(range(len(targets)), test_size=0.2, random_state=42, stratify=targets)
    train, val = train_test_split(rest, test_size=0.25, random_state=42, stratify=targets[rest])
    return tuple(
        DataLoader(TensorDataset(images[rows], targets[rows]), batch_size=64, shuffle=rows is train)
        for rows in (train, val, test)
    )


def main() -> None:
    """Fit, test, show, load back."""
    lightning.seed_everything(42, verbose=False)
    train, val, test = loaders()
    tracking = overt.TrackingCallback(
        experiment=EXPERIMENT,
        run_name="cnn",
        tags={"dataset": "digits"},
        params={"test_size": 0.2},
        log_model="best",
        log_every_n_steps=5,
        class_names=[str(digit) for digit in range(10)],
    )
    best = ModelCheckpoint(monitor="val_loss", save_top_k=1)
    trainer = lightning.Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        callbacks=[tracking, best, EarlyStopping("val_loss", patience=4)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = DigitsClassifier()
    trainer.fit(model, train, val)
    trainer.test(model, test, ckpt_path="best", verbose=False)

    run = tracking.run_
    show_table(run)
    check_loaded_model(run, model, test)
    print(f"\nRun id:    {run.id} in experiment {EXPERIMENT!r} of {run.spec.store}")
    print(f"Its model: {run.model_uri}, loaded back with equal predictions")
    print("\nTo look at the run:  overt ui")


def show_table(run: overt.Run) -> None:
    """Print one line for validation and one for test."""
    columns = ["accuracy", "f1_score", "precision", "recall", "roc_auc", "log_loss"]
    print("\n" + " " * 8 + "".join(f"{column:>12}" for column in columns))
    for name, prefix in (("val", "val_"), ("test", "")):
        print(f"{name:<8}" + "".join(f"{run.metrics[prefix + column]:>12.4f}" for column in columns))


def check_loaded_model(run: overt.Run, model: DigitsClassifier, test: DataLoader) -> None:
    """Load the model from MLflow as any colleague would, without overt, and compare its predictions."""
    import mlflow

    mlflow.set_tracking_uri(run.spec.store)
    loaded = mlflow.pytorch.load_model(run.model_uri)
    images = test.dataset.tensors[0]
    with torch.no_grad():
        if not torch.equal(loaded.eval()(images), model.eval()(images)):  # test() has left the best weights in `model`
            raise SystemExit("mlflow.pytorch.load_model: the loaded model predicts something else")


if __name__ == "__main__":
    main()
