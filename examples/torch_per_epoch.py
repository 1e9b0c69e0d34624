"""One call per epoch: ``train()`` and ``test()`` called in a loop, as many scripts have it, are one run.

The loss is no argument of either: it is seen in ``torch.nn.functional``, in every training step (``every_n_steps=1``;
every tenth by default) and in the whole evaluation. Needs scikit-learn for the data.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from overt import track_training


@track_training(experiment="digits", run_name="digits-per-epoch", every_n_steps=1)
def train(args, model, device, train_loader, optimizer, epoch):
    """One epoch."""
    model.train()
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = functional.nll_loss(model(data.to(device)), target.to(device))
        loss.backward()
        optimizer.step()


@track_training
def test(model, device, test_loader):
    """One evaluation."""
    model.eval()
    with torch.no_grad():
        for data, target in test_loader:
            functional.nll_loss(model(data.to(device)), target.to(device), reduction="sum")


def main() -> None:
    """The script's own loop."""
    args = argparse.Namespace(epochs=10, lr=0.5, batch_size=64)
    torch.manual_seed(42)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train_loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), args.batch_size, shuffle=True)
    test_loader = DataLoader(TensorDataset(images[1400:], labels[1400:]), 1000)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.LogSoftmax(dim=1))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=args.lr)
    for epoch in range(1, args.epochs + 1):
        train(args, model, "cpu", train_loader, optimizer, epoch)
        test(model, "cpu", test_loader)

    run = train.run_
    run.finish()  # the script's end would do it as well; now report and model are recorded
    print()
    for name in ("train_loss", "val_loss", "val_accuracy", "val_f1_macro", "lr"):
        print(f"{name:<20}{run.metrics[name]:>14.4g}")
    print(f"\nRun id:    {run.id} in experiment {run.experiment!r} of {run.spec.store}, {run.status}")
    print(f"Its model: {run.model_uri}")
    print("\nTo look at the run:  overt ui")


if __name__ == "__main__":
    main()
