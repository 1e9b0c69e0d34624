"""What a fitted estimator leaves in its run. Each part is recorded on its own: where one fails, the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from overt.capture.params import estimator_params, final_estimator, secret_params, unwrapped
from overt.capture.rows import count_shared, joined, row_digests
from overt.capture.secrets import REDACTED
from overt.evaluation.importances import importances
from overt.evaluation.report import Report
from overt.evaluation.search import Candidate, SearchResult
from overt.guard import recorded_part
from overt.integrations.sklearn.crossval import CrossValidation
from overt.integrations.sklearn.evaluating import (
    can_be_evaluated,
    evaluate,
    importances_of,
    own_score,
)
from overt.integrations.sklearn.live import scores_on
from overt.integrations.sklearn.path import names_of_features
from overt.integrations.sklearn.search import ChildRuns, model_type_of, record_children, result_of, scores_of
from overt.models.sklearn import ModelFormat, sklearn_model
from overt.run import Run
from overt.tracker import Tracker

MODEL_NAME = "model"

Curves = Mapping[str, Sequence[float]]
Lengths = Mapping[str, int]
"""How many points the curves of a fit have, by name."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a score stands: the fit within the run, and the model and data that it is a score of."""

    step: int
    model: str | None
    dataset: str | None


@dataclass(frozen=True, slots=True)
class FitRecorder:
    """Records one fit into one run.

    Attributes
    ----------
    class_names, pos_label
        As :class:`~overt.TrackedEstimator` takes them.
    """

    run: Run
    class_names: Sequence[str] | None
    pos_label: Any

    def params(self, estimator: Any, known: Mapping[str, str] = MappingProxyType({})) -> Mapping[str, str]:
        """All parameters, deep, and what kind of model it is, but for those that are ``known`` already; all of them."""
        with recorded_part(self.run, "params"):
            params = estimator_params(estimator, name=type(unwrapped(estimator)).__name__)
            for name, text in params.items():
                if known.get(name) != text:
                    self.run.log_param(name, text)
            return params
        return known

    def dataset(self, X: Any, y: Any, *, name: str, context: str) -> str | None:
        """Shape, types and digest of the data; what metrics refer to it by."""
        with recorded_part(self.run, f"dataset {name}"):
            return self.run.log_dataset(X, y, name=name, context=context)
        return None

    def html(self, estimator: Any) -> None:
        """scikit-learn's own diagram; of an estimator that holds secrets that of an unfitted copy without them."""
        from sklearn.base import clone
        from sklearn.utils import estimator_html_repr

        with recorded_part(self.run, "estimator.html"):
            # in what scikit-learn has cut in its midst, the end of a secret no longer tells what it is
            if secrets := secret_params(estimator):
                estimator = clone(estimator).set_params(**dict.fromkeys(secrets, REDACTED))
            self.run.log_text(estimator_html_repr(estimator), "estimator.html")

    def model(self, estimator: Any, X: Any, *, model_format: ModelFormat, register_as: str | None) -> str | None:
        """The fitted estimator itself; the name that metrics refer to it by."""
        with recorded_part(self.run, "model"):
            params = {name: value for name, value in self.run.params.items() if len(value) <= 250}
            files = sklearn_model(estimator, X, model_format=model_format, params=params)
            self.run.log_model(files, name=MODEL_NAME, register_as=register_as)
            if files.notes:
                self.run.set_tag("overt.model_note", "; ".join(files.notes))
            return MODEL_NAME
        return None

    def rows(self, X: Any, y: Any, *, before: Any) -> Any:
        """Digests of the training data's rows, by which held-out data are told from it, and those of ``before``."""
        if self.run.is_null:
            return None
        with recorded_part(self.run, "digests of the rows"):
            return joined(before, row_digests(X, y))
        return before

    def overlap(self, training: Any, X: Any, y: Any, *, prefix: str, given_to: str) -> None:
        """Say how many rows of evaluated data the model was fitted to; none takes back what was said of other data."""
        with recorded_part(self.run, "overlap"):
            rows = row_digests(X, y)
            if rows is None:
                return
            n_shared = count_shared(training, rows)
            tag = f"overt.overlap_rows{'.' if prefix else ''}{prefix.removesuffix('_')}"
            if n_shared or tag in self.run.tags:
                self.run.set_tag(tag, n_shared)
            if n_shared:
                self.run.warn(
                    f"{n_shared} of the {len(rows)} rows given to {given_to} are rows of the training data of run "
                    f"{self.run.name}, so their scores are better than those of new data. "
                    f"To leave this unchecked: TrackedEstimator(…, check_overlap=False)"
                )

    def live_scores(self, fitted: Any, X: Any, y: Any, *, sample_weight: Any, known: Lengths) -> None:
        """Few scores of what has just been learned from, but for those that the estimator keeps a curve of itself."""
        with recorded_part(self.run, "live metrics"):
            for name, value in scores_on(fitted, X, y, sample_weight).items():
                if f"train_{name}" not in known:
                    self.run.log_metric(f"train_{name}", value)

    def training_scores(self, estimator: Any, X: Any, y: Any, *, sample_weight: Any, place: Place) -> None:
        """Scores on the training set, under names that say so."""
        if not can_be_evaluated(estimator):
            return
        with recorded_part(self.run, "training metrics"):
            report = evaluate(
                estimator,
                X,
                y,
                class_names=self.class_names,
                pos_label=self.pos_label,
                sample_weight=sample_weight,
            )
            # curves on the training set show what a model remembers: two of two classes are kept, as autolog has them
            kept = ("roc", "precision_recall") if report.kind == "binary" else ()
            scores = replace(report, curves={name: report.curves[name] for name in kept if name in report.curves})
            self.run.log_report(scores, prefix="training_", step=place.step, model=place.model, dataset=place.dataset)

    def own_score(self, estimator: Any, X: Any, y: Any, *, sample_weight: Any, place: Place) -> None:
        """What the estimator's own ``score`` says of the training set, where no other metric is that."""
        with recorded_part(self.run, "training score"):
            score = own_score(estimator, X, y, sample_weight=sample_weight)
            if score is not None:
                self.run.log_metric("training_score", score, step=place.step, model=place.model, dataset=place.dataset)

    def history(self, curves: Callable[[], Curves], known: Lengths = MappingProxyType({})) -> Lengths:
        """Curves as series with one step an iteration; what ``known`` says of them is there from an earlier fit.

        Returns
        -------
        mapping of str to int
            How many points each series has now.
        """
        lengths = dict(known)
        with recorded_part(self.run, "curves"):
            for name, values in curves().items():
                begin = known.get(name, 0)
                is_continued = len(values) >= begin  # by warm_start and partial_fit; a shorter one has begun anew
                new = values[begin:] if is_continued else values
                lengths[name] = begin + len(new)
                for step, value in enumerate(new, start=begin):
                    self.run.log_metric(name, value, step=step)
        return lengths

    def importances(self, estimator: Any) -> None:
        """What each feature counts for, where the final step says so."""
        with recorded_part(self.run, "feature importances"):
            values = importances_of(final_estimator(estimator))
            if values is not None:
                content, figure = importances(names_of_features(estimator, len(values)), values)
                self.run.log_bytes(content, "feature_importances.csv")
                self.run.log_drawing(figure)

    def report(self, report: Report, *, prefix: str, curves: Lengths, place: Place) -> None:
        """An evaluation; a score that a curve of the fit has the name of is the point after its last."""
        with recorded_part(self.run, f"evaluation {prefix}".strip(" _")):
            for name, value in report.metrics.items():
                step = curves.get(prefix + name, place.step)
                self.run.log_metric(prefix + name, value, step=step, model=place.model, dataset=place.dataset)
            self.run.log_report_files(report, prefix=prefix)

    def search(self, fitted: Any, *, prefix: str, child_runs: ChildRuns, tracker: Tracker | None) -> None:
        """What a search found: the best candidate's params and scores, the table of all, and runs for those wanted."""
        with recorded_part(self.run, "search"):
            result = result_of(fitted)
            if result.best is not None:
                self._best_candidate(result.best, model_type_of(self.run, fitted, result.best), prefix)
            if result.best_score is not None:
                self.run.log_metric("best_cv_score", result.best_score, step=0)
            if (refit_seconds := getattr(fitted, "refit_time_", None)) is not None:
                self.run.log_metric("refit_seconds", refit_seconds, step=0)
            if result.n_failed:
                self.run.set_tag("overt.failed_candidates", f"{result.n_failed} of {len(result.candidates)}")
            self._search_files(result, prefix)
            record_children(self.run, fitted, result, child_runs, tracker=tracker)

    def _best_candidate(self, best: Candidate, model_type: str | None, prefix: str) -> None:
        kind = {} if model_type is None else {"model_type": model_type}
        for name, text in {**kind, **best.params}.items():  # one may have a param of that name
            self.run.log_param(f"best_{name}", text)
        for scorer, scores in best.scores.items():
            for split, score in enumerate(scores):
                self.run.log_metric(f"{prefix}cv_{scorer}", score, step=split)
        self.run.log_metrics({f"{prefix}{name}": value for name, value in scores_of(best).items()}, step=0)

    def _search_files(self, result: SearchResult, prefix: str) -> None:
        self.run.log_bytes(result.to_csv(), f"{prefix}cv_results.csv")
        if (content := result.to_parquet()) is not None:
            self.run.log_bytes(content, f"{prefix}cv_results.parquet")
        for figure in result.iter_figures():
            self.run.log_drawing(figure)

    def cross_validation(self, validate: Callable[[], CrossValidation], *, step: int, dataset: str | None) -> None:
        """Scores fold by fold, their mean and spread, and the report of the out-of-fold predictions."""
        with recorded_part(self.run, "cross-validation"):
            result = validate()
            for name, values in result.scores.items():
                for fold, value in enumerate(values):
                    self.run.log_metric(f"cv_{name}", value, step=fold, dataset=dataset)
            for name, (mean, deviation) in result.means().items():
                both = {f"cv_mean_{name}": mean, f"cv_std_{name}": deviation}
                self.run.log_metrics(both, step=step, dataset=dataset)
            if result.failed:
                self.run.set_tag("overt.cv_failed_folds", ", ".join(map(str, result.failed)))
            self.run.log_bytes(result.table, "cv_results.csv")
            with recorded_part(self.run, "out-of-fold report"):
                report = result.report()
                if report is not None:
                    self.run.log_report_files(replace(report, curves={}), prefix="cv_")
