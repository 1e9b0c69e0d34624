"""The source document's eight ways of working with overt: each test is named after the section whose flow it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.preprocessing import StandardScaler
from tests.source_document.csv_tracker import SimpleExperimentTracker
from tests.source_document.jsonl_tracker import LightExperimentTracker

import overt
from overt.importing import import_runs
from overt.query.finding import open_configured, run_id_of

pytestmark = pytest.mark.timeout(180)
PARAMS = {"n_estimators": 100, "max_depth": 10, "random_state": 42}
TUNED = {"n_estimators": 300, "max_depth": 20, "random_state": 42}


def started(frame: pd.DataFrame) -> list[pd.Timestamp]:
    return [moment.tz_convert(None) for moment in frame["start_time"]]


def test_section_1_a_csv_tracker(capsys: pytest.CaptureFixture[str], sqlite_uri: str) -> None:
    theirs = SimpleExperimentTracker("my_experiments.csv")
    theirs.log_run("rf-baseline", PARAMS, {"accuracy": 0.92, "f1_score": 0.89}, notes="Random Forest 베이스라인")
    theirs.log_run("rf-tuned", TUNED, {"accuracy": 0.95, "f1_score": 0.93}, notes="하이퍼파라미터 튜닝 후")

    overt.configure(store="csv:my_experiments.csv")
    for experiment, params, metrics in (("ours", PARAMS, {"accuracy": 0.97}), ("more", TUNED, {"roc_auc": 0.99})):
        with overt.start_run(experiment=experiment, params=params, notes="with overt") as run:
            run.log_metrics(metrics)

    runs = overt.runs(order_by="start_time ASC")
    assert list(runs["experiment"]) == ["rf-baseline", "rf-tuned", "ours", "more"]
    assert list(runs["param_n_estimators"]) == [100, 300, 100, 300]
    assert list(runs["notes"]) == ["Random Forest 베이스라인", "하이퍼파라미터 튜닝 후", "with overt", "with overt"]
    assert overt.best_run("accuracy").experiment == "ours"
    assert overt.best_run("f1_score").metrics == {"accuracy": 0.95, "f1_score": 0.93}

    again = SimpleExperimentTracker("my_experiments.csv")  # and the document's own class reads ours
    assert again.best_run()["experiment"] == "ours"
    assert list(again.summary()["experiment"])[-2:] == ["rf-tuned", "rf-baseline"]
    assert again.df.loc[3, "metric_roc_auc"] == 0.99

    (baseline, tuned, *_) = imported = list(import_runs(Path("my_experiments.csv"), store=sqlite_uri))
    assert len(imported) == 4
    carried = overt.runs(experiment="rf-tuned", store=sqlite_uri)
    assert list(carried["run_id"]) == [tuned.run_id]
    assert carried.loc[0, "metric_f1_score"] == 0.93
    written = pd.to_datetime(again.df.loc[1, "timestamp"]).tz_localize("UTC" if _is_utc() else None)
    assert abs((carried.loc[0, "start_time"] - written.tz_convert("UTC")).total_seconds()) < 0.01
    assert {done.run_id for done in import_runs(Path("my_experiments.csv"), store=sqlite_uri)} >= {baseline.run_id}
    assert len(overt.runs(store=sqlite_uri)) == 4, "a second import doubles nothing"


def _is_utc() -> bool:
    from datetime import datetime

    return datetime.now().astimezone().utcoffset().total_seconds() == 0


def test_section_2_setting_mlflow_up(mlflow_server: str, sqlite_uri: str) -> None:
    """The tracking URI and the experiment: as overt is told, or as MLflow was."""
    import mlflow

    for configure in (
        lambda uri, name: overt.configure(store=uri, experiment=name),
        lambda uri, name: (mlflow.set_tracking_uri(uri), mlflow.set_experiment(name)),
    ):
        overt.configure(store=None, experiment=None)
        try:
            for uri in (sqlite_uri, mlflow_server):
                name = f"fraud-detection-v2-{np.random.default_rng().integers(10**9)}"
                configure(uri, name)
                with overt.start_run("first") as run:
                    run.log_metric("accuracy", 0.9)
                run_id = run.id
                experiment = mlflow.MlflowClient(uri).get_experiment_by_name(name)
                assert experiment is not None
                (found,) = mlflow.MlflowClient(uri).search_runs([experiment.experiment_id])
                assert found.info.run_id == run_id
                assert experiment.artifact_location
        finally:
            mlflow.set_tracking_uri(None)
            mlflow.tracking.fluent._active_experiment_id = None
    with pytest.raises(overt.OvertError, match="MLflow no longer takes plain folders"):
        overt.start_run(tracker=overt.Tracker(store="file:///tmp/my-mlflow-runs"))


def test_section_3_autologging_without_patching(store: str) -> None:
    """What ``mlflow.sklearn.autolog()`` is shown to record, by a wrapper, and nothing of scikit-learn is touched."""
    X, y = load_iris(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
    before = (RandomForestClassifier.fit, RandomForestClassifier.predict)
    model = overt.TrackedEstimator(
        RandomForestClassifier(n_estimators=100, max_depth=5, random_state=42), run_name="rf-autolog-demo"
    )
    model.fit(X_train, y_train)
    report = model.evaluate(X_test, y_test)
    assert (RandomForestClassifier.fit, RandomForestClassifier.predict) == before
    details = open_configured().read_run(run_id_of(open_configured(), "rf-autolog-demo"))
    assert {"n_estimators": "100", "max_depth": "5", "criterion": "gini"}.items() <= details.run.params.items()
    assert {"training_accuracy", "training_f1_score", "accuracy", "f1_score"} <= details.run.metrics.keys()
    assert details.run.metrics["accuracy"] == report["accuracy"] == model.score(X_test, y_test)
    assert {"feature_importances.png", "confusion_matrix.json"} <= {file.path for file in details.files}
    assert [model.name for model in details.models] == ["model"]


def test_section_4_manual_logging(store: str, tmp_path: Path) -> None:
    config_path = tmp_path / "config.json"
    config_path.write_text(json.dumps({"preprocessing": "standard_scaler", "feature_count": 20}, indent=2))
    outputs = tmp_path / "outputs"
    (outputs / "deep").mkdir(parents=True)
    (outputs / "deep" / "notes.txt").write_text("한글")

    with overt.start_run("manual-run-001", experiment="manual-logging-demo", notes="by hand") as run:
        run.log_param("model_type", "RandomForest")
        run.log_param("feature_selection", "top_20_by_importance")
        run.log_params({"learning_rate": 0.01, "batch_size": 64, "optimizer": "adam"})
        run.log_metric("accuracy", 0.94)
        run.log_metrics({"f1_score": 0.91, "precision": 0.93, "recall": 0.89})
        for epoch in range(10):
            run.log_metric("train_loss", 1.0 / (epoch + 1), step=epoch)
        run.log_artifact(config_path)
        run.log_artifact(outputs, "outputs")
        run.log_dict({"a": [1, 2]}, "config/extra.json")
        run.log_table(pd.DataFrame({"a": [1, 2]}), "table.csv")
        run.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "image.png")
        run.log_figure(_figure(), "figure.png")
        run.set_tag("developer", "daeyoung")
        run.set_tags({"purpose": "baseline_comparison"})
        with overt.start_run("nested") as nested:
            nested.log_metric("accuracy", 0.5)
    with overt.start_run(resume=run.key) as again:
        again.log_metric("train_loss", 0.05)
        assert again.id == run.id

    reading = open_configured()
    details = reading.read_run(run.id)
    assert details.run.status == "FINISHED"
    assert details.run.params == {
        "model_type": "RandomForest",
        "feature_selection": "top_20_by_importance",
        "learning_rate": "0.01",
        "batch_size": "64",
        "optimizer": "adam",
    }
    losses = overt.history(run, "train_loss")
    assert list(losses["step"]) == list(range(11))
    assert list(losses["value"]) == [*(1.0 / (epoch + 1) for epoch in range(10)), 0.05]
    paths = {file.path for file in details.files}
    assert {"config.json", "config/extra.json", "table.csv", "image.png", "figure.png"} <= paths
    (notes,) = [path for path in paths if path.endswith("notes.txt")]
    assert reading.read_file(run.id, notes).decode() == "한글"
    assert details.run.tags.items() >= {"developer": "daeyoung", "purpose": "baseline_comparison"}.items()
    (child,) = [found for found in reading.iter_runs() if found.name == "nested"]
    assert child.tags["mlflow.parentRunId"] == run.id


def _figure() -> Any:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def test_section_5_comparison(store: str) -> None:
    for number in range(8):
        with overt.start_run(
            f"run-{number}",
            experiment="fraud-detection-v2",
            params={"n_estimators": 50 * number, "model_type": "RandomForest" if number % 2 else "Boosting"},
        ) as run:
            run.log_metrics({"accuracy": 0.80 + number / 50, "f1_score": 0.95 - number / 50})

    top = overt.runs("fraud-detection-v2", order_by=["metrics.accuracy DESC"], limit=5)
    assert list(top["run_name"]) == ["run-7", "run-6", "run-5", "run-4", "run-3"]
    assert list(top["param_n_estimators"]) == [350, 300, 250, 200, 150]
    filtered = overt.runs(
        "fraud-detection-v2",
        where="metrics.accuracy > 0.84 AND params.model_type = 'RandomForest'",
        order_by="metrics.f1_score DESC",
    )
    assert list(filtered["run_name"]) == ["run-3", "run-5", "run-7"]
    best = overt.best_run("f1_score", experiment="fraud-detection-v2")
    assert (best.name, best.metrics["f1_score"]) == ("run-0", 0.95)
    compared = overt.compare(best, "run-7")
    assert compared.params["n_estimators"] == ("0", "350")
    assert compared.metrics["accuracy"][0] == 0.80
    assert "<table" in compared._repr_html_()
    with pytest.raises(overt.OvertError, match="accuracy"):
        overt.best_run("acuracy", mode="max")


def test_section_6_the_model_registry(sqlite_uri: str) -> None:
    import mlflow

    overt.configure(store=sqlite_uri, experiment="registry")
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=42, stratify=y)
    models = {
        depth: overt.TrackedEstimator(
            RandomForestClassifier(n_estimators=20, max_depth=depth, random_state=0), model_format="skops"
        ).fit(X_train, y_train)
        for depth in (1, 8)
    }
    for model in models.values():
        model.evaluate(X_test, y_test)

    first = overt.register(
        models[1].run_,
        "fraud-detector",
        alias="challenger",
        description="RF baseline",
        tags={"validation_status": "approved"},
    )
    assert (first.name, first.version) == ("fraud-detector", "1")
    assert overt.promote("fraud-detector", "challenger", "champion", if_better="f1_score").replaced is None
    second = overt.register(models[8].run_, "fraud-detector", alias="challenger")
    assert second.version == "2"
    promotion = overt.promote("fraud-detector", "challenger", "champion", if_better="f1_score")
    assert (promotion.replaced, promotion.version) == ("1", "2")
    assert promotion.score == models[8].run_.metrics["f1_score"] > models[1].run_.metrics["f1_score"]
    with pytest.raises(overt.OvertError, match="is worse"):
        overt.promote("fraud-detector", "1", "champion", if_better="f1_score")

    champion = overt.load_model("fraud-detector@champion")
    assert np.array_equal(champion.predict(X_test), models[8].predict(X_test))
    for latest in ("models:/fraud-detector/latest", "fraud-detector/latest"):
        assert np.array_equal(overt.load_model(latest).predict(X_test), models[8].predict(X_test))
    client = mlflow.MlflowClient(sqlite_uri)
    assert client.get_model_version_by_alias("fraud-detector", "champion").version in (2, "2")
    version = client.get_model_version("fraud-detector", "1")
    assert (version.description, version.tags["validation_status"]) == ("RF baseline", "approved")

    otherwise = overt.TrackedEstimator(RandomForestClassifier(random_state=1)).fit(X_train, y_train)
    otherwise.evaluate(X_test[::2], y_test[::2])
    overt.register(otherwise.run_, "fraud-detector", alias="challenger")
    with pytest.raises(overt.OvertError, match=r"nobody can tell which is better\. Evaluate both on the same data"):
        overt.promote("fraud-detector", "challenger", "champion", if_better="f1_score")
    assert client.get_model_version_by_alias("fraud-detector", "champion").version in (2, "2")


def run_experiment(model: Any, name: str, params: dict[str, Any], data: Sequence[Any], scaler: Any) -> overt.Run:
    """The document's function of this name, line by line with overt."""
    X_train, X_test, y_train, y_test = data
    with overt.start_run(name, tags={"developer": "daeyoung", "dataset": "breast_cancer"}) as run:
        run.log_params(params | {"model_name": name, "scaler": type(scaler).__name__, "test_size": 0.2})
        model.fit(X_train, y_train)
        predicted = model.predict(X_test)
        run.score(accuracy_score, y_test, predicted, name="accuracy")
        run.score(f1_score, y_test, predicted)
        scores = cross_val_score(model, X_train, y_train, cv=5)
        run.log_metrics({"cv_mean_accuracy": scores.mean(), "cv_std_accuracy": scores.std()})
        run.log_dict(confusion_matrix(y_test, predicted).tolist(), "confusion_matrix.json")
        run.log_dict(classification_report(y_test, predicted, output_dict=True), "classification_report.json")
        run.log_model(model)
    return run


