"""What can only be the user's mistake is said in the first line of ``fit``, before anything is started or fitted.

Each message names what was expected and what came. The keywords that every hook takes (``experiment``, ``run``, …) are
checked where all hooks share them, in :mod:`overt.tracker`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from numbers import Integral
from reprlib import repr as shown
from typing import Any

import numpy
from sklearn.base import is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, get_tags

from overt.errors import ConfigurationError
from overt.integrations.sklearn.crossval import named_scorers
from overt.integrations.sklearn.histories import can_be_staged
from overt.integrations.sklearn.search import may_search
from overt.journal.codec import is_safe_path
from overt.naming import check_model_name

_RESERVED = re.compile(r"(cv|training)(_.*)?|eval_\d+", re.DOTALL)


def check_is_estimator(estimator: object) -> None:
    """Refuse what has no fit, a class in the place of an object, and what could be fitted but not be asked."""
    if not hasattr(estimator, "fit") or isinstance(estimator, type):
        raise ConfigurationError(f"`estimator` must be an estimator object with a fit method (got {estimator!r}).")
    try:
        get_tags(estimator)
    except AttributeError as error:
        raise ConfigurationError(
            f"`estimator` must tell scikit-learn what kind it is, as what derives from sklearn.base.BaseEstimator does "
            f"(got a {type(estimator).__name__}): {error}"
        ) from error


def check_is_flag(name: str, value: object) -> None:
    """Refuse what only looks true: a text such as ``"no"``."""
    if not isinstance(value, bool | numpy.bool_):
        raise ConfigurationError(f"`{name}` must be True or False (got {shown(value)}).")


def check_depth(depth: object) -> None:
    """Refuse what is no number of levels."""
    if depth is not None and (not isinstance(depth, Integral) or isinstance(depth, bool) or depth < 0):
        raise ConfigurationError(
            f"`max_propagation_depth` must be a whole number from 0 up, or None for all (got {shown(depth)})."
        )


def check_eval_set(estimator: Any, eval_set: Any) -> None:
    """Refuse what is no pair of data, and data for an estimator that has no stages to score it after."""
    if eval_set is None:
        return
    parts = eval_set if isinstance(eval_set, tuple | list) else ()
    if len(parts) != 2 or any(part is None or isinstance(part, tuple) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise ConfigurationError(
            f"`eval_set` must be a pair of held-out data, (X_val, y_val) (got {shown(type(eval_set).__name__)}"
            f"{' of ' if kinds else ''}{kinds})."
        )
    try:
        check_consistent_length(*parts)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`eval_set` must be a pair of held-out data, (X_val, y_val), with a target for each row: {error}"
        ) from error
    if not can_be_staged(estimator):
        raise ConfigurationError(
            f"`eval_set` is scored stage by stage, which needs staged_predict (got a {type(estimator).__name__}, which "
            f'has none); score it after the fit: evaluate(X_val, y_val, name="val").'
        )


def check_child_runs(estimator: Any, child_runs: object) -> None:
    """Refuse what is no number of candidates, and candidates of what has none."""
    is_count = isinstance(child_runs, Integral) and not isinstance(child_runs, bool) and int(child_runs) >= 0
    if not is_count and not (isinstance(child_runs, str) and child_runs == "all"):
        raise ConfigurationError(
            f"`child_runs` must be how many of a search's candidates become runs of their own, a number from 0 up or "
            f"'all' (got {shown(child_runs)})."
        )
    if child_runs != 0 and not may_search(estimator):
        raise ConfigurationError(
            f"`child_runs` is for searches such as GridSearchCV (got a {type(estimator).__name__}); leave it out."
        )


def check_register_as(register_as: object, *, log_model: bool) -> None:
    """Refuse what is no name, and a name where there will be no model."""
    if register_as is None:
        return
    check_model_name(register_as, argument="register_as")
    if not log_model:
        raise ConfigurationError(
            f"`register_as` needs log_model=True, or there is no model to register (got {register_as!r})."
        )


def check_cross_validation(estimator: Any, *, cv: Any, scoring: Any, n_jobs: Any) -> None:
    """Refuse what ``cross_validate`` would refuse after the fit."""
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or isinstance(n_jobs, bool) or n_jobs == 0):
        raise ConfigurationError(
            f"`n_jobs` must be a number of processes, -1 for one on each core, or None (got {shown(n_jobs)})."
        )
    if cv is not None:
        _check_splits(estimator, cv)
    if cv is not None or scoring is not None:
        _check_scoring(estimator, scoring)


def check_class_names(class_names: Any) -> None:
    """Refuse what does not name classes in an order."""
    if class_names is None:
        return
    is_ordered = isinstance(class_names, Collection) and not isinstance(class_names, str | bytes | Mapping | Set)
    if not is_ordered or getattr(class_names, "ndim", 1) != 1 or not all(isinstance(n, str) for n in class_names):
        raise ConfigurationError(
            f"`class_names` must be a list of texts, one for each class in the order of the sorted labels "
            f"(got {shown(class_names)})."
        )


def check_labels(estimator: Any, y: Any, *, class_names: Sequence[str] | None, pos_label: Any) -> None:
    """Compare ``class_names`` and ``pos_label`` with the labels before hours are spent on the fit."""
    if (class_names is None and pos_label is None) or not is_classifier(estimator):
        return
    try:
        labels = numpy.unique(numpy.asarray(y)).tolist() if numpy.ndim(y) == 1 else []
    except (TypeError, ValueError):  # labels that do not sort: scikit-learn says what is wrong with them
        return
    fewest = len(labels) - (-1 in labels)  # -1 is no class of a semi-supervised estimator
    if labels and class_names is not None and not fewest <= len(class_names) <= len(labels):
        raise ConfigurationError(
            f"`class_names` must name each of the {len(labels)} classes in order (got {len(class_names)} "
            f"names); pass {len(labels)} names or leave it out."
        )
    if labels and pos_label is not None and pos_label not in labels:
        raise ConfigurationError(f"`pos_label` must be one of the labels in y (got {pos_label!r}).")


LONGEST_SET_NAME = 200
"""Bytes of an evaluated set's name: file systems take 255 for a file's name, and ours come behind it."""


def check_set_name(name: object) -> None:
    """Refuse the name of an evaluated set that cannot stand before metrics and files, or that others stand under."""
    if name is None:
        return
    is_text = isinstance(name, str) and bool(name.strip()) and len(name.encode("utf-8", "replace")) <= LONGEST_SET_NAME
    if not isinstance(name, str) or not is_text or not is_safe_path(name):
        raise ConfigurationError(
            f"`name` must be a text that metrics and files can begin with, such as 'val', of at most "
            f"{LONGEST_SET_NAME} bytes (got {shown(name)}); leave it out for plain names."
        )
    if _RESERVED.fullmatch(name):
        raise ConfigurationError(
            f"`name` must not be one that overt's own scores have: cv_… are those of the folds, training_… those of "
            f"the training set, eval_2_… those of an unnamed set (got {name!r}); choose another, such as 'val'."
        )


def _check_splits(estimator: Any, cv: Any) -> None:
    if isinstance(cv, Iterator):  # to look into one is to use it up
        return
    try:
        if isinstance(cv, type):
            raise TypeError(f"{cv.__name__} is a class, pass {cv.__name__}(…)")
        check_cv(cv, classifier=is_classifier(estimator))
        if not hasattr(cv, "split") and isinstance(cv, Iterable):
            _check_pairs(list(cv))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`cv` must be a number of folds from 2 up, a splitter, or an iterable of (train, test) pairs of row "
            f"numbers (got {shown(cv)}): {error}"
        ) from error


def _check_pairs(splits: Sequence[Any]) -> None:
    if not splits:
        raise ValueError("there is no split in it")
    if any(len(split) != 2 for split in splits):
        raise ValueError("not each split in it is a pair")


def _check_scoring(estimator: Any, scoring: Any) -> None:
    try:
        named_scorers(estimator, scoring)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`scoring` must be the name of a scorer, a callable, or a list or dict of these (got {shown(scoring)}): "
            f"{error}"
        ) from error
