"""Whatever ``mlflow.sklearn.autolog()`` records of a fit is found in ours, by the table that stands in the docs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from overt import TrackedEstimator
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "autolog.md"

X, CLASSES = make_classification(90, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
TWO_CLASSES = (CLASSES > 0).astype(int)
_, TARGETS = make_regression(90, 5, n_targets=2, random_state=0)
COUNTS = np.abs(TARGETS[:, 0]).round()
WEIGHTS = np.random.RandomState(0).uniform(0.5, 2.0, 90)
FUNCTION = re.compile(r"<(?:ufunc|function) '?(\w+)'?(?: at 0x[0-9a-f]+)?>")
"""How autolog writes a function, and which it is."""
BY_DEPTH = {"max_depth": [1, 2, 3]}
TREE = DecisionTreeClassifier(random_state=0)


def cubed(values: Any) -> Any:
    return values**3


class Subject(NamedTuple):
    """An estimator, what it is fitted to, and how its own score scores."""

    estimator: Any
    y: Any = None
    scored_by: str = "otherwise"
    fit_params: Mapping[str, Any] = {}


SUBJECTS = {
    "two classes": Subject(LogisticRegression(), TWO_CLASSES, "by accuracy"),
    "two names": Subject(
        RandomForestClassifier(5, random_state=0), np.array(["no", "yes"])[TWO_CLASSES], "by accuracy"
    ),
    "two classes, weighted": Subject(
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        TWO_CLASSES,
        "by accuracy",
        {"sample_weight": WEIGHTS},
    ),
    "two classes, no probabilities": Subject(LinearSVC(random_state=0), TWO_CLASSES, "by accuracy"),
    "three classes": Subject(LogisticRegression(), CLASSES, "by accuracy"),
    "three classes, weighted": Subject(GaussianNB(), CLASSES, "by accuracy", {"sample_weight": WEIGHTS}),
    "neighbours": Subject(KNeighborsClassifier(), CLASSES, "by accuracy"),
    "pipeline": Subject(make_pipeline(StandardScaler(), LogisticRegression(C=0.5)), CLASSES, "by accuracy"),
    "functions": Subject(
        make_pipeline(FunctionTransformer(np.cbrt, inverse_func=cubed), LogisticRegression()),
        CLASSES,
        "by accuracy",
    ),
    "ridge": Subject(Ridge(random_state=0), TARGETS[:, 0], "by R²"),
    "forest": Subject(RandomForestRegressor(5, random_state=0), TARGETS[:, 0], "by R²", {"sample_weight": WEIGHTS}),
    "poisson": Subject(PoissonRegressor(max_iter=500), COUNTS),
    "two targets": Subject(LinearRegression(), TARGETS, "by R²"),
    "clusters": Subject(KMeans(3, n_init=1, random_state=0)),
    "components": Subject(PCA(2)),
    "components of labelled rows": Subject(PCA(2), CLASSES),
    "outliers": Subject(IsolationForest(n_estimators=5, random_state=0)),
    "grid search": Subject(GridSearchCV(TREE, BY_DEPTH, cv=2), CLASSES, "by accuracy"),
    "grid search, weighted": Subject(
        GridSearchCV(TREE, BY_DEPTH, cv=2), CLASSES, "by accuracy", {"sample_weight": WEIGHTS}
    ),
    "random search by F1": Subject(
        RandomizedSearchCV(TREE, BY_DEPTH, n_iter=2, cv=2, scoring="f1_macro", random_state=0), CLASSES
    ),
}
WITH_MODEL = ("two classes", "components", "grid search")
"""Of these autolog writes the model as well, which takes it seconds."""

AUTOLOG = """
    import contextlib, json, sys, warnings

    import mlflow
    from tests.integrations.test_sklearn_parity import SUBJECTS, WITH_MODEL, X

    sys.argv = sys.argv[1:]  # the script is that of the test
    warnings.simplefilter("ignore")
    client = mlflow.MlflowClient()


    def files(run_id, folder=None):
        for entry in client.list_artifacts(run_id, folder):
            if entry.is_dir:
                yield from files(run_id, entry.path)
            else:
                yield entry.path


    def text(run_id, path):
        return mlflow.artifacts.load_text(f"runs:/{run_id}/{path}") if path.endswith(".csv") else None


    found = {}
    for name, subject in SUBJECTS.items():
        mlflow.sklearn.autolog(log_models=name in WITH_MODEL, serialization_format="cloudpickle", silent=True)
        with mlflow.start_run() as active:
            subject.estimator.fit(X, subject.y, **subject.fit_params)
        run = client.get_run(active.info.run_id)
        models = client.search_logged_models([run.info.experiment_id])
        found[name] = {
            "param": run.data.params,
            "metric": run.data.metrics,
            "tag": run.data.tags,
            "file": {path: text(run.info.run_id, path) for path in files(run.info.run_id)},
            "model": {model.name: None for model in models if model.source_run_id == run.info.run_id},
            "dataset": {each.tags[0].value: None for each in run.inputs.dataset_inputs},
        }
    json.dump(found, sys.stdout)
