"""The copy of the user's estimator that is fitted: it behaves on every fit as the user's own object would have.

scikit-learn's ``clone`` starts afresh each time; a bare estimator does not where it holds a ``RandomState`` (which
advances from fit to fit), has ``warm_start=True`` or is fitted in parts (both continue).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from numpy.random import Generator, RandomState
from sklearn.base import clone


def copy_for_fit(estimator: Any, fitted: Any = None) -> Any:
    """An unfitted copy of ``estimator``, or ``fitted`` itself where ``warm_start`` continues its fit.

    Parameters
    ----------
    estimator : estimator
        The user's, unfitted.
    fitted : estimator, optional
        What an earlier call returned and was fitted since.
    """
    params = estimator.get_params(deep=True)
    if is_warm(params) and type(fitted) is type(estimator):
        return _with_params(fitted, params)
    copy = _unfitted(estimator, params)
    shared = {name: value for name, value in params.items() if isinstance(value, RandomState | Generator)}
    return copy.set_params(**shared) if shared else copy


def copy_for_partial_fit(estimator: Any, fitted: Any = None) -> Any:
    """``fitted`` itself, which ``partial_fit`` goes on with; an unfitted copy of ``estimator`` where there is none."""
    if type(fitted) is type(estimator):
        return _with_params(fitted, estimator.get_params(deep=True))
    return copy_for_fit(estimator)


def is_warm(params: dict[str, Any]) -> bool:
    """Whether any estimator among deep ``params`` continues its last fit."""
    return any(value is True and name.rpartition("__")[2] == "warm_start" for name, value in params.items())


def _with_params(fitted: Any, params: dict[str, Any]) -> Any:
    """``fitted`` with what the user has set since; the estimators in it stay, they hold the state that goes on."""
    return fitted.set_params(**{name: value for name, value in params.items() if not _holds_estimators(value)})


def _unfitted(estimator: Any, params: dict[str, Any]) -> Any:
    """A clone, or where a parameter cannot be copied (a lock, a connection) a copy that shares it with the user's."""
    try:
        return clone(estimator)
    except Exception:  # noqa: BLE001 - copying a user's object may raise anything; the bare estimator copies none
        leaves = [value for value in params.values() if not _holds_estimators(value)]
        return deepcopy(estimator, {id(value): value for value in leaves if not _can_be_copied(value)})


def _can_be_copied(value: Any) -> bool:
    try:
        deepcopy(value)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _holds_estimators(value: Any) -> bool:
    """Whether ``value`` is an estimator, or a list of named ones such as a Pipeline's steps."""
    if isinstance(value, list | tuple):
        return any(_holds_estimators(item) for item in value)
    return hasattr(value, "get_params") and not isinstance(value, type)
