"""Train as a generator: each epoch that the function yields is recorded, and the caller may stop whenever it likes.

Needs scikit-learn for the data.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from overt import track_training


@track_training(experiment="digits", run_name="digits-generator")
def train(images, labels, lr, epochs):
    """Yield the numbers of each epoch; with whole batches there are no loaders to observe."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    n_train = len(images) * 4 // 5
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images[:n_train]), labels[:n_train])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            right = model(images[n_train:]).argmax(1) == labels[n_train:]
        yield {"train_loss": loss.item(), "val_accuracy": right.float().mean().item()}


def main() -> None:
    """Train until the validation accuracy is good enough."""
    torch.manual_seed(42)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    for epoch, row in enumerate(train(images, torch.tensor(digits.target), lr=0.01, epochs=200)):
        if row["val_accuracy"] >= 0.9:
            print(f"\nepoch {epoch}: good enough, stopped early")
            break

    run = train.run_
    for name in ("train_loss", "val_accuracy"):
        print(f"{name:<20}{run.metrics[name]:>14.4g}")
    print(f"\nRun id:    {run.id} in experiment {run.experiment!r} of {run.spec.store}, {run.status}")
    print("\nTo look at the run:  overt ui")


if __name__ == "__main__":
    main()
