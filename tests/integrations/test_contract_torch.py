"""``@track_training`` keeps what every hook promises, as a function and as a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
