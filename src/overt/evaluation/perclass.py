"""Precision, recall and F1 are asked of scikit-learn once, class by class; every average is taken from those.

``classification_report`` asks four times for the same numbers. The tests hold the averages here equal to its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from overt.evaluation.arrays import FloatArray

Row = dict[str, float]

_ENTRIES = ("precision", "recall", "f1-score", "support")
_AVERAGES = frozenset({"accuracy", "micro avg", "macro avg", "weighted avg", "samples avg"})


@dataclass(frozen=True, slots=True)
class PerClass:
    """Precision, recall, F1 and support, in arrays with one entry for each class or label."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: FloatArray

    @classmethod
    def measure(cls, true: Any, predicted: Any, *, labels: Any, weight: FloatArray | None) -> PerClass:
        """Ask scikit-learn; what is undefined counts as 0."""
        return cls(
            *precision_recall_fscore_support(true, predicted, labels=labels, sample_weight=weight, zero_division=0)
        )

    def only(self, chosen: NDArray[Any]) -> PerClass:
        """Return the entries of some classes."""
        return PerClass(self.precision[chosen], self.recall[chosen], self.f1[chosen], self.support[chosen])

    def macro(self) -> Row:
        """Plain mean over classes."""
        return self._row(np.mean(self.precision), np.mean(self.recall), np.mean(self.f1))

    def weighted(self) -> Row:
        """Mean over classes weighted by support; 0 where nothing has any."""
        if not self.support.sum():
            return self._row(0, 0, 0)
        columns = (self.precision, self.recall, self.f1)
        return self._row(*(np.average(column, weights=self.support) for column in columns))

    def rows(self, names: Sequence[str]) -> dict[str, Row]:
        """One row for each class, as in ``classification_report(output_dict=True)``.

        A class whose name is that of an average is quoted, since it would replace the average.
        """
        values = zip(self.precision, self.recall, self.f1, self.support, strict=True)
        return {
            repr(name) if name in _AVERAGES else name: dict(zip(_ENTRIES, map(float, row), strict=True))
            for name, row in zip(names, values, strict=True)
        }

    def _row(self, *means: Any) -> Row:
        return dict(zip(_ENTRIES, map(float, (*means, self.support.sum())), strict=True))


def average_row(true: Any, predicted: Any, *, average: str, per_class: PerClass, weight: FloatArray | None) -> Row:
    """Return the ``"micro"`` or ``"samples"`` average of a multilabel problem, which no class by itself can tell."""
    means = precision_recall_fscore_support(true, predicted, average=average, sample_weight=weight, zero_division=0)
    return dict(zip(_ENTRIES, map(float, (*means[:3], per_class.support.sum())), strict=True))
