"""``TrackedEstimator``: a scikit-learn meta-estimator by the book that records what it fits and changes nothing of it.

``__init__`` only stores; the fitted copy is ``estimator_`` and its run ``run_``; a method exists only if the wrapped
estimator has it; predictions are those of the bare estimator to the last bit. Training goes on whatever happens to
tracking; only the user's own mistakes raise, in the first line of ``fit``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy
from sklearn.base import BaseEstimator, MetaEstimatorMixin, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from overt.capture.dataset import dataset as describe_data
from overt.capture.params import final_estimator
from overt.errors import ConfigurationError
from overt.evaluation.report import Report
from overt.integrations.sklearn.cloning import copy_for_fit, copy_for_partial_fit, is_warm
from overt.integrations.sklearn.crossval import cross_validate_estimator, named_scorers
from overt.integrations.sklearn.evaluating import can_be_evaluated, evaluate, is_clusterer
from overt.integrations.sklearn.recording import FitRecorder
from overt.models.sklearn import ModelFormat, check_model_format
from overt.run import Run
from overt.tracker import HookRun, Tracker, open_for_hook

Method = TypeVar("Method", bound=Callable[..., Any])


def _if_inner_has(name: str) -> Callable[[Method], Method]:
    """Let the decorated method exist only if the fitted estimator has ``name``, or before the fit the given one."""

    def check(self: TrackedEstimator) -> bool:
        getattr(self._innermost(), name)  # raises the AttributeError that names the estimator itself
        return True

    decorator: Callable[[Method], Method] = available_if(check)
    return decorator


class TrackedEstimator(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Fit an estimator and record everything about it: a drop-in for the estimator itself.

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn estimator, pipelines included. It is cloned before it is fitted.
    experiment : str, optional
        Where the run goes; as configured if absent.
    run_name : str, optional
        The run's name; the estimator's class and four characters if absent.
    tags, params : mapping, optional
        Recorded besides what the estimator gives.
    notes : str, optional
        Markdown for the run's page.
    cv : int, splitter or iterable, optional
        Cross-validate on the training data after the fit.
    scoring : str, callable, list or dict, optional
        Scorers of the cross-validation; the estimator's own score if absent.
    n_jobs : int, optional
        Processes of the cross-validation.
    training_metrics : bool
        Whether to predict the training set and record ``training_…`` scores; it can cost more than the fit.
    class_names : sequence of str, optional
        Display names in the order of the sorted classes.
    pos_label : label, optional
        Positive class of a binary problem; ``classes_[1]`` if absent.
    log_model : bool
        Whether to record the fitted estimator.
    model_format : {"cloudpickle", "skops"}
        How it is written.
    register_as : str, optional
        Registered model that it becomes a version of.
    run : Run, optional
        Record into this run and leave it open.
    parent : Run or str, optional
        Run, or key of one, to nest the fit's run in.
    tracker : Tracker, optional
        Settings to use.

    Attributes
    ----------
    estimator_ : estimator
        The fitted copy.
    run_ : Run
        The run of the last fit.

    Examples
    --------
    >>> import overt
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> with overt.testing.captured_runs() as runs:
    ...     model = overt.TrackedEstimator(LogisticRegression(max_iter=500)).fit(X[::2], y[::2])
    ...     report = model.evaluate(X[1::2], y[1::2])
    >>> runs[0].status, runs[0].params["max_iter"], report["accuracy"] == runs[0].metrics["accuracy"]
    ('FINISHED', '500', True)
    """

    _n_evaluations: dict[str | None, int]
    _model: str | None
    _trained_on: str | None
    _partial_hook: HookRun | None

    def __init__(
        self,
        estimator: Any,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        notes: str | None = None,
        cv: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        training_metrics: bool = True,
        class_names: Sequence[str] | None = None,
        pos_label: Any = None,
        log_model: bool = True,
        model_format: ModelFormat = "cloudpickle",
        register_as: str | None = None,
        run: Run | None = None,
        parent: Run | str | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.estimator = estimator
        self.experiment = experiment
        self.run_name = run_name
        self.tags = tags
        self.params = params
        self.notes = notes
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.training_metrics = training_metrics
        self.class_names = class_names
        self.pos_label = pos_label
        self.log_model = log_model
        self.model_format = model_format
        self.register_as = register_as
        self.run = run
        self.parent = parent
        self.tracker = tracker

    # -- fitting -------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Fit a copy of the estimator and record the fit.

        Parameters
        ----------
        X, y
            As the estimator takes them.
        **fit_params
            Passed on to the estimator's ``fit``, and to the fits of the cross-validation.

        Returns
        -------
        TrackedEstimator
            Itself, fitted.
        """
        self._fit(X, y, fit_params, lambda estimator: estimator.fit(X, y, **fit_params))
        return self

    @_if_inner_has("fit_predict")
    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return the labels of ``X``."""
        return self._fit(X, y, fit_params, lambda estimator: estimator.fit_predict(X, y, **fit_params))

    @_if_inner_has("fit_transform")
    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return ``X`` transformed."""
        return self._fit(X, y, fit_params, lambda estimator: estimator.fit_transform(X, y, **fit_params))

    @_if_inner_has("partial_fit")
    def partial_fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Fit a little more. The first call starts a run; ``run_.finish()`` or the script's end closes it."""
        hook = self._open_partial()
        if hook is None:
            self._check(None)
            hook = self._open()
            self._recorder(hook.run).params(self.estimator)
            self._partial_hook, self.run_, self._n_evaluations = hook, hook.run, {}
            self._model = self._trained_on = None
        with hook.ending():
            fitted = copy_for_partial_fit(self.estimator, self.__dict__.get("estimator_"))
            began = time.perf_counter()
            fitted.partial_fit(X, y, **fit_params)
            self.estimator_ = fitted
            self.run_.log_metric("partial_fit_seconds", time.perf_counter() - began)
        return self

    def _fit(self, X: Any, y: Any, fit_params: Mapping[str, Any], call: Callable[[Any], Any]) -> Any:
        """Fit through ``call`` and record it; what ``call`` returned."""
        self._check(y)
        self._finish_partial()
        hook = self._reopened() or self._open()
        with hook.ending() as run:
            estimator = copy_for_fit(self.estimator, getattr(self, "estimator_", None))
            recorder = self._recorder(run)
            recorder.params(estimator)
            dataset = recorder.dataset(X, y, name="train", context="training")
            began = time.perf_counter()
            result = call(estimator)
            run.log_metric("fit_seconds", time.perf_counter() - began)
            self.estimator_, self.run_, self._n_evaluations = estimator, run, {}
            self._model, self._trained_on = None, dataset
            self._record_fitted(recorder, X, y, fit_params, dataset)
        if hook.owned:
            run.finish()
        return result

    def _record_fitted(
        self, recorder: FitRecorder, X: Any, y: Any, fit_params: Mapping[str, Any], dataset: str | None
    ) -> None:
        """Record what follows from the fit."""
        estimator = self.estimator_
        if self.log_model:
            self._model = recorder.model(estimator, X, model_format=self.model_format, register_as=self.register_as)
        if self.training_metrics and (y is not None or is_clusterer(estimator)):
            recorder.training_scores(
                estimator, X, y, sample_weight=fit_params.get("sample_weight"), model=self._model, dataset=dataset
            )
        recorder.html(estimator)
        recorder.importances(estimator)
        if self.cv is not None:
            recorder.cross_validation(
                lambda: cross_validate_estimator(
                    self.estimator,
                    X,
                    y,
                    cv=self.cv,
                    scoring=self.scoring,
                    n_jobs=self.n_jobs,
                    fit_params=fit_params,
                    class_names=self.class_names,
                    pos_label=self.pos_label,
                ),
                dataset=dataset,
            )

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def evaluate(self, X: Any, y: Any = None, *, name: str | None = None, sample_weight: Any = None) -> Report:
        """Score held-out data and record the scores in the run of the fit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Held-out data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
            What is true of it; not needed for clusterers.
        name : str, optional
            Of this set, such as ``"val"``: it precedes the names of metrics and files. A second evaluation without a
            name replaces the first if the data is the same; on other data it warns and is recorded as ``eval_2_…``.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples.

        Returns
        -------
        Report
            Metrics, tables and curves: ``report["f1_score"]``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ConfigurationError
            For an estimator that neither classifies nor regresses nor clusters, and for other data than that of the
            fit where a clusterer cannot predict.
        """
        check_is_fitted(self)
        if not can_be_evaluated(self.estimator_):
            raise ConfigurationError(
                f"evaluate() scores classifiers, regressors and clusterers "
                f"(got a {type(final_estimator(self.estimator_)).__name__})."
            )
        if not hasattr(self.estimator_, "predict") and not self._was_trained_on(X, y):
            raise ConfigurationError(
                f"evaluate() needs an estimator that can predict, or the very data of its fit "
                f"(got other data, and {type(final_estimator(self.estimator_)).__name__} has no predict)."
            )
        report = evaluate(
            self.estimator_,
            X,
            y,
            class_names=self.class_names,
            pos_label=self.pos_label,
            sample_weight=sample_weight,
        )
        recorder = self._recorder(self.run_)
        dataset = recorder.dataset(X, y, name=name or "test", context="eval" if name is None else name)
        prefix = f"{name}_" if name else self._prefix_for(dataset)
        recorder.report(report, prefix=prefix, model=self._model, dataset=dataset)
        return report

    def _prefix_for(self, dataset: str | None) -> str:
        """Nothing for the first unnamed evaluation and its repetitions, ``eval_<n>_`` for other data."""
        number = self._n_evaluations.setdefault(dataset, len(self._n_evaluations) + 1)
        if number == 1:
            return ""
        self.run_.warn(
            f"evaluate() was called on other data than before: recorded as eval_{number}_…. "
            f'Name the set to choose: evaluate(X, y, name="val")'
        )
        return f"eval_{number}_"

    # -- the estimator's own methods -----------------------------------------------------------------------------------

    @_if_inner_has("predict")
    def predict(self, X: Any, **params: Any) -> Any:
        """Predict with the fitted estimator; records nothing."""
        check_is_fitted(self)
        return self.estimator_.predict(X, **params)

    @_if_inner_has("predict_proba")
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """Probabilities of the classes."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X, **params)

    @_if_inner_has("predict_log_proba")
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """Logarithms of the classes' probabilities."""
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X, **params)

    @_if_inner_has("decision_function")
    def decision_function(self, X: Any, **params: Any) -> Any:
        """Decision values."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X, **params)

    @_if_inner_has("score_samples")
    def score_samples(self, X: Any) -> Any:
        """Score of each sample."""
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

    @_if_inner_has("score")
    def score(self, X: Any, y: Any = None, **params: Any) -> Any:
        """The estimator's own score; records nothing, see :meth:`evaluate`."""
        check_is_fitted(self)
        return self.estimator_.score(X, y, **params)

    @_if_inner_has("transform")
    def transform(self, X: Any, **params: Any) -> Any:
        """Transform with the fitted estimator."""
        check_is_fitted(self)
        return self.estimator_.transform(X, **params)

    @_if_inner_has("inverse_transform")
    def inverse_transform(self, X: Any, **params: Any) -> Any:
        """Undo :meth:`transform`."""
        check_is_fitted(self)
        return self.estimator_.inverse_transform(X, **params)

    @_if_inner_has("get_feature_names_out")
    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the transformed features."""
        check_is_fitted(self)
        return self.estimator_.get_feature_names_out(input_features)

    @_if_inner_has("set_output")
    def set_output(self, *, transform: Any = None) -> Self:
        """Choose the container of transformed data."""
        self.estimator.set_output(transform=transform)
        if hasattr(self, "estimator_"):
            self.estimator_.set_output(transform=transform)
        return self

    # -- what makes it a meta-estimator --------------------------------------------------------------------------------

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

    def get_metadata_routing(self) -> Any:
        """The wrapped estimator's: this one passes everything on."""
        return self.estimator.get_metadata_routing()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _innermost(self) -> Any:
        return self.__dict__.get("estimator_", self.estimator)

    def _check(self, y: Any) -> None:
        """Raise for what can only be the user's mistake, before anything is recorded or fitted."""
        if not hasattr(self.estimator, "fit") or isinstance(self.estimator, type):
            raise ConfigurationError(
                f"`estimator` must be an estimator object with a fit method (got {self.estimator!r})."
            )
        for name, kinds, wording in (
            ("run", Run, "a Run"),
            ("parent", (Run, str), "a Run or the key of one"),
            ("tracker", Tracker, "a Tracker"),
        ):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), kinds):
                raise ConfigurationError(f"`{name}` must be {wording} (got {getattr(self, name)!r}).")
        check_model_format(self.model_format)
        if self.register_as is not None and not self.log_model:
            raise ConfigurationError(
                f"`register_as` needs log_model=True, or there is no model to register (got {self.register_as!r})."
            )
        self._check_labels(y)
        if self.cv is not None:
            try:
                if not isinstance(self.cv, Iterator):  # to look into one is to use it up
                    check_cv(self.cv, classifier=is_classifier(self.estimator))
                named_scorers(self.estimator, self.scoring)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"`cv` and `scoring` must be what cross_validate takes: {error}") from error

    def _check_labels(self, y: Any) -> None:
        """Compare ``class_names`` and ``pos_label`` with the labels before hours are spent on the fit."""
        if (self.class_names is None and self.pos_label is None) or not is_classifier(self.estimator):
            return
        try:
            labels = numpy.unique(numpy.asarray(y)).tolist() if numpy.ndim(y) == 1 else []
        except (TypeError, ValueError):  # labels that do not sort: scikit-learn says what is wrong with them
            return
        fewest = len(labels) - (-1 in labels)  # -1 is no class of a semi-supervised estimator
        if labels and self.class_names is not None and not fewest <= len(self.class_names) <= len(labels):
            raise ConfigurationError(
                f"`class_names` must name each of the {len(labels)} classes in order (got {len(self.class_names)} "
                f"names); pass {len(labels)} names or leave it out."
            )
        if labels and self.pos_label is not None and self.pos_label not in labels:
            raise ConfigurationError(f"`pos_label` must be one of the labels in y (got {self.pos_label!r}).")

    def _open(self) -> HookRun:
        return open_for_hook(
            type(final_estimator(self.estimator)).__name__,
            experiment=self.experiment,
            run_name=self.run_name,
            tags=self.tags,
            params=self.params,
            notes=self.notes,
            run=self.run,
            parent=self.parent,
            tracker=self.tracker,
        )

    def _reopened(self) -> HookRun | None:
        """The last fit's run, where this fit continues it."""
        if "run_" in self.__dict__ and is_warm(self.estimator.get_params(deep=True)):
            return HookRun(self.run_, owned=False)
        return None

    def _open_partial(self) -> HookRun | None:
        """The run that an earlier ``partial_fit`` opened, while it is open."""
        hook: HookRun | None = self.__dict__.get("_partial_hook")
        return hook if hook is not None and hook.run.status == "RUNNING" else None

    def _finish_partial(self) -> None:
        """End the run that ``partial_fit`` left open: a fit starts another, and nobody could reach it any more."""
        hook = self._open_partial()
        if hook is not None and hook.owned:
            hook.run.finish()
        self._partial_hook = None

    def _was_trained_on(self, X: Any, y: Any) -> bool:
        digest = (self._trained_on or "").rpartition("#")[2]
        return bool(digest == describe_data(X, y, name="train").digest)

    def _recorder(self, run: Run) -> FitRecorder:
        return FitRecorder(run, self.class_names, self.pos_label)
