"""Say yourself what is recorded: a parameter named ``run`` receives the run.

``run.epochs`` says where an epoch ends, ``run.batches`` shows how far it has come (on a terminal or in a notebook), and
tensors given to ``run.log_metric`` stay on their device until the epoch's end. Needs scikit-learn for the data.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from overt import track_training

EPOCHS = 12


@track_training(experiment="digits", run_name="digits-explicit")
def train(model, train_loader, val_loader, optimizer, epochs, run=None):
    """Train with a penalty on the weights, which no observer of the loss could know of."""
    for epoch in run.epochs(epochs):
        model.train()
        for images, labels in run.batches(train_loader):
            optimizer.zero_grad()
            penalty = 1e-4 * sum(weight.abs().sum() for weight in model.parameters())
            objective = functional.cross_entropy(model(images), labels) + penalty
            objective.backward()
            optimizer.step()
            run.log_metric("objective_step", objective)
        model.eval()
        right = torch.zeros(())
        with torch.no_grad():
            for images, labels in run.batches(val_loader):
                right += (model(images).argmax(1) == labels).sum()
        run.log_metric("penalty", penalty, epoch=epoch)
        run.log_metric("val_accuracy", right / len(val_loader.dataset), epoch=epoch)


def main() -> None:
    """Load the data, train, show what was recorded."""
    torch.manual_seed(42)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    train(
        model=model,
        train_loader=DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True),
        val_loader=DataLoader(TensorDataset(images[1400:], labels[1400:]), batch_size=256),
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        epochs=EPOCHS,
    )  # run is filled in

    run = train.run_
    print()
    for name in ("objective_step", "penalty", "val_accuracy", "epoch_seconds"):
        print(f"{name:<20}{run.metrics[name]:>14.4g}")
    print(f"\nRun id:    {run.id} in experiment {run.experiment!r} of {run.spec.store}, {run.status}")
    print(f"Its model: {run.model_uri}")
    print("\nTo look at the run:  overt ui")


if __name__ == "__main__":
    main()
