"""``@track_training`` keeps what every hook promises, as a function and as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from overt import track_training  # noqa: E402  - after the skip
from overt.testing import IntegrationContract  # noqa: E402


def parts() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1))
    return {
        "model": model,
        "data": torch.utils.data.DataLoader(data, 4),
        "criterion": torch.nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
    }


class TestFunction(IntegrationContract):
    patchable = ("torch",)
    counters = ("next_id",)  # torch numbers the hooks that it is given

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        @track_training(**keywords)
        def train(model: Any, data: Any, criterion: Any, optimizer: Any, epochs: int) -> None:
            for _ in range(epochs):
                for x, y in data:
                    optimizer.zero_grad()
                    criterion(model(x), y).backward()
                    during()
                    optimizer.step()

        train(**parts(), epochs=2)


class TestExplicit(IntegrationContract):
    patchable = ("torch",)
    counters = ("next_id",)  # torch numbers the hooks that it is given

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        @track_training(**keywords)
        def train(run: Any, model: Any, data: Any, criterion: Any, optimizer: Any, epochs: int) -> None:
            for _ in run.epochs(epochs, checkpoint=(model, optimizer)):
                for x, y in run.batches(data):
                    optimizer.zero_grad()
                    loss = criterion(model(x), y)
                    loss.backward()
                    during()
                    optimizer.step()
                    run.log_metric("loss", loss)

        train(None, **parts(), epochs=3)

    def train_in_two(self, folder: Path, **keywords: Any) -> None:
        batches = iter(range(100))

        def fail_once() -> None:
            if next(batches) == 3:  # the second of the second epoch
                raise ValueError("once")

        with pytest.raises(ValueError, match="once"):
            self.train(fail_once, **keywords)
        self.train(lambda: None, **keywords)


class TestGenerator(IntegrationContract):
    patchable = ("torch",)
    counters = ("next_id",)  # torch numbers the hooks that it is given

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        @track_training(**keywords)
        def train(model: Any, lr: float) -> Iterator[dict[str, float]]:
            for epoch in range(2):
                during()
                yield {"train_loss": 1.0 / (epoch + 1)}

        for _ in train(parts()["model"], lr=0.1):
            pass
