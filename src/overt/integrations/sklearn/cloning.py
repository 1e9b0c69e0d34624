"""The copy of the user's estimator that is fitted: it behaves on every fit as the user's own object would have.

scikit-learn's ``clone`` starts afresh each time; a bare estimator does not where it holds a ``RandomState`` (which
advances from fit to fit), has ``warm_start=True`` or is fitted in parts (both continue).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

from numpy.random import Generator, RandomState
from sklearn.base import clone

Parts = Mapping[str, Any]


def copy_for_fit(estimator: Any, fitted: Any = None, parts: Parts = MappingProxyType({})) -> Any:
    """An unfitted copy of ``estimator``, or ``fitted`` itself where ``warm_start`` continues its fit.

    Parameters
    ----------
    estimator : estimator
        The user's, unfitted.
    fitted : estimator, optional
        What an earlier call returned and was fitted since.
    parts : mapping
        What :func:`parts_of` the user's estimator said at that call.
    """
    params = estimator.get_params(deep=True)
    if is_warm(estimator) and type(fitted) is type(estimator):
        return _with_params(fitted, params, parts)
    copy = _unfitted(estimator, params)
    shared = {name: value for name, value in params.items() if isinstance(value, RandomState | Generator)}
    return copy.set_params(**shared) if shared else copy


def copy_for_partial_fit(estimator: Any, fitted: Any = None, parts: Parts = MappingProxyType({})) -> Any:
    """``fitted`` itself, which ``partial_fit`` goes on with; an unfitted copy of ``estimator`` where there is none."""
    if type(fitted) is type(estimator):
        return _with_params(fitted, estimator.get_params(deep=True), parts)
    return copy_for_fit(estimator)


def parts_of(estimator: Any) -> Parts:
    """The estimators in ``estimator``, deep, by the names of its parameters: the user's own objects."""
    params = estimator.get_params(deep=True)
    return {name: _kept(value) for name, value in params.items() if _holds_estimators(value)}


def is_warm(estimator: Any) -> bool:
    """Whether a second fit of ``estimator`` would continue the first: itself, or a step that it fits in place.

    Other meta-estimators, searches for one, fit clones of what they hold, which begin anew.
    """
    if getattr(estimator, "warm_start", False) is True:
        return True
    steps = getattr(estimator, "steps", None) or getattr(estimator, "transformer_list", None) or ()
    return any(is_warm(step) for _, step, *_ in steps)


def _with_params(fitted: Any, params: dict[str, Any], parts: Parts) -> Any:
    """``fitted`` with what the user has set since.

    The estimators in it stay, they hold the state that goes on, but for those that the user has replaced by others.
    """
    before = fitted.get_params(deep=True)
    stays = {id(part): before[name] for name, part in parts.items() if name in before and not isinstance(part, list)}
    replaced = [name for name, part in parts.items() if name in params and not _is_same(params[name], part)]
    seen: set[int] = set()
    for name in sorted(replaced, key=lambda name: (name.count("__"), not isinstance(params[name], list))):
        if id(params[name]) not in seen:  # else it came with the list of steps, or with the estimator, that it is in
            fitted.set_params(**{name: _renewed(params[name], stays)})
            seen |= {id(value) for inner, value in params.items() if inner.startswith(f"{name}__")}
            seen |= set(map(id, _iter_estimators(params[name])))
    return fitted.set_params(**{name: value for name, value in params.items() if not _holds_estimators(value)})


def _is_same(value: Any, kept: Any) -> bool:
    """Whether a part is the object that it was, or a list of steps has the objects that it had."""
    if not isinstance(kept, list | tuple):
        return value is kept
    is_list = isinstance(value, list | tuple) and len(value) == len(kept)
    return is_list and all(
        _is_same(one, other) if _holds_estimators(other) else bool(one == other)
        for one, other in zip(value, kept, strict=True)
    )


def _kept(value: Any) -> Any:
    """``value``, lists copied: a user may change a list of steps in place."""
    return [_kept(item) for item in value] if isinstance(value, list | tuple) else value


def _renewed(value: Any, stays: Mapping[int, Any]) -> Any:
    """A copy for the fit: of what is new a clone, of what was there before what has become of it."""
    if isinstance(value, list | tuple):
        return type(value)(_renewed(item, stays) for item in value)
    if not _holds_estimators(value):
        return value
    return stays[id(value)] if id(value) in stays else clone(value)


def _iter_estimators(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _iter_estimators(item)
    elif _holds_estimators(value):
        yield value


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
