"""Fits that really go to MLflow, by the courier, and models that load where overt cannot be imported.

One script fits everything, one loads it all; the tests look at what the two have left. Importing MLflow and opening a
database take longer than any one of these facts.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

COMMON = (
    "LogisticRegression",
    "RandomForestClassifier",
    "GradientBoostingClassifier",
    "HistGradientBoostingClassifier",
    "SVC",
    "KNeighborsClassifier",
    "MLPClassifier",
    "GaussianNB",
    "DecisionTreeClassifier",
    "Ridge",
    "Lasso",
    "KMeans",
    "Pipeline",
    "GridSearchCV",
)

FIT = """
    import atexit, json, sys


    def look():  # registered before overt is imported, so it runs after everything that overt does at the end
        with open("modules.json", "w") as file:
            json.dump(sorted(sys.modules), file)


    atexit.register(look)

    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.datasets import make_classification
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import Lasso, LogisticRegression, Ridge, SGDClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    import overt

    X, y = make_classification(90, 6, n_informative=4, random_state=0)
    X_train, X_test, y_train, y_test = X[:60], X[60:], y[:60], y[60:]
    estimators = [
        LogisticRegression(),
        RandomForestClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3, random_state=0),
        SVC(),
        KNeighborsClassifier(),
        MLPClassifier((4,), solver="lbfgs", max_iter=5000, random_state=0),
        GaussianNB(),
        DecisionTreeClassifier(random_state=0),
        Ridge(),
        Lasso(0.01),
        KMeans(3, n_init=1, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2),
    ]
    options = {"RandomForestClassifier": {"register_as": "forest", "cv": 3}}
    outputs, fitted = {"X": X_test}, {}
    for estimator in estimators:
        name = type(estimator).__name__
        model = overt.TrackedEstimator(estimator, experiment="real", run_name=name, **options.get(name, {}))
        model.fit(X_train, y_train)
        model.evaluate(X_test, y_test)
        outputs[name], fitted[name] = model.predict(X_test), model
    skops = overt.TrackedEstimator(LogisticRegression(), experiment="real", run_name="skops", model_format="skops")
    fitted["skops"] = skops.fit(X_train, y_train)
    outputs["skops"] = skops.predict(X_test)
    fitted["scaler"] = overt.TrackedEstimator(StandardScaler(), experiment="real", run_name="scaler").fit(X_train)
    outputs["scaler"] = fitted["scaler"].transform(X_test)
    partial = overt.TrackedEstimator(
        SGDClassifier(random_state=0), experiment="real", run_name="partial", register_as="parts"
    )
    partial.partial_fit(X_train[:30], y_train[:30], classes=[0, 1])
    partial.evaluate(X_test, y_test)  # records the model as it is now
    partial.partial_fit(X_train[30:], y_train[30:])  # and the script's end as it is then
    outputs["partial"] = partial.predict(X_test)
    np.savez("predictions.npz", **outputs)
    facts = {
        name: {
            "key": model.run_.key,
            "run_id": model.run_.id,
            "model_uri": model.run_.model_uri,
            "metrics": model.run_.metrics,
        }
        for name, model in fitted.items()
    }
    run = partial.run_
    facts["partial"] = {
        "key": run.key, "run_id": run.id, "model_uri": f"runs:/{run.id}/model", "metrics": run.metrics
    }
    with open("facts.json", "w") as file:
        json.dump(facts, file)
"""

LOAD = """
    import json, os, sys, warnings

    sys.modules["overt"] = None  # from here on, importing it is an error
    warnings.simplefilter("ignore")  # those that MLflow raises about itself

    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    facts = json.load(open("facts.json"))
    X = np.load("predictions.npz")["X"]
    found, infos = {}, {}
    for name, fact in facts.items():
        if name == "skops" and not hasattr(mlflow.sklearn, "SERIALIZATION_FORMAT_SKOPS"):
            continue
        if name == "scaler":
            found["scaler"] = mlflow.sklearn.load_model(fact["model_uri"]).transform(X)
        else:
            found[f"{name}/sklearn"] = mlflow.sklearn.load_model(fact["model_uri"]).predict(X)
            found[f"{name}/pyfunc"] = mlflow.pyfunc.load_model(fact["model_uri"]).predict(X)
            found[f"{name}/runs"] = mlflow.sklearn.load_model(f"runs:/{fact['run_id']}/model").predict(X)
        if name == "RandomForestClassifier":
            found[f"{name}/registered"] = mlflow.sklearn.load_model("models:/forest/1").predict(X)
        if name == "partial":
            found[f"{name}/registered"] = mlflow.sklearn.load_model("models:/parts/1").predict(X)
        info = mlflow.models.get_model_info(fact["model_uri"])
        infos[name] = {
            "run_id": info.run_id,
            "flavors": sorted(info.flavors),
            "inputs": [str(spec.type) for spec in info.signature.inputs.inputs] if info.signature else None,
            "example": info.saved_input_example_info,
        }
    np.savez("loaded.npz", **found)
    json.dump(infos, open("infos.json", "w"))
