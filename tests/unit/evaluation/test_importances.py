"""importances(): ranked by absolute value, all in the file, thirty in the figure."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from overt.errors import ConfigurationError
from overt.evaluation.importances import importances


def test_the_file_holds_every_feature_and_the_figure_the_first_thirty() -> None:
    values = np.random.default_rng(0).normal(size=50)
    content, figure = importances([f"f{i}" for i in range(50)], values)
    header, *rows = csv.reader(io.StringIO(content.decode()))
    assert header == ["feature", "importance"]
    assert len(rows) == 50
    ranked = [float(value) for _, value in rows]
    assert sorted(ranked) == sorted(values)
    assert np.abs(ranked).tolist() == sorted(np.abs(values), reverse=True)
    assert figure.data["values"] == ranked[:30]
    assert figure.data["n_features"] == 50
    assert {f"f{values.tolist().index(value)}": value for value in ranked} == {name: float(v) for name, v in rows}


def test_nan_comes_last_and_is_not_drawn() -> None:
    content, figure = importances(["a", "b", "b"], [np.nan, 1.0, -2.0])
    assert content.decode().splitlines()[1:] == ["b,-2.0", "b,1.0", "a,"]
    assert figure.data["names"] == ["b", "b"]


def test_every_value_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match="2 values"):
        importances(["a"], [1.0, 2.0])
