"""``TrackedEstimator``: a scikit-learn meta-estimator by the book that records what it fits and changes nothing of it.

``__init__`` only stores; the fitted copy is ``estimator_`` and its run ``run_``; a method exists only if the wrapped
estimator has it; predictions are those of the bare estimator to the last bit. Training goes on whatever happens to
tracking; only the user's own mistakes raise, in the first line of ``fit``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import Any, Self

from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils.validation import check_is_fitted

from overt.capture.params import final_estimator
from overt.errors import ConfigurationError
from overt.evaluation.report import Report
from overt.integrations.sklearn import checking
from overt.integrations.sklearn.cloning import Parts, copy_for_fit, copy_for_partial_fit, is_warm, parts_of
from overt.integrations.sklearn.crossval import CrossValidation, cross_validate_estimator
from overt.integrations.sklearn.evaluating import can_be_asked, can_be_evaluated, evaluate
from overt.integrations.sklearn.fitted import LastFit, Origin, Wanted, record_curves, record_fit, telling_of_failure
from overt.integrations.sklearn.forwarding import ForwardedMethods, if_inner_has, signed_as_inner
from overt.integrations.sklearn.histories import training_history
from overt.integrations.sklearn.lineage import Lineage, fitting_in, founding, lineage_of
from overt.integrations.sklearn.live import following
from overt.integrations.sklearn.nesting import ADVICE, is_last_step
from overt.integrations.sklearn.partial import PartialFit
from overt.integrations.sklearn.recording import FitRecorder, Place
from overt.integrations.sklearn.routing import data_for, held_out_of, params_of_estimator
from overt.integrations.sklearn.search import ChildRuns
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
    live_scores : bool
        Whether each iteration is scored on its training data while the fit goes on, and each ``partial_fit`` on its
        part; it costs a prediction each time. For iterations it takes scikit-learn 1.9 and an estimator with callbacks.
    check_overlap : bool
        Whether ``evaluate``, and ``fit`` in an ``eval_set``, look for rows of the training data among the others.
    child_runs : int or "all"
        How many of a search's candidates, the best first, become runs of their own, nested in that of the search.
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
        Record into this run and leave it open. A second fit that begins anew has a run nested in it.
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

    _lineage: Lineage | None = None
    _is_clone = False
    _given: Run | None = None
    _last: LastFit
    _parts: Parts = MappingProxyType({})
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
        child_runs: ChildRuns = 0,
        live_scores: bool = False,
        check_overlap: bool = True,
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
        self.child_runs = child_runs
        self.live_scores = live_scores
        self.check_overlap = check_overlap
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

    @signed_as_inner
    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Fit a copy of the estimator and record the fit.

        Parameters
        ----------
        X, y
            As the estimator takes them.
        **fit_params
            Passed on to the estimator's ``fit``, and to the fits of the cross-validation. ``groups`` is for a ``cv``
            that splits by groups, such as ``GroupKFold``: the estimator gets it only if its own ``fit`` takes it. With
            scikit-learn's metadata routing on, the same holds for whatever the splitter requests. ``eval_set=(X, y)``
            scores held-out data after each stage of an estimator that has ``staged_predict``; one whose own ``fit``
            takes an ``eval_set``, as xgboost's and lightgbm's do, gets it as it is, inside a search too, and its
            curves are recorded.

        Returns
        -------
        TrackedEstimator
            Itself, fitted.

        Raises
        ------
        ConfigurationError
            For a setting that cannot work, before anything is started or fitted.
        """
        self._fit("fit", X, y, fit_params, caller=sys._getframe(2))  # 1 is what names arguments
        return self

    @if_inner_has("fit_predict")
    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return the labels of ``X``."""
        return self._fit("fit_predict", X, y, fit_params, caller=sys._getframe(2))

    @if_inner_has("fit_transform")
    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit and return ``X`` transformed."""
        return self._fit("fit_transform", X, y, fit_params, caller=sys._getframe(2))

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
        if self._is_clone:
            self._fit_lightly("partial_fit", X, y, fit_params)
            return self
        partial = self._open_partial() or self._begin_partial()
        with partial.hook.ending():
            partial.note_params(self.estimator)
            partial.describe(X, y)
            fitted = copy_for_partial_fit(self.estimator, self.__dict__.get("estimator_"), self._parts)
            self._parts = parts_of(self.estimator)
            began = time.perf_counter()
            fitted.partial_fit(*data_for(fitted.partial_fit, X, y), **fit_params)
            self.estimator_ = fitted
            partial.follow(fitted, seconds=time.perf_counter() - began)
            fit, recorder = self._last, partial.recorder
            fit.number += 1
            fit.curves = recorder.history(lambda: training_history(fitted), fit.curves)
            if self.live_scores:
                weight = fit_params.get("sample_weight")
                recorder.live_scores(fitted, X, y, sample_weight=weight, known=fit.curves)
        return self

    def _fit(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any], *, caller: FrameType) -> Any:
        """Fit by ``method`` of the estimator and record it; what the method returned."""
        self._check(y)
        eval_set, fit_params = held_out_of(self.estimator, fit_params)
        checking.check_eval_set(self.estimator, eval_set)
        if self._is_clone:
            return self._fit_lightly(method, X, y, fit_params)
        reopened = self._reopened()
        is_reopened, hook = reopened is not None, reopened or self._open()
        self._close_partial()
        with hook.ending() as run, fitting_in(run), telling_of_failure(run, is_wanted=is_reopened):
            if is_last_step(self, caller):
                run.warn(ADVICE)
            estimator = copy_for_fit(self.estimator, self.__dict__.get("estimator_"), self._parts)
            self._parts = parts_of(self.estimator)
            recorder = self._recorder(run)
            recorder.params(estimator)
            dataset = recorder.dataset(X, y, name="train", context="training")
            own_params = params_of_estimator(self.estimator, self.cv, fit_params)
            began = time.perf_counter()
            with following(estimator, run, live_scores=self.live_scores, is_continued=is_reopened):
                fit_by = getattr(estimator, method)
                result = fit_by(*data_for(fit_by, X, y), **own_params)
            run.log_metric("fit_seconds", time.perf_counter() - began)
            number = self._last.number + 1 if is_reopened else 1
            before = self._last if is_warm(self.estimator) and self._is_kin_of_last() else LastFit()
            self.estimator_, self.run_ = estimator, run
            self._last = fit = LastFit(dataset, number, before.curves, rows=before.rows, origin=self._origin())
            wanted, weight = self._wanted(X, y, fit_params), fit_params.get("sample_weight")
            record_fit(estimator, X, y, fit=fit, recorder=recorder, wanted=wanted, sample_weight=weight)
            record_curves(estimator, X, fit=fit, recorder=recorder, fit_params=fit_params, eval_set=eval_set)
        if hook.owned:
            run.finish()
        return result

    def _fit_lightly(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Any:
        """Fit by ``method`` as one of many clones: a row in the run of their lineage."""
        copy = copy_for_partial_fit if method == "partial_fit" else copy_for_fit
        estimator = copy(self.estimator, self.__dict__.get("estimator_"), self._parts)
        self._parts = parts_of(self.estimator)
        family = self._family()
        with family.row(estimator, X, method) as run:
            fit_by, own_params = getattr(estimator, method), params_of_estimator(self.estimator, self.cv, fit_params)
            result = fit_by(*data_for(fit_by, X, y), **own_params)
        self.estimator_, self.run_, self._last = estimator, run, LastFit(evaluations=family.evaluations)
        return result

    def _wanted(self, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Wanted:
        """What is to be recorded of a fit."""

        def folds() -> CrossValidation:
            return cross_validate_estimator(
                self.estimator,
                X,
                y,
                cv=self.cv,
                scoring=self.scoring,
                n_jobs=self.n_jobs,
                fit_params=fit_params,
                class_names=self.class_names,
                pos_label=self.pos_label,
            )

        return Wanted(
            child_runs=self.child_runs,
            log_model=bool(self.log_model),
            model_format=self.model_format,
            register_as=self.register_as,
            training_metrics=bool(self.training_metrics),
            check_overlap=bool(self.check_overlap),
            folds=None if self.cv is None else folds,
            tracker=self._tracker_here(),
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
        if not can_be_asked(self.estimator_):
            raise ConfigurationError(
                "evaluate() needs the estimator that a search has fitted with the best parameters "
                "(got a search with refit=False)."
            )
        if not hasattr(self.estimator_, "predict") and not self._last.was_on(X, y):
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
        fit = self._last
        place = Place(fit.step, self._model_name(), dataset)
        recorder.report(report, prefix=prefix, curves=fit.curves, place=place)
        if self.check_overlap and fit.rows is not None:
            given_to = "evaluate()" if name is None else f"evaluate(name={name!r})"
            recorder.overlap(fit.rows, X, y, prefix=prefix, given_to=given_to)
        return report

    def _prefix_for(self, dataset: str | None) -> str:
        """Nothing for the first unnamed evaluation and its repetitions, ``eval_<n>_`` for other data."""
        number = self._last.number_of_evaluation(dataset)
        if number == 1:
            return ""
        self.run_.warn(
            f"evaluate() was called on other data than before, or by another clone: "
            f"recorded as eval_{number}_… in run {self.run_.name}. "
            f'Name the set to choose: evaluate(X, y, name="val")'
        )
        return f"eval_{number}_"

    # -- copies --------------------------------------------------------------------------------------------------------

    def __sklearn_clone__(self) -> Self:
        """A clone that knows its origin: its fits are rows of one run, see :mod:`~.lineage`."""
        copy: Self = super().__sklearn_clone__()
        copy._lineage, copy._is_clone = self._family(), True
        return copy

    def __overt_saved__(self) -> Any:
        """What stands for this in a saved model, so that loading it needs no overt."""
        return self._innermost()

    def __getstate__(self) -> dict[str, Any]:
        """With the lineage: where it goes, others may clone it, unless it is fitted and only to be asked."""
        state: dict[str, Any] = super().__getstate__()
        family = self._family()
        if "estimator_" not in state:
            family.open_if_sent(is_clone=self._is_clone)
        return state | {"_lineage": family}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check(self, y: Any) -> None:
        """Raise for what can only be the user's mistake, before anything is recorded or fitted."""
        checking.check_is_estimator(self.estimator)
        checking.check_is_flag("training_metrics", self.training_metrics)
        checking.check_is_flag("log_model", self.log_model)
        checking.check_is_flag("live_scores", self.live_scores)
        checking.check_is_flag("check_overlap", self.check_overlap)
        check_model_format(self.model_format)
        checking.check_register_as(self.register_as, log_model=self.log_model)
        checking.check_class_names(self.class_names)
        if not self._is_clone:  # whoever clones may encode or leave out labels, and set another estimator
            checking.check_child_runs(self.estimator, self.child_runs)
            checking.check_labels(self.estimator, y, class_names=self.class_names, pos_label=self.pos_label)
        checking.check_cross_validation(self.estimator, cv=self.cv, scoring=self.scoring, n_jobs=self.n_jobs)

    def _open(self) -> HookRun:
        """A run for a fit that begins anew; where a fit of this was recorded in the given run before, one inside it."""
        given, settings = self.run, self._run_settings() | {"tracker": self._tracker_here()}
        if given is not None and given is self._given:
            settings |= {"run": None, "parent": given}
        hook = open_for_hook(type(final_estimator(self.estimator)).__name__, **settings)
        self._given = given
        return hook

    def _origin(self) -> Origin:
        kinds = type(self.estimator), type(final_estimator(self.estimator))
        return Origin(kinds, self._run_settings())

    def _is_kin_of_last(self) -> bool:
        return "run_" in self.__dict__ and self._last.origin.is_kin_of(self._origin())

    def _tracker_here(self) -> Tracker | None:
        """The tracker that was given, else what the process configured that has sent this one."""
        return self.tracker if self.tracker is not None or self._lineage is None else self._lineage.sent

    def _run_settings(self) -> dict[str, Any]:
        """What says which run a fit is recorded in."""
        names = ("experiment", "run_name", "tags", "params", "notes", "run", "parent", "tracker")
        return {name: getattr(self, name) for name in names}

    def _family(self) -> Lineage:
        """The lineage of this estimator's clones."""
        with founding():
            settings = self._run_settings()
            self._lineage = lineage_of(self._lineage, self.estimator, settings, is_clone=self._is_clone)
            return self._lineage

    def _reopened(self) -> HookRun | None:
        """The last fit's run, where this fit continues it and the user has asked for no other run."""
        if "run_" in self.__dict__ and is_warm(self.estimator) and self._last.origin.shares_run_with(self._origin()):
            return HookRun(self.run_, owned=False)
        return None

    def _begin_partial(self) -> PartialFit:
        """A run for this ``partial_fit`` and those that follow."""
        self._check(None)
        self._close_partial()
        hook = self._open()
        partial = PartialFit(hook, self._recorder(hook.run), bool(self.log_model), self.model_format, self.register_as)
        hook.run.call_at_end(partial.at_end)
        curves = self._last.curves if self._is_kin_of_last() else {}  # those are in an earlier run
        self._last = LastFit(number=0, curves=curves, origin=self._origin())
        self._partial, self.run_ = partial, hook.run
        return partial

    def _open_partial(self) -> PartialFit | None:
        """What an earlier ``partial_fit`` began, while its run is open and this call belongs there."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        is_open = partial is not None and partial.run.status == "RUNNING"
        return partial if is_open and self._last.origin.shares_run_with(self._origin()) else None

    def _close_partial(self) -> None:
        """End what ``partial_fit`` began: a fit starts another run, and nobody could reach that one any more."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        if partial is not None:
            partial.close()
            self._last.model = partial.model()
        self._partial = None

    def _model_name(self) -> str | None:
        """What metrics refer to the fitted model by."""
        partial: PartialFit | None = self.__dict__.get("_partial")
        return self._last.model if partial is None else partial.model()

    def _recorder(self, run: Run) -> FitRecorder:
        return FitRecorder(run, self.class_names, self.pos_label)
