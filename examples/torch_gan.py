"""Train a small GAN on scikit-learn's digits: two optimizers share one criterion, and each loss finds its optimizer.

The loop knows nothing of overt. A loss belongs to the optimizer that steps after ``backward`` has gone through it, so
``train_loss_opt_d`` and ``train_loss_opt_g`` are two series, and no average of both. Needs scikit-learn for the data.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from overt import load_model, track_training

EXPERIMENT = "digits"
NOISE = 16


@track_training(experiment=EXPERIMENT, run_name="digits-gan", tags={"dataset": "digits"})
def train(generator, discriminator, loader, criterion, opt_g, opt_d, epochs):
    """A GAN's training loop as in any tutorial."""
    for _ in range(epochs):
        for (real,) in loader:
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            fake = generator(torch.randn(len(real), NOISE))

            opt_d.zero_grad()
            loss_real = criterion(discriminator(real), ones)
            loss_fake = criterion(discriminator(fake.detach()), zeros)
            (loss_real + loss_fake).backward()
            opt_d.step()

            opt_g.zero_grad()
            loss_g = criterion(discriminator(fake), ones)
            loss_g.backward()
            opt_g.step()


def main() -> None:
    """Load the data, train, show what was recorded, load the generator back."""
    torch.manual_seed(42)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    generator = nn.Sequential(nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(64, 1))
    train(
        generator,
        discriminator,
        DataLoader(TensorDataset(images), batch_size=128, shuffle=True, drop_last=True),
        nn.BCEWithLogitsLoss(),
        torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999)),
        torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999)),
        epochs=15,
    )

    run = train.run_
    show(run)
    check_loaded_generator(run, generator)
    print(f"\nRun id:     {run.id} in experiment {EXPERIMENT!r} of {run.spec.store}")
    print(f"Its models: runs:/{run.id}/generator, loaded back with equal outputs, and runs:/{run.id}/discriminator")
    print("\nTo look at the run:  overt ui")


def show(run) -> None:
    """Print what the last epoch left, of each optimizer its own."""
    print()
    for name in "train_loss_opt_g train_loss_opt_d lr_opt_g lr_opt_d n_steps_opt_g n_steps_opt_d".split():
        print(f"{name:<20}{run.metrics[name]:>14.4g}")
    print(f"{'samples_per_second':<20}{run.metrics['samples_per_second']:>14.4g}")


def check_loaded_generator(run, generator) -> None:
    """Load the generator from the store that it was recorded in, and compare what it draws."""
    loaded = load_model(f"runs:/{run.id}/generator", allow_pickle=True).eval()
    noise = torch.randn(10, NOISE)
    with torch.no_grad():
        if not torch.equal(loaded(noise), generator.eval()(noise)):
            raise SystemExit("the loaded generator draws something else")


if __name__ == "__main__":
    main()
