"""``SklearnTrackingCallback``: scikit-learn's official callback protocol, for those who fit without a wrapper.

Each fit of the outermost estimator is one run, decided by the same rules as every hook's. Needs scikit-learn 1.9.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import sklearn
from sklearn.utils.fixes import parse_version

from overt.capture.params import final_estimator
from overt.errors import MissingExtra
from overt.integrations.sklearn.checking import check_depth, check_is_flag
from overt.integrations.sklearn.histories import training_history
from overt.integrations.sklearn.live import Follower, sendable
from overt.integrations.sklearn.recording import FitRecorder
from overt.integrations.sklearn.search import search_in
from overt.run import Run, status_of
from overt.tracker import HookRun, Tracker, check_hook, open_for_hook

if parse_version(sklearn.__version__) < parse_version("1.9"):
    raise MissingExtra(
        f"SklearnTrackingCallback needs scikit-learn 1.9 or newer, which has callbacks (got {sklearn.__version__}): "
        f"pip install -U scikit-learn, or wrap the estimator: TrackedEstimator(…)"
    )


class SklearnTrackingCallback(Follower):
    """Record the fits of an estimator while they go on: ``estimator.set_callbacks(SklearnTrackingCallback())``.

    Parameters, time, each iteration, each step of a pipeline, each candidate of a search as it is done, also from
    worker processes (``n_jobs=2``), what the search found, and how the fit ended. The model, training scores and
    evaluations are what :class:`~overt.TrackedEstimator` is for, which uses this protocol by itself.

    Parameters
    ----------
    experiment : str, optional
        Where the runs go; as configured if absent.
    run_name : str, optional
        Name of the runs; the estimator's class and four characters if absent.
    tags, params : mapping, optional
        Recorded besides what the estimator gives.
    notes : str, optional
        Markdown for the run's page.
    run : Run, optional
        Record into this run and leave it open.
    parent : Run or str, optional
        Run, or key of one, to nest the runs in.
    tracker : Tracker, optional
        Settings to use.
    live_scores : bool
        Whether each iteration is scored on its training data (``train_loss``, ``train_accuracy``; ``train_rmse``,
        ``train_r2``), which costs a prediction each time.
    max_propagation_depth : int, optional
        How deep scikit-learn hands the callback on to inner estimators: 0 to none; by default to all that take
        callbacks, and scikit-learn warns of those that take none.

    Raises
    ------
    ConfigurationError
        For a setting of the wrong type.
    MissingExtra
        Where scikit-learn is older than 1.9.

    Examples
    --------
    >>> import overt
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> with overt.testing.captured_runs() as runs:
    ...     callback = overt.SklearnTrackingCallback(live_scores=True)
    ...     model = LogisticRegression(max_iter=10, tol=0.1).set_callbacks(callback).fit(*load_iris(return_X_y=True))
    >>> losses = [point.value for point in runs[0].history if point.name == "train_loss"]
    >>> runs[0].status, len(losses) == model.n_iter_[0], losses[-1] < losses[0]
    ('FINISHED', True, True)
    """

    def __init__(
        self,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        notes: str | None = None,
        run: Run | None = None,
        parent: Run | str | None = None,
        tracker: Tracker | None = None,
        live_scores: bool = False,
        max_propagation_depth: int | None = None,
    ) -> None:
        check_is_flag("live_scores", live_scores)
        check_depth(max_propagation_depth)
        super().__init__(None, live_scores=bool(live_scores), max_propagation_depth=max_propagation_depth)
        self._settings: dict[str, Any] = {
            "experiment": experiment,
            "run_name": run_name,
            "tags": tags,
            "params": params,
            "notes": notes,
            "run": run,
            "parent": parent,
            "tracker": tracker,
        }
        check_hook(**self._settings)
        self._runs: dict[UUID, Run] = {}
        self._fits: dict[UUID, _Fit] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        """Open the run of a fit that begins."""
        hook = open_for_hook(type(final_estimator(estimator)).__name__, **self._settings)
        FitRecorder(hook.run, None, None).params(estimator)
        self._runs[context.root_uuid] = hook.run
        self._fits[context.root_uuid] = _Fit(hook)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Record what the fit has left, and end its run as the fit has ended."""
        self._runs.pop(context.root_uuid, None)
        fit = self._fits.pop(context.root_uuid, None)
        if fit is not None:
            fit.end(estimator, self._settings["tracker"])

    def run_of(self, context: Any) -> Run | None:
        """The run of the fit that a task is part of."""
        return self._runs.get(context.root_uuid)

    def __getstate__(self) -> dict[str, Any]:
        runs = {key: sent for key, run in list(self._runs.items()) if (sent := sendable(run)) is not None}
        settings = self._settings | {"run": sendable(self._settings["run"])}
        return super().__getstate__() | {"_runs": runs, "_fits": {}, "_settings": settings}


class _Fit:
    """One fit between its setup and its teardown, both in the process that calls it."""

    def __init__(self, hook: HookRun) -> None:
        self._hook = hook
        self._began = time.perf_counter()
        self._error_before = sys.exception()  # the fit may be called while another error is handled

    def end(self, estimator: Any, tracker: Tracker | None) -> None:
        error = sys.exception()
        if error is self._error_before:
            error = None
        run, seconds = self._hook.run, time.perf_counter() - self._began
        run.log_metric("fit_seconds", seconds)
        if error is None:
            recorder = FitRecorder(run, None, None)
            recorder.history(lambda: training_history(estimator))
            if (search := search_in(estimator)) is not None:
                recorder.search(search, prefix="", child_runs=0, tracker=tracker)
        if self._hook.owned:
            status = status_of(error)
            run.finish(status, error=error if status == "FAILED" else None)
