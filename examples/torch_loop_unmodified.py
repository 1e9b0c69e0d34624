"""Train a small network on scikit-learn's digits in a plain PyTorch loop, recorded by one decorator.

The loop knows nothing of overt: it logs nothing and returns nothing. Losses, accuracy, learning rate, throughput, the
confusion matrix and the model come from what it is given. Needs scikit-learn for the data.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from overt import track_training

EXPERIMENT = "digits"


@track_training(experiment=EXPERIMENT, run_name="digits-mlp", tags={"dataset": "digits"})
def train(model, train_loader, val_loader, criterion, optimizer, scheduler, epochs):
    """A training loop as in any tutorial."""
    for _ in range(epochs):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            for images, labels in val_loader:
                criterion(model(images), labels)


def main() -> None:
    """Load the data, train, show what was recorded, load the model back."""
    torch.manual_seed(42)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    X_train, X_val, y_train, y_val = train_test_split(
        images, labels, test_size=0.2, random_state=42, stratify=digits.target
    )
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    train(
        model,
        DataLoader(TensorDataset(X_train, y_train), batch_size=64, shuffle=True),
        DataLoader(TensorDataset(X_val, y_val), batch_size=256),
        nn.CrossEntropyLoss(),
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, step_size=8, gamma=0.5),
        epochs=20,
    )

    run = train.run_
    show(run)
    check_loaded_model(run, model, X_val)
    print(f"\nRun id:    {run.id} in experiment {EXPERIMENT!r} of {run.spec.store}")
    print(f"Its model: {run.model_uri}, loaded back with equal outputs")
    print("\nTo look at the run:  overt ui")


def show(run) -> None:
    """Print what the last epoch left."""
    print()
    for name in "train_loss val_loss val_accuracy val_f1_macro val_roc_auc lr n_steps samples_per_second".split():
        print(f"{name:<20}{run.metrics[name]:>14.4g}")


def check_loaded_model(run, model, X_val) -> None:
    """Load the model from MLflow as any colleague would, without overt, and compare its outputs."""
    import mlflow

    mlflow.set_tracking_uri(run.spec.store)
    loaded = mlflow.pytorch.load_model(run.model_uri).eval()
    with torch.no_grad():
        if not torch.equal(loaded(X_val), model.eval()(X_val)):
            raise SystemExit("the loaded model gives something else")


if __name__ == "__main__":
    main()
