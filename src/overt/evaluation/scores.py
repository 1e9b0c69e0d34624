"""The many shapes in which estimators hand out scores become one: a column for each class or label.

``predict_proba`` and ``decision_function`` differ between estimators: one column for two classes, a column for each
class, one array for each label. What follows here knows only columns in which higher means more likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from overt.errors import ConfigurationError
from overt.evaluation.arrays import FloatArray, to_numbers
from overt.evaluation.notes import Notes

# float32 softmax exceeds 1 by about 1e-7; anything beyond this is no probability.
_ROUNDING = 1e-5


def class_columns(
    scores: Any, *, n_samples: int, n_classes: int, are_probabilities: bool, notes: Notes
) -> FloatArray | None:
    """Return scores of shape (n_samples, n_classes), or None and a note where the columns are not the classes.

    One column for two classes is the score of the second; the first gets its complement.
    """
    numbers = to_numbers(scores, name="scores")
    if numbers.ndim == 1 and n_classes <= 2:
        first = 1 - numbers if are_probabilities else -numbers
        numbers = np.column_stack((first, numbers)) if n_classes == 2 else numbers[:, np.newaxis]
    return _checked(numbers, (n_samples, n_classes), are_probabilities=are_probabilities, notes=notes)


def label_columns(
    scores: Any, *, n_samples: int, n_labels: int, classes: Any, are_probabilities: bool, notes: Notes
) -> FloatArray | None:
    """Return multilabel scores of shape (n_samples, n_labels), or None and a note.

    Parameters
    ----------
    scores : array of shape (n_samples, n_labels) or list of arrays of shape (n_samples, 2)
        A random forest gives the list; a label that it saw in one state only has a single column there.
    classes : list of arrays or None
        The estimator's ``classes_``, which tells the state that such a single column speaks of.
    """
    if isinstance(scores, list | tuple) and all(np.ndim(item) == 2 for item in scores):
        states = classes if isinstance(classes, list | tuple) and len(classes) == len(scores) else [None] * len(scores)
        scores = np.column_stack([_positive(np.asarray(item), of) for item, of in zip(scores, states, strict=True)])
    numbers = to_numbers(scores, name="scores")
    return _checked(numbers, (n_samples, n_labels), are_probabilities=are_probabilities, notes=notes)


def _positive(columns: FloatArray, states: Sequence[Any] | None) -> FloatArray:
    if columns.shape[1] == 1 and states is not None and len(states) == 1 and not states[0]:
        return 1 - columns[:, 0]
    positive: FloatArray = columns[:, -1]
    return positive


def _checked(
    numbers: FloatArray, shape: tuple[int, int], *, are_probabilities: bool, notes: Notes
) -> FloatArray | None:
    if numbers.shape[0] != shape[0]:
        raise ConfigurationError(f"`scores` must have a row for each of {shape[0]} samples (got {numbers.shape[0]})")
    if numbers.shape != shape:
        notes.add(
            f"no metric or curve could be computed from scores: {shape[1]} columns were expected, one for each class, "
            f"and the shape is {numbers.shape}"
        )
        return None
    if not np.isfinite(numbers).all():
        notes.add("no metric or curve could be computed from scores: they hold NaN or infinity")
        return None
    if not are_probabilities:
        return numbers
    if numbers.min() < -_ROUNDING or numbers.max() > 1 + _ROUNDING:
        raise ConfigurationError(
            "`scores` must be probabilities between 0 and 1 "
            f"(got {numbers.min():.6g} to {numbers.max():.6g}); for decision values pass scores_are_probabilities=False"
        )
    return np.clip(numbers, 0, 1)
