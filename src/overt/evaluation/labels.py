"""Labels of any type become small integers once, before any metric sees them.

Strings, objects and booleans would otherwise be sorted again by every metric; as codes they cost nothing, and
a label that the estimator has never seen is simply one more code. Codes follow the order of ``classes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overt.errors import ConfigurationError
from overt.evaluation.arrays import check_names, check_same_length, to_array
from overt.evaluation.notes import Notes, named

Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CodedLabels:
    """True and predicted labels as positions in one list of labels.

    Attributes
    ----------
    true, predicted : ndarray of shape (n_samples,)
        Positions in ``labels``.
    labels : tuple
        The estimator's classes in their order, then labels that it does not know.
    names : tuple of str
        What to call each label, all different.
    n_classes : int
        How many of the labels the estimator knows: scores have a column for each of these.
    """

    true: Codes
    predicted: Codes
    labels: tuple[Any, ...]
    names: tuple[str, ...]
    n_classes: int

    def position(self, label: Any) -> int:
        """Position of one label among ``labels``, or a ConfigurationError that lists them."""
        try:
            return self.labels.index(label)
        except ValueError:
            known = named(self.names)
            raise ConfigurationError(f"`pos_label` must be one of the labels {known} (got {label!r})") from None


def encode_labels(
    y_true: Any, y_pred: Any, *, classes: Any, class_names: Sequence[str] | None, notes: Notes
) -> CodedLabels:
    """Code the labels of a single-label problem.

    Raises
    ------
    ConfigurationError
        For arrays that are empty, of different length, not one-dimensional, hold a missing or continuous value,
        and for ``class_names`` of the wrong length.
    """
    true = _to_list(y_true, name="y_true")
    predicted = _to_list(y_pred, name="y_pred")
    check_same_length(y_true=np.empty(len(true)), y_pred=np.empty(len(predicted)))
    try:
        found = _ordered(dict.fromkeys(true) | dict.fromkeys(predicted))
    except TypeError as error:
        raise ConfigurationError(f"labels must be numbers, strings or other hashable values ({error})") from error
    known = _with_other_side(found) if classes is None else to_array(classes, name="classes").tolist()
    seen = frozenset(known)
    unseen = [label for label in found if label not in seen]
    if unseen:
        notes.add(f"labels outside `classes`, unknown to the estimator: {named([str(label) for label in unseen])}")
    labels = (*known, *unseen)
    code = {label: position for position, label in enumerate(labels)}
    return CodedLabels(
        true=_encode(true, code),
        predicted=_encode(predicted, code),
        labels=labels,
        names=_names(known, unseen, class_names),
        n_classes=len(known),
    )


def _to_list(values: Any, *, name: str) -> list[Any]:
    array = to_array(values, name=name)
    if array.ndim != 1:
        raise ConfigurationError(f"`{name}` must hold one label for each sample (got shape {array.shape})")
    labels: list[Any] = array.tolist()
    return labels


def _ordered(labels: Iterable[Any]) -> list[Any]:
    """Return the labels sorted; those of mixed types, which Python does not order, by type and then by text."""
    found = list(labels)
    for label in found:
        if _is_missing(label):
            raise ConfigurationError("labels must not be missing (got None or NaN); drop those samples first")
        if isinstance(label, float) and not label.is_integer():
            raise ConfigurationError(f"labels must be classes (got the continuous value {label}); use `regress`")
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=lambda label: (type(label).__name__, str(label)))


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA refuses to be a truth value
        return True


def _with_other_side(found: list[Any]) -> list[Any]:
    """Give a lone label of the usual binary pairs its counterpart, so that all-negative data has a positive class."""
    if len(found) == 1:
        for pair in ([0, 1], [-1, 1]):
            if found[0] in pair:
                return [type(found[0])(label) for label in pair]
    return found


def _encode(values: list[Any], code: dict[Any, int]) -> Codes:
    return np.fromiter(map(code.__getitem__, values), dtype=np.intp, count=len(values))


def _names(known: list[Any], unseen: list[Any], class_names: Sequence[str] | None) -> tuple[str, ...]:
    if class_names is None:
        names = [str(label) for label in known]
    else:
        names = list(check_names(class_names, argument="class_names", expected=len(known), of="classes"))
    names += [str(label) for label in unseen]
    if len(set(names)) < len(names):  # 1 beside "1", or a class name that an unknown label bears as well
        labels = (*known, *unseen)
        names = [name if names.count(name) == 1 else f"{name} ({labels[i]!r})" for i, name in enumerate(names)]
    return tuple(names)
