"""Every feature is in the file, the weightiest are in the figure; both in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from overt.errors import ConfigurationError
from overt.evaluation.arrays import to_numbers
from overt.evaluation.report import FigureSpec, to_csv

MAX_DRAWN = 30


def importances(names: Sequence[str], values: Any) -> tuple[bytes, FigureSpec]:
    """Rank features by how much they matter.

    Parameters
    ----------
    names : sequence of str
        Feature names.
    values : array-like of shape (n_features,)
        Importance or coefficient of each. Signs are kept; the order is that of the absolute value, NaN last.

    Returns
    -------
    csv : bytes
        ``feature_importances.csv`` with columns ``feature`` and ``importance``, of all features.
    figure : FigureSpec
        The first 30 of them.

    Raises
    ------
    ConfigurationError
        When there is not one name for each value.

    Examples
    --------
    >>> from overt.evaluation.importances import importances
    >>> importances(["age", "height"], [0.25, -0.75])[0].decode().splitlines()
    ['feature,importance', 'height,-0.75', 'age,0.25']
    """
    numbers = to_numbers(values, name="values").ravel()
    features = [str(name) for name in names]
    if len(features) != len(numbers):
        raise ConfigurationError(
            f"`names` must name each of {len(numbers)} values in order (got {len(features)} names)"
        )
    order = np.argsort(-np.abs(numbers), kind="stable").tolist()
    ranked = [(features[position], float(numbers[position])) for position in order]
    drawn = [(name, value) for name, value in ranked if np.isfinite(value)][:MAX_DRAWN]
    data = {
        "names": [name for name, _ in drawn],
        "values": [value for _, value in drawn],
        "n_features": len(ranked),
    }
    csv = to_csv([("feature", "importance"), *ranked])
    return csv, FigureSpec("feature_importances.png", "feature_importances", data)
