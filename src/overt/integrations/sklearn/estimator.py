"""``TrackedEstimator``: a scikit-learn meta-estimator by the book that records what it fits and changes nothing of it.

``__init__`` only stores; the fitted copy is ``estimator_`` and its run ``run_``; a method exists only if the wrapped
estimator has it; predictions are those of the bare estimator to the last bit. Training goes on whatever happens to
tracking; only the user's own mistakes raise, in the first line of ``fit``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils.validation import check_is_fitted

from overt.capture.dataset import dataset as describe_data
from overt.capture.params import final_estimator
from overt.errors import ConfigurationError
from overt.evaluation.report import Report
from overt.integrations.sklearn import checking
from overt.integrations.sklearn.cloning import copy_for_fit, copy_for_partial_fit, is_warm
from overt.integrations.sklearn.crossval import cross_validate_estimator
from overt.integrations.sklearn.evaluating import can_be_evaluated, evaluate, is_clusterer
from overt.integrations.sklearn.forwarding import ForwardedMethods, if_inner_has
from overt.integrations.sklearn.partial import PartialFit
from overt.integrations.sklearn.recording import FitRecorder
from overt.integrations.sklearn.routing import params_of_estimator
from overt.models.sklearn import ModelFormat, check_model_format
from overt.run import Run
from overt.tracker import HookRun, Tracker, open_for_hook


class TrackedEstimator(ForwardedMethods, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
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
        Cross-validate on the training data after the fit. A splitter by groups gets the ``groups`` given to ``fit``.
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
    _partial: PartialFit | None

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
            Passed on to the estimator's ``fit``, and to the fits of the cross-validation. ``groups`` is for a ``cv``
            that splits by groups, such as ``GroupKFold``: the estimator gets it only if its own ``fit`` takes it. With
            scikit-learn's metadata routing on, the same holds for whatever the splitter requests.

        Returns
        -------
        TrackedEstimator
            Itself, fitted.

        Raises
        ------
        ConfigurationError
            For a setting that cannot work, before anything is started or fitted.
        """
        self._fit("fit", X, y, fit_params)
        return self

    @if_inner_has("fit_predict")
    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return the labels of ``X``."""
        return self._fit("fit_predict", X, y, fit_params)

    @if_inner_has("fit_transform")
    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return ``X`` transformed."""
        return self._fit("fit_transform", X, y, fit_params)

    @if_inner_has("partial_fit")
    def partial_fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Fit a little more, in the run that the first call started.

        ``run_.finish()``, a later ``fit`` or the script's end closes that run; then the model is recorded, as the last
        call left it. An ``evaluate`` before records the model as it is, for its scores to refer to. The data of the
        first ten calls are described. ``cv`` and ``training_metrics`` are for ``fit``.

        Parameters
        ----------
        X, y
            As the estimator takes them.
        **fit_params
            Passed on to the estimator's ``partial_fit``.

        Returns
        -------
        TrackedEstimator
            Itself, fitted a little more.
        """
        partial = self._open_partial() or self._begin_partial()
        with partial.hook.ending():
            partial.describe(X, y)
            fitted = copy_for_partial_fit(self.estimator, self.__dict__.get("estimator_"))
            began = time.perf_counter()
            fitted.partial_fit(X, y, **fit_params)
            self.estimator_ = fitted
            partial.follow(fitted, seconds=time.perf_counter() - began)
        return self

    def _fit(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Any:
        """Fit by ``method`` of the estimator and record it; what the method returned."""
        self._check(y)
        hook = self._reopened() or self._open()
        self._close_partial()
        with hook.ending() as run:
            estimator = copy_for_fit(self.estimator, getattr(self, "estimator_", None))
            recorder = self._recorder(run)
            recorder.params(estimator)
            dataset = recorder.dataset(X, y, name="train", context="training")
            own_params = params_of_estimator(self.estimator, self.cv, fit_params)
            began = time.perf_counter()
            result = getattr(estimator, method)(X, y, **own_params)
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
            Of this set, such as ``"val"``: it precedes the names of metrics and files, so ``"cv"`` and ``"training"``,
            which overt's own scores begin with, are refused. A second evaluation without a name replaces the first if
            the data is the same; on other data it warns and is recorded as ``eval_2_…``.
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
            For an estimator that neither classifies nor regresses nor clusters, for other data than that of the fit
            where a clusterer cannot predict, and for a ``name`` that cannot be used.
        """
        check_is_fitted(self)
        checking.check_set_name(name)
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
        recorder.report(report, prefix=prefix, model=self._model_name(), dataset=dataset)
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

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check(self, y: Any) -> None:
        """Raise for what can only be the user's mistake, before anything is recorded or fitted."""
        checking.check_is_estimator(self.estimator)
        checking.check_is_flag("training_metrics", self.training_metrics)
        checking.check_is_flag("log_model", self.log_model)
        check_model_format(self.model_format)
        checking.check_register_as(self.register_as, log_model=self.log_model)
        checking.check_class_names(self.class_names)
        checking.check_labels(self.estimator, y, class_names=self.class_names, pos_label=self.pos_label)
        checking.check_cross_validation(self.estimator, cv=self.cv, scoring=self.scoring, n_jobs=self.n_jobs)

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

    def _begin_partial(self) -> PartialFit:
        """A run for this ``partial_fit`` and those that follow."""
        self._check(None)
        hook = self._open()
        recorder = self._recorder(hook.run)
        recorder.params(self.estimator)
        partial = PartialFit(hook, recorder, bool(self.log_model), self.model_format, self.register_as)
        hook.run.call_at_end(partial.at_end)
        self._partial, self.run_, self._n_evaluations = partial, hook.run, {}
        self._model = self._trained_on = None
        return partial

    def _open_partial(self) -> PartialFit | None:
        """What an earlier ``partial_fit`` began, while its run is open."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        return partial if partial is not None and partial.run.status == "RUNNING" else None

    def _close_partial(self) -> None:
        """End what ``partial_fit`` began: a fit starts another run, and nobody could reach that one any more."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        if partial is not None:
            partial.close()
            self._model = partial.model()
        self._partial = None

    def _model_name(self) -> str | None:
        """What metrics refer to the fitted model by."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        return self._model if partial is None else partial.model()

    def _was_trained_on(self, X: Any, y: Any) -> bool:
        digest = (self._trained_on or "").rpartition("#")[2]
        return bool(digest == describe_data(X, y, name="train").digest)

    def _recorder(self, run: Run) -> FitRecorder:
        return FitRecorder(run, self.class_names, self.pos_label)