def test_section_7_end_to_end(store: str) -> None:
    """By hand as in the document, and by wrapping: both have the same numbers under the same names."""
    data = load_breast_cancer()
    X_train, X_test, y_train, y_test = train_test_split(
        data.data, data.target, test_size=0.2, random_state=42, stratify=data.target
    )
    scaler = StandardScaler().fit(X_train)
    split = (scaler.transform(X_train), scaler.transform(X_test), y_train, y_test)
    models = {
        "rf-baseline": RandomForestClassifier(n_estimators=30, max_depth=10, random_state=42),
        "rf-tuned": RandomForestClassifier(n_estimators=60, max_depth=20, random_state=42),
        "gb-baseline": GradientBoostingClassifier(n_estimators=30, max_depth=5, learning_rate=0.1, random_state=42),
    }
    overt.configure(experiment="breast-cancer-classification")
    tracked = {}
    for name, model in models.items():
        by_hand = run_experiment(model, name, {"max_depth": model.max_depth}, split, scaler)
        tracked[name] = overt.TrackedEstimator(
            model, cv=5, experiment="wrapped", run_name=name, tags={"developer": "daeyoung"}
        ).fit(split[0], y_train)
        tracked[name].evaluate(split[1], y_test)
        for metric in ("accuracy", "f1_score", "cv_mean_accuracy", "cv_std_accuracy"):
            ours, theirs = tracked[name].run_.metrics[metric], by_hand.metrics[metric]
            assert math.isclose(ours, theirs, rel_tol=1e-12), metric

    by_hand_best = overt.best_run("f1_score", experiment="breast-cancer-classification")
    best = overt.best_run("f1_score", experiment="wrapped")
    assert by_hand_best.metrics["f1_score"] == best.metrics["f1_score"]
    assert best.metrics["f1_score"] == max(model.run_.metrics["f1_score"] for model in tracked.values())
    reading = open_configured()
    held = json.loads(reading.read_file(by_hand_best.id, "confusion_matrix.json"))
    assert held == confusion_matrix(y_test, models[by_hand_best.name].predict(split[1])).tolist()
    for one in (best, by_hand_best):
        loaded = overt.load_model(one, allow_pickle=True)
        assert np.array_equal(loaded.predict(split[1]), tracked[best.name].predict(split[1]))
    if not store.startswith(("jsonl", "csv")):
        assert overt.register(best, "breast-cancer-classifier").version == "1"
        assert overt.register(by_hand_best, "breast-cancer-classifier").version == "2"
    else:
        with pytest.raises(overt.OvertError, match="MLflow"):
            overt.register(best, "breast-cancer-classifier")


