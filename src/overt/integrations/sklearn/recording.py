"""What a fitted estimator leaves in its run. Each part is recorded on its own: where one fails, the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from overt.capture.params import estimator_params, final_estimator
from overt.evaluation.importances import importances
from overt.evaluation.report import Report
from overt.guard import recorded_part
from overt.integrations.sklearn.crossval import CrossValidation
from overt.integrations.sklearn.evaluating import can_be_evaluated, evaluate, importances_of, names_of_features
from overt.models.sklearn import ModelFormat, sklearn_model
from overt.run import Run

MODEL_NAME = "model"


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

    def params(self, estimator: Any) -> None:
        """All parameters, deep, and what kind of model it is."""
        with recorded_part(self.run, "params"):
            for name, text in estimator_params(estimator, name=type(estimator).__name__).items():
                self.run.log_param(name, text)

    def dataset(self, X: Any, y: Any, *, name: str, context: str) -> str | None:
        """Shape, types and digest of the data; what metrics refer to it by."""
        with recorded_part(self.run, f"dataset {name}"):
            return self.run.log_dataset(X, y, name=name, context=context)
        return None

    def html(self, estimator: Any) -> None:
        """scikit-learn's own diagram."""
        from sklearn.utils import estimator_html_repr

        with recorded_part(self.run, "estimator.html"):
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

    def training_scores(
        self, estimator: Any, X: Any, y: Any, *, sample_weight: Any, model: str | None, dataset: str | None
    ) -> None:
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
            # curves on the training set show what a model remembers: only the scores, tables and matrix are kept
            self.run.log_report(replace(report, curves={}), prefix="training_", model=model, dataset=dataset)

    def importances(self, estimator: Any) -> None:
        """What each feature counts for, where the final step says so."""
        with recorded_part(self.run, "feature importances"):
            values = importances_of(final_estimator(estimator))
            if values is not None:
                content, figure = importances(names_of_features(estimator, len(values)), values)
                self.run.log_bytes(content, "feature_importances.csv")
                self.run.log_drawing(figure)

    def report(self, report: Report, *, prefix: str, model: str | None, dataset: str | None) -> None:
        """An evaluation."""
        with recorded_part(self.run, f"evaluation {prefix}".strip(" _")):
            self.run.log_report(report, prefix=prefix, model=model, dataset=dataset)

    def cross_validation(self, validate: Callable[[], CrossValidation], *, dataset: str | None) -> None:
        """Scores fold by fold, their mean and spread, and the report of the out-of-fold predictions."""
        with recorded_part(self.run, "cross-validation"):
            result = validate()
            for name, values in result.scores.items():
                for fold, value in enumerate(values):
                    self.run.log_metric(f"cv_{name}", value, step=fold, dataset=dataset)
            for name, (mean, deviation) in result.means().items():
                self.run.log_metrics({f"cv_mean_{name}": mean, f"cv_std_{name}": deviation}, step=0, dataset=dataset)
            if result.failed:
                self.run.set_tag("overt.cv_failed_folds", ", ".join(map(str, result.failed)))
            self.run.log_bytes(result.table, "cv_results.csv")
            with recorded_part(self.run, "out-of-fold report"):
                report = result.report()
                if report is not None:
                    self.run.log_report_files(replace(report, curves={}), prefix="cv_")
