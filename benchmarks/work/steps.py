"""A training step of a small network, of a size that takes about as long as it is told."""

import time
from collections.abc import Callable

import torch


def make_step(width: int, rows: int) -> Callable[[], float]:
    """One step of training an MLP of this width on so many rows; returns the loss as a float."""
    X, y = torch.randn(rows, 64), torch.randint(0, 4, (rows,))
    model = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(X), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def seconds_per_step(step: Callable[[], float], log: Callable[[float], None], count: int) -> float:
    """Mean time of a step that hands its loss to ``log``."""
    began = time.perf_counter()
    for _ in range(count):
        log(step())
    return (time.perf_counter() - began) / count


def ignore(loss: float) -> None:
    """The bare loop."""


def step_near(target_s: float) -> Callable[[], float]:
    """The size whose step comes nearest to the target."""
    timed = []
    for size in ((16, 16), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (256, 128), (384, 128)):
        step = make_step(*size)
        seconds_per_step(step, ignore, 200)
        timed.append((abs(seconds_per_step(step, ignore, 500) - target_s), size))
    return make_step(*min(timed)[1])
