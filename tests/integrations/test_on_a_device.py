"""On an accelerator nothing waits for it between the ends of epochs: CUDA itself raises where something does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

import overt
from overt.integrations.torch.decorator import track_training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@contextmanager
def waiting_raises() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_tells_who_waits() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), waiting_raises():
        torch.ones(1, device="cuda").item()


def test_a_metric_on_the_device_is_recorded_without_waiting_for_it() -> None:
    with overt.testing.captured_runs() as runs, overt.start_run() as run:
        losses = torch.arange(100.0, device="cuda")
        with waiting_raises():
            for step in range(100):
                run.log_metric("loss", losses[step])
        run.flush()
    assert [point.value for point in runs[0].history] == list(range(100))


def test_no_step_of_an_observed_loop_waits() -> None:
    def train(model: Any, data: Any, criterion: Any, optimizer: Any) -> None:
        for _ in range(2):
            for number, (x, y) in enumerate(data):
                with waiting_raises() if number else nullcontext():  # the first one ends the epoch before
                    optimizer.zero_grad()
                    criterion(model(x), y).backward()
                    optimizer.step()

    model = torch.nn.Linear(4, 3).cuda()
    data = [(torch.randn(8, 4, device="cuda"), torch.zeros(8, dtype=torch.long, device="cuda")) for _ in range(6)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with overt.testing.captured_runs() as runs:
        track_training(gradient_norm=True, observe=["data"])(train)(model, data, torch.nn.CrossEntropyLoss(), optimizer)
    assert len([point for point in runs[0].history if point.name == "train_loss_step"]) == 12