"""


class Line(NamedTuple):
    """One line of the table."""

    what: str
    theirs: str
    ours: str
    where: str

    def names(self, kind: str, name: str) -> str | None:
        """What ``name`` is called here, if this line tells."""
        if kind != self.what:
            return None
        head, is_open, _ = self.theirs.partition("<name>")
        if not is_open:
            return self.ours if name == self.theirs else None
        return self.ours.replace("<name>", name.removeprefix(head)) if name.startswith(head) else None


def table() -> list[Line]:
    """The lines of the table in the docs."""
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| (.+?) \| (.*?) ?\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [Line(what, theirs, ours.replace("`", ""), where) for what, theirs, ours, where in rows]


def places(subject: Subject) -> set[str]:
    """The places of the table that hold for an estimator."""
    found = {"", f"scored {subject.scored_by}"}
    if is_classifier(subject.estimator):
        found |= {"classifiers", "two classes" if len(np.unique(subject.y)) == 2 else "more classes"}
    if is_regressor(subject.estimator):
        found |= {"regressors", "one output" if subject.y.ndim == 1 else "several outputs"}
    if hasattr(subject.estimator, "cv"):
        found |= {"searches"} | ({"weighted searches"} if "sample_weight" in subject.fit_params else set())
    return found


def ours(run: MemoryRun) -> dict[str, Mapping[str, Any]]:
    """What our run holds, as the child process tells it of autolog's."""
    return {
        "param": run.params,
        "metric": run.metrics,
        "tag": run.tags,
        "file": dict.fromkeys(run.figures)
        | {path: content.decode("utf-8", "replace") for path, content in run.artifacts.items()},
        "model": dict.fromkeys(run.models),
        "dataset": {dataset.context: None for dataset in run.datasets},
    }


def iter_missing(
    theirs: Mapping[str, Mapping[str, Any]], run: MemoryRun, lines: list[Line], where: set[str]
) -> Iterator[str]:
    """Yield what autolog has recorded and the table does not know, or we have not, or have otherwise."""
    held = ours(run)
    for what, values in theirs.items():
        for name, value in values.items():
            names = [called for line in lines if line.where in where and (called := line.names(what, name))]
            if not names:
                yield f"{what} {name}: not in the table"
                continue
            kind, _, called = names[-1].rpartition(" ")  # a `best_<name>` is also a `<name>`
            kind = kind or what
            if kind not in held:
                continue  # said in words: the run's name, or nothing at all
            if called not in held[kind]:
                yield f"{what} {name}: no {kind} {called}"
            elif not are_equal(what, value, held[kind][called]):
                yield f"{what} {name}: {value!r} is {held[kind][called]!r} here"


def are_equal(what: str, theirs: Any, ours: Any) -> bool:
    if theirs is None:  # a picture, a model, data
        return True
    if what == "metric":
        return math.isclose(theirs, ours, rel_tol=1e-9)
    if what == "file":
        return rows(theirs) == rows(ours)
    for function in FUNCTION.findall(theirs):
        ours = re.sub(rf"[\w.]*\b{function}\b", function, ours)
    theirs = FUNCTION.sub(r"\1", theirs)
    return "".join(theirs.split()) == "".join(ours.split())  # scikit-learn breaks the lines of long values


def rows(content: str) -> list[dict[str, Any]]:
    """The lines of a csv file without its times, numbers as numbers."""
    return [
        {
            name: value if not _is_number(value) else round(float(value), 9)
            for name, value in row.items()
            if "time" not in name
        }
        for row in csv.DictReader(io.StringIO(content))
    ]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


@pytest.mark.timeout(240)  # autolog takes some seconds for each model that it writes
def test_all_that_autolog_records_is_found(sqlite_uri: str, tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AUTOLOG), sys.argv[0]],
        env={**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    recorded = json.loads(child.stdout)
    lines, missing = table(), {}
    for name, subject in SUBJECTS.items():
        with captured_runs() as runs:
            TrackedEstimator(subject.estimator).fit(X, subject.y, **subject.fit_params)
        assert {*subject.estimator.get_params(deep=False)} <= {*recorded[name]["param"]}, "autolog recorded nothing"
        missing[name] = list(iter_missing(recorded[name], runs[0], lines, places(subject)))
    assert {name: found for name, found in missing.items() if found} == {}


def test_what_the_table_does_not_know_is_said() -> None:
    with captured_runs() as runs:
        TrackedEstimator(Ridge()).fit(X, TARGETS[:, 0])
    theirs = {"metric": {"training_new_score": 1.0, "training_mean_squared_error": -1.0}, "param": {"alpha": "1.0"}}
    said = list(iter_missing(theirs, runs[0], table(), places(Subject(Ridge(), TARGETS[:, 0]))))
    assert said[0] == "metric training_new_score: not in the table"
    assert said[1].startswith("metric training_mean_squared_error: -1.0 is ")
    assert len(said) == 2


NAMES = """
import sys
from mlflow.tracking.context.registry import resolve_tags
from overt.testing import captured_runs
import overt

with captured_runs() as runs, overt.start_run():
    pass
print(resolve_tags()["mlflow.source.name"], runs[0].tags["mlflow.source.name"], sep="\\n")
"""


@pytest.mark.parametrize("command", [["sub/../train.py"], ["-m", "train"], ["-c", NAMES]], ids=lambda words: words[0])
def test_the_code_has_the_name_that_mlflow_gives_it(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "train.py").write_text(NAMES, "utf-8")
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs, ours = done.stdout.splitlines()
    assert ours == theirs
