"""What scikit-learn's own callbacks tell while a fit goes on: it is recorded at once, from whichever process tells it.

A task that is one of an ordered series (an iteration, a step of a pipeline) gives a point of its own. Where tasks lie
side by side, such as the candidates of a search, each of them gives one and what goes on inside them none: hundreds of
overlapping series would say nothing. No hook raises into the fit.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error

from overt.errors import RecordError
from overt.guard import recorded_part
from overt.run import Run


class Follower:
    """A ``FitCallback`` and ``AutoPropagatedCallback`` of scikit-learn 1.9 that records into one run.

    Parameters
    ----------
    run : Run or None
        None records nothing.
    live_scores : bool
        Whether each step is scored on its training data, which costs a prediction each time.
    max_propagation_depth : int or None
        How deep scikit-learn hands it on to inner estimators; None for all that take callbacks.
    is_continued : bool
        Whether the fit goes on with one that has recorded its iterations: theirs come behind.
    """

    def __init__(
        self,
        run: Run | None,
        *,
        live_scores: bool,
        max_propagation_depth: int | None,
        is_continued: bool = False,
    ) -> None:
        self._run = run
        self._is_continued = is_continued
        self._began: dict[tuple[Any, ...], float] = {}
        self.live_scores = live_scores
        self.max_propagation_depth = max_propagation_depth

    def setup(self, estimator: Any, context: Any) -> None:
        """The run is there already."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """The run goes on."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Note the time."""
        self._began[_path(context)] = time.perf_counter()

    @property
    def on_fit_task_end(self) -> Any:
        """The hook; scikit-learn reads in its signature what it wants, and makes that ready for it."""
        return self._end_with_scores if self.live_scores else self._end

    def run_of(self, context: Any) -> Run | None:
        """The run that a task is recorded in."""
        return self._run

    def _end(self, estimator: Any, context: Any, *, X: Any = None) -> None:
        self._end_with_scores(estimator, context, X=X)

    def _end_with_scores(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        y: Any = None,
        metadata: Any = None,
        fitted_estimator: Any = None,
    ) -> None:
        began = self._began.pop(_path(context), None)
        run = self.run_of(context)
        if run is None or X is None or _is_root(context) or _is_beside_others(context.parent):  # without X: nothing ran
            return
        seconds = 0.0 if began is None else time.perf_counter() - began
        with recorded_part(run, "live metrics"):
            name = re.sub(r"\W+", "_", context.source_task_name or context.task_name)
            step = None if self._is_continued else context.task_id + _count_of_earlier_rounds(context)
            run.log_metric(f"{name}_seconds", seconds, step=step)
            is_beside_others = _is_beside_others(context)
            is_iteration = context.max_subtasks == 0  # else its last one has the same score
            if fitted_estimator is not None and y is not None and (is_iteration or is_beside_others):
                prefix = f"{name}_train_" if is_beside_others else "train_"
                weight = (metadata or {}).get("sample_weight")
                for score, value in scores_on(fitted_estimator, X, y, weight).items():
                    run.log_metric(prefix + score, value, step=step)
            if run.is_inherited:  # a worker: it may idle for minutes from here on, or be killed
                run.let_go()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_began": {}, "_run": sendable(self._run)}


_NO_LIVE_SCORES = (
    "live_scores=True finds no iterations to score in this fit (got a {}): scikit-learn 1.9 tells of those of "
    "LogisticRegression (lbfgs), alone or in a pipeline whose steps all take callbacks, as StandardScaler does. For "
    "one inside another pipeline or a search: pipeline.set_callbacks(SklearnTrackingCallback(live_scores=True))"
)


@contextmanager
def following(estimator: Any, run: Run, *, live_scores: bool, is_continued: bool) -> Iterator[None]:
    """Let the fit in the block tell how it goes, where scikit-learn supports it; the user's own callbacks stay."""
    if live_scores and not _all_take_callbacks(estimator):
        run.warn(_NO_LIVE_SCORES.format(type(estimator).__name__))
    if run.is_null or not _takes_callbacks(estimator):
        yield
        return
    from sklearn.callback import CallbackSupportMixin

    theirs = list(getattr(estimator, "_skl_callbacks", ()))
    depth = None if _all_take_callbacks(estimator) else 0
    ours = Follower(run, live_scores=live_scores, max_propagation_depth=depth, is_continued=is_continued)
    CallbackSupportMixin.set_callbacks(estimator, *theirs, ours)  # the class's own may warn, and we know
    try:
        yield
    finally:
        CallbackSupportMixin.set_callbacks(estimator, *theirs)


def _takes_callbacks(estimator: Any) -> bool:
    callbacks = sys.modules.get("sklearn.callback")  # scikit-learn 1.9 and newer; what takes them has imported it
    return callbacks is not None and isinstance(estimator, callbacks.CallbackSupportMixin)


def _all_take_callbacks(estimator: Any) -> bool:
    """Whether scikit-learn hands callbacks on without a warning: one that takes none has it warn in each worker."""
    if hasattr(estimator, "param_grid") or hasattr(estimator, "cv"):
        return False  # of a search each candidate is told of, and nothing in it
    inner = [step for _, step in getattr(estimator, "steps", ()) if step not in (None, "passthrough")]
    return _takes_callbacks(estimator) and _solver_tells(estimator) and all(map(_all_take_callbacks, inner))


def _solver_tells(estimator: Any) -> bool:
    return getattr(estimator, "solver", "lbfgs") == "lbfgs"  # LogisticRegression warns of its other solvers


def _path(context: Any) -> tuple[Any, ...]:
    ids = [context.root_uuid]
    while context is not None:
        ids.append(context.task_id)
        context = context.parent
    return tuple(ids)


def _is_root(context: Any) -> bool:
    return context.parent is None


def _is_beside_others(context: Any) -> bool:
    """Whether the task, or one that it is part of, is one of several in no order."""
    while context is not None and context.parent is not None:
        if not context.parent.sequential_subtasks:
            return True
        context = context.parent
    return False


def _count_of_earlier_rounds(context: Any) -> int:
    """How many tasks lay side by side before: a halving search begins to count anew in each of its rounds."""
    this = context.parent
    if this.sequential_subtasks or this.parent is None:
        return 0
    # Private in scikit-learn 1.9: the one official way, to iterate over the context, visits every task of every round.
    rounds = getattr(this.parent, "_children_map", {}).values()
    return sum(other.max_subtasks or 0 for other in rounds if other.task_id < this.task_id)


def scores_on(fitted: Any, X: Any, y: Any, sample_weight: Any) -> Mapping[str, float]:
    """Few and quick: the loss and the rate of hits, or the error of a regression and what it explains."""
    if is_classifier(fitted):
        scores = {"accuracy": accuracy_score(y, fitted.predict(X), sample_weight=sample_weight)}
        if hasattr(fitted, "predict_proba"):
            probabilities = fitted.predict_proba(X)
            loss = log_loss(y, probabilities, labels=fitted.classes_, sample_weight=sample_weight)
            scores = {"loss": loss, **scores}
        return {name: float(value) for name, value in scores.items()}
    if is_regressor(fitted):
        predicted = fitted.predict(X)
        return {
            "rmse": float(root_mean_squared_error(y, predicted, sample_weight=sample_weight)),
            "r2": float(r2_score(y, predicted, sample_weight=sample_weight)),
        }
    return {}


def sendable(run: Run | None) -> Run | None:
    """``run`` if it can be sent to a worker: recording is no reason for a parallel fit to fail."""
    try:
        if run is not None:
            run.__reduce__()
    except RecordError:
        return None
    return run
