"""What a tracked estimator knows of its last fit, and what it records of it: nothing of an earlier one survives it.

So the params of one fit can never meet the scores of another, and an evaluation finds the run, the model and the data
that belong together in one place.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from overt.capture.dataset import dataset as describe_data
from overt.capture.digest import digest
from overt.capture.params import describe
from overt.guard import recorded_part
from overt.integrations.sklearn.crossval import CrossValidation
from overt.integrations.sklearn.evaluating import can_be_asked, is_clusterer
from overt.integrations.sklearn.histories import name_of_held_out, staged_scores, training_history
from overt.integrations.sklearn.path import seen_by_final
from overt.integrations.sklearn.recording import FitRecorder, Lengths, Place
from overt.integrations.sklearn.routing import evaluated_in_fit
from overt.integrations.sklearn.search import ChildRuns, has_own_score, model_of, search_in
from overt.models.sklearn import ModelFormat
from overt.run import Run
from overt.tracker import Tracker


class Evaluations:
    """Which data have been evaluated without a name in one run, and by which of the fits that share it."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, str | None], int] = {}

    def number(self, fit: int, dataset: str | None) -> int:
        """1 for the first evaluation and for its repetitions, 2 for that of other data or by another fit, and so on."""
        return self._numbers.setdefault((fit, dataset), len(self._numbers) + 1)


_identities = itertools.count()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fit was made of, and with which settings its run was opened.

    Attributes
    ----------
    kinds : tuple of type
        Classes of the estimator and of the final one inside it.
    settings : mapping
        Keywords of :func:`overt.tracker.open_for_hook`.
    """

    kinds: tuple[type, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def is_kin_of(self, other: Origin) -> bool:
        """Whether a fit of the one can go on with what a fit of the other has left."""
        return self.kinds == other.kinds

    def shares_run_with(self, other: Origin) -> bool:
        """Whether a fit that goes on with another belongs in its run."""
        return self.is_kin_of(other) and are_same_settings(self.settings, other.settings)


def are_same_settings(settings: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether runs that are opened with the one would be where those of the other are."""
    return all(_is_same_setting(value, others[name]) for name, value in settings.items())


def _is_same_setting(value: Any, other: Any) -> bool:
    return value is other or (not isinstance(value, Run | Tracker) and describe(value) == describe(other))


@dataclass(slots=True)
class LastFit:
    """The last fit.

    Attributes
    ----------
    dataset : str or None
        ``name#digest`` of the training data.
    number : int
        Which one it is of those that share the run, from 1: ``warm_start`` and ``partial_fit`` go on with a run.
    curves : mapping of str to int
        How many points each curve has.
    model : str or None
        What metrics refer to the model by.
    rows : array or None
        Digests of the training data's rows, those of the fits that it goes on with included.
    origin : Origin
        What it was made of and for.
    evaluations : Evaluations
        Of this fit, and of others where clones share a run.
    """

    dataset: str | None = None
    number: int = 1
    curves: Lengths = field(default_factory=dict)
    model: str | None = None
    rows: Any = None
    origin: Origin = field(default_factory=Origin)
    evaluations: Evaluations = field(default_factory=Evaluations)
    _identity: int = field(default_factory=_identities.__next__)

    @property
    def step(self) -> int:
        """Where its scores stand in the series of those that share the run."""
        return max(self.number - 1, 0)

    def number_of_evaluation(self, dataset: str | None) -> int:
        """1 for the first data that was evaluated without a name and for its repetitions, 2 for other data."""
        return self.evaluations.number(self._identity, dataset)

    def was_on(self, X: Any, y: Any) -> bool:
        """Whether these are the training data."""
        digest = (self.dataset or "").rpartition("#")[2]
        return bool(digest == describe_data(X, y, name="train").digest)


