"""Which parameters of ``fit`` the estimator gets, and which only the splitter of the cross-validation or overt wants.

Group splitters take ``groups``, most estimators do not. With scikit-learn's metadata routing on, the splitter's request
says what it takes, under whatever name; without it, ``groups`` is all that ``cross_validate`` can hand to a splitter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from sklearn import get_config
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter


def params_of_estimator(estimator: Any, cv: Any, fit_params: Mapping[str, Any]) -> dict[str, Any]:
    """All of ``fit_params`` but what the splitter ``cv`` wants and the estimator's ``fit`` does not take."""
    return {
        name: value
        for name, value in fit_params.items()
        if not _is_wanted_by_splitter(cv, name) or _is_taken_by_fit(estimator, name)
    }


def data_for(method: Callable[..., Any], X: Any, y: Any) -> tuple[Any, ...]:
    """``X`` and ``y`` as ``method`` takes them: no ``y`` for one that has no place for it, such as a LabelEncoder's.

    A None is handed on where there is one: ``y`` may be required, and then the estimator says so itself.
    """
    if y is not None:
        return X, y
    try:
        signature(method).bind_partial(X, y)
    except TypeError:
        return (X,)
    except ValueError:  # compiled code that does not say what it takes
        return X, y
    return X, y


def held_out_of(estimator: Any, fit_params: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The ``eval_set`` that overt is to score stage by stage, and what is left for others.

    An estimator whose own ``fit`` takes an ``eval_set``, or hands it on to one that does, gets it, and none is left to
    us. From others even a None is kept: they would not know the word.
    """
    if "eval_set" not in fit_params or _reaches_a_fit_with_eval_set(estimator):
        return None, fit_params
    return fit_params["eval_set"], {name: value for name, value in fit_params.items() if name != "eval_set"}


def evaluated_in_fit(fit_params: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """X and y of each set that the estimator itself evaluates while it is fitted: xgboost's way, and lightgbm's.

    Both take a list; lightgbm also a lone pair. To a step of a pipeline they go under its name: ``step__eval_set``.
    """
    if (several := _given_to_any_step(fit_params, "eval_X")) is not None:
        targets = _given_to_any_step(fit_params, "eval_y")
        return list(zip(several, targets, strict=True)) if isinstance(several, tuple | list) else [(several, targets)]
    pairs = _given_to_any_step(fit_params, "eval_set")
    if isinstance(pairs, tuple) and pairs and not isinstance(pairs[0], tuple):
        pairs = [pairs]
    return [(data[0], data[1]) for data in pairs or ()]


def params_of_cross_validate(estimator: Any, cv: Any, fit_params: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of ``cross_validate`` that carry ``fit_params`` to the estimator and to the splitter."""
    if _is_routing_enabled():
        return {"params": dict(fit_params) or None}  # it asks everyone for their requests itself
    groups = fit_params.get("groups") if _is_wanted_by_splitter(cv, "groups") else None
    return {"params": params_of_estimator(estimator, cv, fit_params) or None, "groups": groups}


def _given_to_any_step(fit_params: Mapping[str, Any], name: str) -> Any:
    given = (value for key, value in fit_params.items() if key == name or key.endswith(f"__{name}"))
    return next((value for value in given if value is not None), None)


def _reaches_a_fit_with_eval_set(estimator: Any) -> bool:
    """Whether the estimator takes an ``eval_set``, or as a search does, passes all on to one inside that does.

    A pipeline wants the name of the step before it, and says so.
    """
    if _is_taken_by_fit(estimator, "eval_set"):
        return True
    inner = getattr(estimator, "estimator", getattr(estimator, "regressor", None))  # TransformedTargetRegressor
    if not hasattr(inner, "fit") or isinstance(inner, type):
        return False
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in signature(estimator.fit).parameters.values())
    return takes_any and _reaches_a_fit_with_eval_set(inner)


def _is_routing_enabled() -> bool:
    return bool(get_config()["enable_metadata_routing"])


def _is_wanted_by_splitter(cv: Any, name: str) -> bool:
    if not hasattr(cv, "split") or isinstance(cv, type):  # a number of folds, or the splits themselves
        return False
    if get_routing_for_object(cv).consumes("split", [name]):
        return True
    if _is_routing_enabled() or name != "groups":
        return False
    # scikit-learn's own KFold has it in its signature and ignores it aloud; another's may be from before requests
    return not type(cv).__module__.startswith("sklearn.") and name in signature(cv.split).parameters


def _is_taken_by_fit(estimator: Any, name: str) -> bool:
    if has_fit_parameter(estimator, name):
        return True
    if _is_routing_enabled():
        return bool(get_routing_for_object(estimator).consumes("fit", [name]))
    return _is_wanted_by_splitter(getattr(estimator, "cv", None), name)  # a search has a splitter of its own
