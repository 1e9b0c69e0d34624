"""area_of_pairs(): scikit-learn's number, with ties and with classes that do not occur."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from overt.evaluation.classification import classify
from overt.evaluation.pairs import MAX_PAIRED_CLASSES, area_of_pairs

RANDOM = np.random.default_rng(0)


def scores(n_samples: int, n_classes: int) -> Any:
    drawn = RANDOM.integers(1, 6, (n_samples, n_classes)).astype(float)  # few values, so there are many ties
    return drawn / drawn.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("n_samples", "n_classes"), [(200, 3), (300, 7), (4, 3)])
def test_it_is_the_area_that_scikit_learn_computes(n_samples: int, n_classes: int) -> None:
    columns = scores(n_samples, n_classes)
    true = np.concatenate([np.arange(n_classes), RANDOM.integers(0, n_classes, n_samples - n_classes)])
    expected = roc_auc_score(true, columns, multi_class="ovo", average="weighted")
    assert area_of_pairs(true, columns) == pytest.approx(expected, rel=1e-12)


def test_a_class_that_does_not_occur_has_no_pairs() -> None:
    columns, true = scores(50, 4), RANDOM.integers(0, 2, 50) * 2
    expected = roc_auc_score(true, columns, multi_class="ovo", average="weighted", labels=np.arange(4))
    assert area_of_pairs(true, columns) == pytest.approx(expected, rel=1e-12)


def test_too_many_classes_are_left_out_and_said() -> None:
    n_classes = MAX_PAIRED_CLASSES + 1
    true = np.arange(n_classes)
    report = classify(true, true, scores=scores(n_classes, n_classes))
    assert "roc_auc_ovo" not in report
    assert f"roc_auc_ovo is left out: {n_classes} classes, and it is for up to {MAX_PAIRED_CLASSES}" in report.notes


def test_one_class_alone_makes_it_nan_and_is_said() -> None:
    report = classify([1, 1], [1, 1], scores=scores(2, 3), classes=[0, 1, 2])
    assert np.isnan(report["roc_auc_ovo"])
    assert "roc_auc_ovo is undefined: only one class in y_true" in report.notes
