"""Compare three classifiers on the breast cancer data, choose the best by F1 score, load it back and register it.

The end-to-end example of the document that overt implements, with overt: the same data, models and comparison. The
scaler is part of each model here, so that what is saved can be used on raw data.

Run it with ``make demo``, or ``python examples/compare_classifiers.py`` where overt is installed.
"""

from __future__ import annotations

import numpy
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import overt

EXPERIMENT = "breast-cancer-classification"
MODELS = {
    "rf-baseline": RandomForestClassifier(n_estimators=100, max_depth=10, random_state=42),
    "rf-tuned": RandomForestClassifier(n_estimators=300, max_depth=20, random_state=42),
    "gb-baseline": GradientBoostingClassifier(n_estimators=200, max_depth=5, learning_rate=0.1, random_state=42),
}


def main() -> None:
    """Fit, evaluate, compare, load back."""
    data = load_breast_cancer(as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(
        data.data, data.target, test_size=0.2, random_state=42, stratify=data.target
    )

    fitted = {}
    for name, classifier in MODELS.items():
        model = overt.TrackedEstimator(
            make_pipeline(StandardScaler(), classifier),
            experiment=EXPERIMENT,
            run_name=name,
            cv=5,
            class_names=list(data.target_names),
            tags={"developer": "daeyoung", "dataset": "breast_cancer"},
            params={"test_size": 0.2},
        )
        model.fit(X_train, y_train)
        model.evaluate(X_test, y_test)
        fitted[name] = model

    show_table({name: model.run_ for name, model in fitted.items()})
    best = overt.best_run("f1_score", experiment=EXPERIMENT)
    model = fitted[best.name]
    check_loaded_model(model, X_test)

    print(f"\nBest run: {best.name}, f1_score {best.metrics['f1_score']:.4f}")
    print(f"Run id:   {best.id} in experiment {EXPERIMENT!r} of {model.run_.spec.store}")
    print(f"Its model: {model.run_.model_uri}, loaded back with equal predictions")
    if not model.run_.spec.store.startswith(("jsonl:", "csv:")):  # registered models are MLflow's alone
        version = overt.register(best, "breast-cancer-classifier", alias="challenger")
        print(f"Registered as: {version.name} version {version.version}")
    print("\nTo look at the runs:  overt ui")


def show_table(runs: dict[str, overt.Run]) -> None:
    """Print one line per run."""
    columns = ["accuracy", "f1_score", "precision", "recall", "roc_auc", "cv_mean_accuracy", "cv_std_accuracy"]
    print("\n" + " " * 14 + "".join(f"{column:>18}" for column in columns))
    for name, run in runs.items():
        print(f"{name:<14}" + "".join(f"{run.metrics[column]:>18.4f}" for column in columns))


def check_loaded_model(best: overt.TrackedEstimator, X_test) -> None:
    """Load the best model with overt, and as any colleague would without it, and compare the predictions."""
    import mlflow

    mlflow.set_tracking_uri(best.run_.spec.store)
    loaded = {
        "overt.load_model": overt.load_model(best.run_, allow_pickle=True),
        "mlflow.sklearn.load_model": mlflow.sklearn.load_model(best.run_.model_uri),
        "mlflow.pyfunc.load_model": mlflow.pyfunc.load_model(best.run_.model_uri),
    }
    for how, model in loaded.items():
        if not numpy.array_equal(model.predict(X_test), best.predict(X_test)):
            raise SystemExit(f"{how}: the loaded model predicts something else")


if __name__ == "__main__":
    main()
