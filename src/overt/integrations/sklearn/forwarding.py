"""The wrapped estimator's own face: methods, fitted attributes, tags and metadata requests, as if nothing were around.

A method exists only if the estimator has it, and returns what the estimator's own returns. Nothing here records.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import Parameter, Signature, signature
from types import MethodType
from typing import Any, Self, TypeVar

from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

Method = TypeVar("Method", bound=Callable[..., Any])


def if_inner_has(name: str, *, is_signed: bool = False) -> Callable[[Method], Method]:
    """Let the decorated method exist only if the fitted estimator has ``name``, or before the fit the given one.

    With ``is_signed`` it shows the signature of that as well: scikit-learn's searches look in that of ``score`` whether
    to hand the weights on.
    """

    def check(self: ForwardedMethods) -> bool:
        getattr(self._innermost(), name)  # raises the AttributeError that names the estimator itself
        return True

    def decorator(method: Method) -> Method:
        named = _positional_as_inner(method, lambda tracked: tracked._innermost())
        available: Method = available_if(check)(named)
        return _AvailableAndSigned(available, name) if is_signed else available  # type: ignore[return-value]

    return decorator


class _AvailableAndSigned:
    def __init__(self, available: Any, name: str) -> None:
        self._available = available
        self._name = name
        self.__doc__ = available.__doc__

    def __get__(self, instance: ForwardedMethods | None, owner: type) -> Any:
        bound = self._available.__get__(instance, owner)
        if instance is None:
            return bound

        @wraps(bound.__func__)
        def signed(*args: Any, **keywords: Any) -> Any:
            return bound.__func__(*args, **keywords)

        _sign(signed, instance._innermost(), self._name)
        return MethodType(signed, instance)


def _sign(function: Any, estimator: Any, name: str) -> None:
    with suppress(AttributeError, TypeError, ValueError):  # nothing that can be fitted: the fit says so
        function.__signature__ = _as_of_function(signature(getattr(estimator, name)))


def _positional_as_inner(
    method: Callable[..., Any], estimator_of: Callable[[ForwardedMethods], Any]
) -> Callable[..., Any]:
    """Let the decorated method take by position what the estimator's own takes so, and get it by name.

    The data, the first argument, may go by the name that the estimator has for it, such as ``raw_documents``.
    """
    n_own = _count_positional(method) - 1  # without self

    @wraps(method)
    def named(self: ForwardedMethods, *args: Any, **keywords: Any) -> Any:
        def inner() -> Callable[..., Any]:
            return getattr(estimator_of(self), method.__name__)  # type: ignore[no-any-return]

        further = _names_of_further(args, n_own, inner)
        return method(self, *args[:n_own], **further, **_with_own_name_of_data(method, args, keywords, inner))

    return named


def _count_positional(method: Callable[..., Any]) -> int:
    return sum(p.kind is Parameter.POSITIONAL_OR_KEYWORD for p in signature(method).parameters.values())


def _names_of_further(args: tuple[Any, ...], n_own: int, inner: Callable[[], Callable[..., Any]]) -> dict[str, Any]:
    """What of ``args`` comes behind the first ``n_own``, under the names that the inner method has for it."""
    if len(args) <= n_own:
        return {}
    return dict([*signature(inner()).bind_partial(*args).arguments.items()][n_own:])


def _with_own_name_of_data(
    method: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any], inner: Callable[[], Callable[..., Any]]
) -> dict[str, Any]:
    """``keywords`` with the data under the name that our ``method`` has for it, where the estimator's has another."""
    if args or not keywords or "X" in keywords or "X" not in signature(method).parameters:
        return keywords
    theirs = next(iter(signature(inner()).parameters), "X")
    return {"X" if name == theirs else name: value for name, value in keywords.items()}


def signed_as_inner(method: Method) -> Method:
    """Let the decorated method, once bound, show the signature of the wrapped estimator's, and be called by it.

    scikit-learn reads in it what a fit takes: whether ``sample_weight`` may be handed on, for one.
    """
    return _SignedAsInner(method)  # type: ignore[return-value]


class _SignedAsInner:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: ForwardedMethods | None, owner: type) -> Any:
        if instance is None:
            return self._method
        estimator = instance.estimator
        named = _positional_as_inner(self._method, lambda tracked: estimator)
        _sign(named, estimator, self._method.__name__)
        return MethodType(named, instance)


def _as_of_function(bound: Signature) -> Signature:
    """The signature of a bound method as that of the function, of which ``inspect`` leaves out the first parameter."""
    own = [parameter for parameter in bound.parameters.values() if parameter.name != "self"]
    return bound.replace(parameters=[Parameter("self", Parameter.POSITIONAL_ONLY), *own])


class ForwardedMethods:
    """Base of a meta-estimator that answers as its ``estimator_`` does, and before the fit as its ``estimator``."""

    estimator: Any

    @if_inner_has("predict")
    def predict(self, X: Any, **params: Any) -> Any:
        """Predict with the fitted estimator; records nothing."""
        check_is_fitted(self)
        return self.estimator_.predict(X, **params)

    @if_inner_has("predict_proba")
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """Probabilities of the classes."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X, **params)

    @if_inner_has("predict_log_proba")
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """Logarithms of the classes' probabilities."""
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X, **params)

    @if_inner_has("decision_function")
    def decision_function(self, X: Any, **params: Any) -> Any:
        """Decision values."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X, **params)

    @if_inner_has("score_samples")
    def score_samples(self, X: Any) -> Any:
        """Score of each sample."""
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

    @if_inner_has("score", is_signed=True)
    def score(self, X: Any, y: Any = None, **params: Any) -> Any:
        """The estimator's own score; records nothing, see ``evaluate``."""
        check_is_fitted(self)
        return self.estimator_.score(X, y, **params)

    @if_inner_has("transform")
    def transform(self, X: Any, **params: Any) -> Any:
        """Transform with the fitted estimator."""
        check_is_fitted(self)
        return self.estimator_.transform(X, **params)

    @if_inner_has("inverse_transform")
    def inverse_transform(self, X: Any, **params: Any) -> Any:
        """Undo :meth:`transform`."""
        check_is_fitted(self)
        return self.estimator_.inverse_transform(X, **params)

    @if_inner_has("get_feature_names_out")
    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the transformed features."""
        check_is_fitted(self)
        return self.estimator_.get_feature_names_out(input_features)

    @if_inner_has("set_output")
    def set_output(self, *, transform: Any = None) -> Self:
        """Choose the container of transformed data."""
        self.estimator.set_output(transform=transform)
        if hasattr(self, "estimator_"):
            self.estimator_.set_output(transform=transform)
        return self

    def get_metadata_routing(self) -> Any:
        """The wrapped estimator's: this one passes everything on."""
        return self.estimator.get_metadata_routing()

    def __getattr__(self, name: str) -> Any:
        """Fitted attributes (``classes_``, ``coef_``) and further methods (``kneighbors``) of the fitted estimator."""
        fitted = self.__dict__.get("estimator_")
        if fitted is not None and not name.startswith("_"):
            if name.endswith("_"):
                return getattr(fitted, name)
            if not name.startswith(("fit", "partial_fit", "set_")):  # what would train or change it unseen
                method = getattr(fitted, name, None)
                if isinstance(method, MethodType):
                    return method
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self) -> bool:
        return "estimator_" in self.__dict__  # set by a fit; asking it would doubt those that a fit leaves as they were

    def __sklearn_tags__(self) -> Any:
        return get_tags(self.estimator)

    def _innermost(self) -> Any:
        return self.__dict__.get("estimator_", self.estimator)