"""


class Left(NamedTuple):
    """What the two scripts have left."""

    folder: Path
    uri: str
    facts: dict[str, Any]
    infos: dict[str, Any]
    predictions: dict[str, Any]
    loaded: dict[str, Any]
    printed: str


@pytest.fixture(scope="module")
def left(empty_mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # once for all workers
    folder = folder / "sklearn-mlflow"
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "infos.json").exists():
            _run_scripts(folder, uri, empty_mlflow_database)

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text())

    return Left(
        folder,
        uri,
        read("facts.json"),
        read("infos.json"),
        dict(np.load(folder / "predictions.npz")),
        dict(np.load(folder / "loaded.npz")),
        (folder / "printed.txt").read_text(),
    )


def _run_scripts(folder: Path, uri: str, database: Path) -> None:
    shutil.copyfile(database, folder / "mlflow.db")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OVERT_"))}
    environment = own | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": uri,
        "OMP_NUM_THREADS": "1",
        "OVERT_DIR": str(folder / ".overt"),
        "OVERT_KEEP_JOURNAL": "1",
    }
    for number, source in enumerate((FIT, LOAD)):
        script = folder / f"script_{number}.py"
        script.write_text(textwrap.dedent(source), "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error" if source is FIT else "default", str(script)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if source is FIT:
            (folder / "printed.txt").write_text(done.stderr)


@pytest.fixture(scope="module")
def client(left: Left) -> Any:
    from overt.stores.mlflow.connection import connect

    return connect(left.uri)


pytestmark = pytest.mark.timeout(180)  # the first test waits for both scripts


@pytest.mark.parametrize("way", ["sklearn", "pyfunc", "runs"])
@pytest.mark.parametrize("name", COMMON)
def test_a_model_loads_without_overt_and_predicts_the_same(left: Left, name: str, way: str) -> None:
    expected, found = left.predictions[name], left.loaded[f"{name}/{way}"]
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def test_a_skops_model_loads_and_predicts_the_same(left: Left) -> None:
    if "skops/sklearn" not in left.loaded:
        pytest.skip("this MLflow reads no skops")
    for way in ("sklearn", "pyfunc", "runs"):
        assert left.loaded[f"skops/{way}"].tobytes() == left.predictions["skops"].tobytes()


def test_a_transformer_loads_and_is_not_said_to_predict(left: Left) -> None:
    assert left.loaded["scaler"].tobytes() == left.predictions["scaler"].tobytes()
    assert left.infos["scaler"]["flavors"] == ["sklearn"]
    assert left.infos["scaler"]["inputs"] == ["float64"]


@pytest.mark.parametrize("way", ["sklearn", "pyfunc", "runs", "registered"])
def test_a_model_fitted_in_parts_is_what_the_scripts_end_left(left: Left, client: Any, way: str) -> None:
    assert left.loaded[f"partial/{way}"].tobytes() == left.predictions["partial"].tobytes()
    assert len(client.search_model_versions("name = 'parts'")) == 1


def test_the_data_of_each_part_are_inputs_of_the_run(left: Left, client: Any) -> None:
    inputs = client.get_run(left.facts["partial"]["run_id"]).inputs.dataset_inputs
    assert sorted(item.dataset.name for item in inputs) == ["test", "train", "train"]


@pytest.mark.parametrize("name", COMMON)
def test_a_model_knows_its_run_its_signature_and_its_example(left: Left, name: str) -> None:
    info = left.infos[name]
    assert info["run_id"] == left.facts[name]["run_id"]
    assert info["flavors"] == ["python_function", "sklearn"]
    assert len(info["inputs"]) == 1
    assert info["example"]["type"] == "ndarray"


def test_every_run_is_finished_with_the_metrics_that_the_script_saw(left: Left, client: Any) -> None:
    for name, fact in left.facts.items():
        run = client.get_run(fact["run_id"])
        assert run.info.status == "FINISHED"
        assert run.info.run_name == name
        assert run.data.tags["overt.key"] == fact["key"]
        assert run.data.metrics == pytest.approx(fact["metrics"], abs=0, rel=1e-15)


def test_scores_belong_to_their_model_and_their_data(left: Left, client: Any) -> None:
    fact = left.facts["LogisticRegression"]
    logged = client.get_logged_model(fact["model_uri"].removeprefix("models:/"))
    assert str(logged.status).endswith("READY")
    scores = {metric.key: metric for metric in logged.metrics}
    assert scores["f1_score"].value == fact["metrics"]["f1_score"]
    assert scores["f1_score"].dataset_name == "test"
    assert scores["training_f1_score"].dataset_name == "train"
    assert scores["f1_score"].dataset_digest != scores["training_f1_score"].dataset_digest
    assert all(metric.model_id == logged.model_id for metric in logged.metrics)
    inputs = client.get_run(fact["run_id"]).inputs.dataset_inputs
    contexts = {one.dataset.name: [tag.value for tag in one.tags if tag.key == "mlflow.data.context"] for one in inputs}
    assert contexts == {"train": ["training"], "test": ["eval"]}


def test_the_artifacts_and_pictures_are_there(left: Left, client: Any) -> None:
    paths = {file.path for file in client.list_artifacts(left.facts["RandomForestClassifier"]["run_id"])}
    assert {
        "estimator.html",
        "confusion_matrix.json",
        "confusion_matrix.png",
        "confusion_matrix_normalized.png",
        "classification_report.json",
        "classification_report.csv",
        "training_confusion_matrix.png",
        "roc_curve.png",
        "precision_recall_curve.png",
        "calibration_curve.png",
        "feature_importances.png",
        "feature_importances.csv",
        "cv_results.csv",
        "cv_confusion_matrix.png",
    } <= paths
    root = client.get_run(left.facts["RandomForestClassifier"]["run_id"]).info.artifact_uri
    assert Path(root.removeprefix("file://"), "confusion_matrix.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_folds_are_a_series_whose_step_is_the_fold(left: Left, client: Any) -> None:
    history = client.get_metric_history(left.facts["RandomForestClassifier"]["run_id"], "cv_accuracy")
    assert [point.step for point in history] == [0, 1, 2]
    assert (
        np.mean([point.value for point in history])
        == left.facts["RandomForestClassifier"]["metrics"]["cv_mean_accuracy"]
    )


def test_a_registered_model_has_one_version_and_a_replay_makes_no_second(left: Left, client: Any) -> None:
    fact = left.facts["RandomForestClassifier"]
    place = client.get_logged_model(fact["model_uri"].removeprefix("models:/")).artifact_location
    assert versions(client) == [(fact["run_id"], place)]
    expected = left.predictions["RandomForestClassifier"]
    assert left.loaded["RandomForestClassifier/registered"].tobytes() == expected.tobytes()
    before = rows(left)
    journal = left.folder / ".overt" / "runs" / fact["key"]
    assert journal.is_dir(), "OVERT_KEEP_JOURNAL keeps it"
    (journal / "delivered.json").unlink()  # nobody knows any more that it was delivered
    replay = (
        "import sys\nfrom pathlib import Path\nfrom overt.delivery.sync import sync\n"
        "(outcome,) = sync(Path(sys.argv[1]), store_of=lambda spec: sys.argv[2], keep=True)\n"
        "assert outcome.delivered and outcome.sent, outcome\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", replay, str(journal), left.uri], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert versions(client) == [(fact["run_id"], place)]
    assert rows(left) == before


def versions(client: Any) -> list[tuple[str, str]]:
    return [(version.run_id, version.source) for version in client.search_model_versions("name = 'forest'")]


def rows(left: Left) -> dict[str, int]:
    tables = ("runs", "metrics", "params", "logged_models", "model_versions", "inputs", "logged_model_metrics")
    with closing(sqlite3.connect(left.folder / "mlflow.db")) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_the_script_itself_has_imported_neither_mlflow_nor_matplotlib(left: Left) -> None:
    modules = json.loads((left.folder / "modules.json").read_text())
    assert "sklearn" in modules
    assert "overt.integrations.sklearn.estimator" in modules
    assert [name for name in modules if name.partition(".")[0] in ("mlflow", "matplotlib")] == []


def test_what_is_printed_is_two_lines_for_each_run(left: Left) -> None:
    lines = left.printed.splitlines()
    assert all(line.startswith("overt: run ") for line in lines), left.printed
    assert len(lines) == 2 * len(left.facts)
