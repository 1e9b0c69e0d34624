"""TrackedEstimator and SklearnTrackingCallback keep what every hook promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.fixes import parse_version

from overt import TrackedEstimator
from overt.errors import MissingExtra
from overt.stores.memory import MemoryRun
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


HAS_CALLBACKS = parse_version(sklearn.__version__) >= parse_version("1.9")


class Disturbing:
    """Calls back in the midst of a fit, as a callback of scikit-learn's."""

    def __init__(self, during: Callable[[], None]) -> None:
        self.during = during

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing yet."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing more."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if context.task_name == "fit":
            self.during()

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Nothing here."""


@pytest.mark.skipif(not HAS_CALLBACKS, reason="scikit-learn has callbacks from 1.9 on")
class TestSklearnTrackingCallback(IntegrationContract):
    patchable = ("sklearn",)

    def train(self, during: Callable[[], None], **keywords: Any) -> None:
        from overt import SklearnTrackingCallback

        model = LogisticRegression(max_iter=1_000)
        model.set_callbacks(SklearnTrackingCallback(**keywords), Disturbing(during)).fit(X, y)

    def test_a_training_is_one_run_with_params_metrics_and_a_model(self, runs: list[MemoryRun]) -> None:
        """But for the model, which is for TrackedEstimator to save."""
        self.train(lambda: None)
        (run,) = runs
        assert (run.status, run.models) == ("FINISHED", {})
        assert run.params
        assert run.metrics


@pytest.mark.skipif(HAS_CALLBACKS, reason="scikit-learn has callbacks here")
def test_without_callbacks_in_scikit_learn_the_callback_says_what_to_do() -> None:
    with pytest.raises(MissingExtra, match=r"scikit-learn 1\.9 or newer.*TrackedEstimator"):
        from overt import SklearnTrackingCallback  # noqa: F401
