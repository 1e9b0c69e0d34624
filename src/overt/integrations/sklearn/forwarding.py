"""The wrapped estimator's own face: methods, fitted attributes, tags and metadata requests, as if nothing were around.

A method exists only if the estimator has it, and returns what the estimator's own returns. Nothing here records.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar

from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

Method = TypeVar("Method", bound=Callable[..., Any])


def if_inner_has(name: str) -> Callable[[Method], Method]:
    """Let the decorated method exist only if the fitted estimator has ``name``, or before the fit the given one."""

    def check(self: ForwardedMethods) -> bool:
        getattr(self._innermost(), name)  # raises the AttributeError that names the estimator itself
        return True

    decorator: Callable[[Method], Method] = available_if(check)
    return decorator


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

    @if_inner_has("score")
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
        """Fitted attributes (``classes_``, ``coef_``, ``n_features_in_``) of the fitted estimator."""
        fitted = self.__dict__.get("estimator_")
        if fitted is not None and name.endswith("_") and not name.startswith("_"):
            return getattr(fitted, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self) -> bool:
        fitted = self.__dict__.get("estimator_")
        if fitted is None:
            return False
        with suppress(NotFittedError):
            check_is_fitted(fitted)
            return True
        return False

    def __sklearn_tags__(self) -> Any:
        return get_tags(self.estimator)

    def _innermost(self) -> Any:
        return self.__dict__.get("estimator_", self.estimator)