@contextmanager
def telling_of_failure(run: Run, *, is_wanted: bool) -> Iterator[None]:
    """Say in a run that has ended already, and goes on with this fit, what the fit died of; the status stays."""
    try:
        yield
    except Exception as error:
        if is_wanted:
            run.set_tag("overt.error", "".join(traceback.format_exception_only(error)).strip())
            run.log_text("".join(traceback.format_exception(error)), "overt/traceback.txt")
        raise


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be recorded of a fit, as :class:`~overt.TrackedEstimator` takes it; without ``cv`` no ``folds``."""

    child_runs: ChildRuns
    log_model: bool
    model_format: ModelFormat
    register_as: str | None
    training_metrics: bool
    check_overlap: bool
    folds: Callable[[], CrossValidation] | None
    tracker: Tracker | None


def record_fit(
    estimator: Any, X: Any, y: Any, *, fit: LastFit, recorder: FitRecorder, wanted: Wanted, sample_weight: Any
) -> None:
    """Record what follows from a fit: search, model, scores, rows, diagram, importances and folds."""
    if (search := search_in(estimator)) is not None:
        prefix = "" if wanted.folds is None else "search_"  # the plain names are those of the outer folds
        recorder.search(search, prefix=prefix, child_runs=wanted.child_runs, tracker=wanted.tracker)
    if wanted.log_model and (model := model_of(estimator)) is not None:
        fit.model = recorder.model(model, X, model_format=wanted.model_format, register_as=wanted.register_as)
    if wanted.training_metrics and model_of(estimator) is not None:  # else a search without a refit
        place = Place(fit.step, fit.model, fit.dataset)
        if can_be_asked(estimator) and (y is not None or is_clusterer(estimator)):
            recorder.training_scores(estimator, X, y, sample_weight=sample_weight, place=place)
        if y is not None and has_own_score(estimator):
            recorder.own_score(estimator, X, y, sample_weight=sample_weight, place=place)
    if wanted.check_overlap and y is not None:
        fit.rows = recorder.rows(X, y, before=fit.rows)
    recorder.html(estimator)
    recorder.importances(estimator)
    if wanted.folds is not None:
        recorder.cross_validation(wanted.folds, step=fit.step, dataset=fit.dataset)


def record_curves(
    estimator: Any, X: Any, *, fit: LastFit, recorder: FitRecorder, fit_params: Mapping[str, Any], eval_set: Any
) -> None:
    """Record the curves that a fit has left behind, and those on the data that it was not fitted to."""
    evaluated, are_training = _evaluated(estimator, X, recorder=recorder, fit_params=fit_params)
    fit.curves = recorder.history(lambda: training_history(estimator, eval_sets=are_training), fit.curves)
    held_out = [data for data, is_training in zip(evaluated, are_training, strict=True) if not is_training]
    named = {"val" if number == 1 else f"val_{number}": data for number, data in enumerate(held_out, start=1)}
    if eval_set is not None:
        name = name_of_held_out(estimator)
        recorder.dataset(*eval_set, name=name, context=name)
        fit.curves = recorder.history(lambda: staged_scores(estimator, *eval_set, name=name), fit.curves)
        named[name] = eval_set
    if fit.rows is not None:
        for name, data in named.items():
            recorder.overlap(fit.rows, *data, prefix=f"{name}_", given_to="fit(…, eval_set=…)")


def _evaluated(
    estimator: Any, X: Any, *, recorder: FitRecorder, fit_params: Mapping[str, Any]
) -> tuple[list[tuple[Any, Any]], list[bool]]:
    """What the estimator itself has evaluated in its fit, and whether each is the training data."""
    with recorded_part(recorder.run, "evaluation sets"):
        evaluated = evaluated_in_fit(fit_params)
        return evaluated, _are_training(evaluated, estimator, X) if evaluated else []
    return [], []


def _are_training(evaluated: Sequence[tuple[Any, Any]], estimator: Any, X: Any) -> list[bool]:
    """Whether each is the training data: the very object, or equal to it as given or as the final step had it."""
    seen = [X] if (before := seen_by_final(estimator, X)) is X else [X, before]
    return [any(_is_same_data(data, training) for training in seen) for data, _ in evaluated]


def _is_same_data(data: Any, other: Any) -> bool:
    if data is other:
        return True
    is_same_shape = getattr(data, "shape", None) == getattr(other, "shape", None)  # a digest reads every byte
    return is_same_shape and digest(data) == digest(other)
