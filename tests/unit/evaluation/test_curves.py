"""A thinned curve keeps its shape, and the areas come from the whole of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from overt.evaluation.classification import classify
from overt.evaluation.curves import MAX_POINTS, thin


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5_000), st.integers(3, 1_000))
def test_a_point_left_out_lies_within_one_step_of_the_kept_ones(seed: int, n_points: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.random(n_points)), rng.random(n_points) ** 4
    kept = thin(x, y, limit=limit)
    assert len(kept) <= limit
    assert kept[0] == 0
    assert kept[-1] == n_points - 1
    assert (np.diff(kept) > 0).all()
    walked = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    step = walked[-1] / (limit - 1)
    before = kept[np.searchsorted(kept, np.arange(n_points), side="right") - 1]
    assert (walked - walked[before] <= step * (1 + 1e-9)).all()


def test_a_short_curve_is_kept_whole() -> None:
    assert thin(np.arange(10.0), np.arange(10.0), limit=10).tolist() == list(range(10))


def test_a_curve_without_length_is_thinned_to_its_ends() -> None:
    assert thin(np.zeros(50), np.zeros(50), limit=5).tolist() == [0, 49]


def test_a_long_curve_is_thinned_with_a_note_and_its_area_is_exact() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 20_000)
    score = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    report = classify(y, score > 0.5, scores=score)
    (curve,) = report.curves["roc"]["curves"]
    assert 500 < len(curve["true_positive_rate"]) <= MAX_POINTS
    assert any("roc" in note and "thinned" in note for note in report.notes)
    assert report["roc_auc"] == curve["auc"] == pytest.approx(roc_auc_score(y, score), rel=1e-12)
    assert report["average_precision"] == pytest.approx(average_precision_score(y, score), rel=1e-12)
    x, whole, _ = roc_curve(y, score)
    drawn = np.interp(x, curve["false_positive_rate"], curve["true_positive_rate"])
    assert np.abs(drawn - whole).max() < 0.005
