"""The copy of the user's estimator that is fitted: it behaves on every fit as the user's own object would have.

scikit-learn's ``clone`` starts afresh each time; a bare estimator does not where it holds a ``RandomState`` (which
advances from fit to fit) or has ``warm_start=True`` (which continues).
"""

from __future__ import annotations

from typing import Any

from numpy.random import Generator, RandomState
from sklearn.base import clone


def copy_for_fit(estimator: Any, fitted: Any = None) -> Any:
    """An unfitted copy of ``estimator``, or ``fitted`` itself where its fit is to be continued.

    Parameters
    ----------
    estimator : estimator
        The user's, unfitted.
    fitted : estimator, optional
        What an earlier call returned and was fitted since.
    """
    params = estimator.get_params(deep=True)
    if fitted is not None and type(fitted) is type(estimator) and is_warm(params):
        fitted.set_params(**{name: value for name, value in params.items() if not _holds_estimators(value)})
        return fitted
    copy = clone(estimator)
    shared = {name: value for name, value in params.items() if isinstance(value, RandomState | Generator)}
    return copy.set_params(**shared) if shared else copy


def is_warm(params: dict[str, Any]) -> bool:
    """Whether any estimator among deep ``params`` continues its last fit."""
    return any(value is True and name.rpartition("__")[2] == "warm_start" for name, value in params.items())


def _holds_estimators(value: Any) -> bool:
    """Whether ``value`` is an estimator, or a list of named ones such as a Pipeline's steps."""
    if isinstance(value, list | tuple):
        return any(_holds_estimators(item) for item in value)
    return hasattr(value, "get_params") and not isinstance(value, type)
