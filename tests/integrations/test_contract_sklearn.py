"""TrackedEstimator keeps what every hook promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from overt import TrackedEstimator
from overt.testing import IntegrationContract

X, y = load_iris(return_X_y=True)


class Disturbed(GaussianNB):
    """Calls back in the midst of its fit."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.during = during

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Disturbed:
        self.during()
        return super().fit(X, y, sample_weight)


class TestTrackedEstimator(IntegrationContract):
    patchable = ("sklearn",)

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        TrackedEstimator(Disturbed(during), **keywords).fit(X, y)