def test_section_8_a_jsonl_tracker(sqlite_uri: str, tmp_path: Path) -> None:
    theirs = LightExperimentTracker("./my_experiments")
    (tmp_path / "matrix.json").write_text("[[1, 2]]")
    for name, params, metrics in (
        ("rf-v1", {"n_estimators": 100, "max_depth": 10}, {"accuracy": 0.93, "f1_score": 0.90}),
        ("rf-v2", {"n_estimators": 200, "max_depth": 15}, {"accuracy": 0.96, "f1_score": 0.94}),
    ):
        run_id = theirs.start_run(experiment="quick-test", run_name=name)
        theirs.log_params(params)
        theirs.log_metrics(metrics)
        theirs.log_tags({"developer": "daeyoung"})
        theirs.log_artifact(str(tmp_path / "matrix.json"))
        theirs.end_run()

    overt.configure(store="jsonl:./my_experiments", experiment="quick-test")
    with overt.start_run("rf-v3", params={"n_estimators": 300, "max_depth": 15}, tags={"developer": "mina"}) as run:
        run.log_metrics({"accuracy": 0.97, "f1_score": 0.92})
        run.log_artifact(tmp_path / "matrix.json")

    runs = overt.runs("quick-test", order_by="run_name")
    assert list(runs["run_name"]) == ["rf-v1", "rf-v2", "rf-v3"]
    assert list(runs["tag_developer"]) == ["daeyoung", "daeyoung", "mina"]
    assert overt.best_run("f1_score").id == run_id
    reading = open_configured()
    for each in (run_id, run.key):
        assert reading.read_file(each, "matrix.json") == b"[[1, 2]]"

    frame = LightExperimentTracker("./my_experiments").load_all_runs()  # the document's own class reads ours
    assert list(frame["metric_accuracy"]) == [0.93, 0.96, 0.97]
    assert list(frame["param_n_estimators"]) == [100, 200, 300]
    assert theirs.best_run("metric_f1_score")["run_name"] == "rf-v2"

    imported = {done.run.name: done.run_id for done in import_runs(Path("my_experiments"), store=sqlite_uri)}
    carried = overt.runs("quick-test", store=sqlite_uri, order_by="run_name")
    assert list(carried["run_id"]) == [imported[name] for name in ("rf-v1", "rf-v2", "rf-v3")]
    assert list(carried["param_max_depth"]) == [10, 15, 15]
    assert started(carried) == started(runs)
    mlflow_runs = open_configured(sqlite_uri)
    assert mlflow_runs.read_file(imported["rf-v2"], "matrix.json") == b"[[1, 2]]"
    assert mlflow_runs.read_run(imported["rf-v2"]).run.tags["duration_note"] == "manual"
