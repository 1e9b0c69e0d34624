"""The source document's four reasons to track experiments, each acted out: what it says is lost without is there.

Models are trained once for each kind of store, in a folder that is gone afterwards. Sharing and auditing happen in
another folder and another process, which see the store and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import overt

pytestmark = pytest.mark.timeout(240)

TRAINING = """
    import sys
    from sklearn.datasets import load_wine
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split
    import overt
    import forests

    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42, stratify=y)
    experiment, *depths = sys.argv[1:]
    for depth in map(int, depths):
        model = overt.TrackedEstimator(
            RandomForestClassifier(forests.TREES, max_depth=depth, random_state=42),
            experiment=experiment, run_name=f"{experiment}-depth-{depth}", model_format="skops", notes="for the team",
        ).fit(X_train, y_train)
        model.evaluate(X_test, y_test)
    assert overt.wait()
"""
GIT = ("git", "-c", "user.name=Mina", "-c", "user.email=mina@example.org", "-c", "commit.gpgsign=false")


def run(folder: Path, *command: object, store: str) -> str:
    """What a command printed; it is run in a folder of its own, with no setting but the store, and ends well."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("OVERT_", "MLFLOW_"))}
    environment |= {"OVERT_STORE": store, "OVERT_QUIET": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(folder: Path, *arguments: object, store: str) -> Any:
    """What ``overt … --json`` said."""
    return json.loads(run(folder, sys.executable, "-m", "overt", *arguments, "--json", store=store))


class Trained(NamedTuple):
    """A project from which two models have been trained, where it has gone since, their store and their experiment."""

    folder: Path
    gone: Path
    store: str
    experiment: str


@pytest.fixture(scope="module", params=["mlflow", "jsonl", "csv"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A repository with a training script, changed since its commit, trained from twice: once for each kind of store.

    The store is a server, or lies outside of the project.
    """
    place = tmp_path_factory.mktemp("why")
    store = f"{request.param}:{place}/runs{'.csv' if request.param == 'csv' else ''}"
    if request.param == "mlflow":
        store = request.getfixturevalue("mlflow_server")
    experiment = f"fraud-{secrets.token_hex(4)}"  # a name of its own: other tests share the server
    folder = place / "trained"
    folder.mkdir()
    (folder / "train.py").write_text(textwrap.dedent(TRAINING))
    (folder / "forests.py").write_text("TREES = 5\n")
    (folder / ".gitignore").write_text("__pycache__/\n")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        run(folder, *GIT, *arguments, store=store)
    (folder / "forests.py").write_text("TREES = 10  # not committed\n")
    run(folder, sys.executable, "train.py", experiment, 1, 8, store=store)
    return Trained(folder, folder.rename(place / "gone"), store, experiment)


@pytest.fixture
def project(trained: Trained) -> Iterator[Path]:
    """The project as its training left it, where it was, for the test to change."""
    yield shutil.copytree(trained.gone, trained.folder)
    shutil.rmtree(trained.folder)


@pytest.fixture
def store(trained: Trained) -> str:
    return trained.store


@pytest.fixture
def experiment(trained: Trained) -> str:
    return trained.experiment


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An empty folder, without a journal or a line of the project's code."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_why_reproduce(project: Path, store: str, tmp_path: Path, experiment: str) -> None:
    """Last week's model is built again, with the change that nobody had committed, and has the same scores."""
    before = command(project, "show", f"{experiment}-depth-8", store=store)
    run(project, *GIT, "checkout", "-q", "--", "forests.py", store=store)  # the change is gone from the work tree
    plan = command(project, "reproduce", f"{experiment}-depth-8", store=store)
    assert len(plan["commit"]) == 40
    (said,) = (lack for lack in plan["missing"] if "PYTHONPATH" not in lack)  # whoever tests may have set one
    assert "digests of the data" in said, "the place of the data is the script's to know"
    rebuilt = tmp_path / "rebuilt"
    run(project, sys.executable, "-m", "overt", "reproduce", f"{experiment}-depth-8", "--apply", rebuilt, store=store)
    assert (rebuilt / "forests.py").read_text() == "TREES = 10  # not committed\n"
    assert (project / "forests.py").read_text() == "TREES = 5\n"
    again_store = f"jsonl:{tmp_path}/again"
    script = rebuilt / "overt-reproduce" / "run.sh"  # the command as it was recorded, from whichever folder
    run(tmp_path, "env", f"PYTHON={sys.executable}", "sh", script, store=again_store)
    again = command(rebuilt, "show", "last", store=again_store)
    scores = [name for name in before["metrics"] if not name.endswith("_seconds")]
    assert len(scores) > 10
    assert {name: again["metrics"][name] for name in scores} == {name: before["metrics"][name] for name in scores}
    assert [data["digest"] for data in again["datasets"]] == [data["digest"] for data in before["datasets"]]


def test_why_compare(store: str, elsewhere: Path, experiment: str) -> None:
    """Which of the experiments was the best, and what made it so."""
    best = command(elsewhere, "best", "f1_score", "--experiment", experiment, store=store)
    assert best["run"]["name"] == f"{experiment}-depth-8"
    where = "metrics.f1_score > 0.5 and params.max_depth = '1'"
    listed = command(elsewhere, "runs", "--experiment", experiment, "--where", where, store=store)
    assert [run["name"] for run in listed["runs"]] == [f"{experiment}-depth-1"]
    frame = overt.runs(experiment, order_by="metrics.f1_score DESC", store=store)
    compared = overt.compare(*frame["run_id"][::-1], store=store)
    assert compared.params == {"max_depth": ("1", "8")}
    assert {"accuracy", "f1_score", "training_accuracy"} <= compared.metrics.keys()
    assert compared.data == compared.packages == {}
    assert list(frame["run_name"]) == [f"{experiment}-depth-8", f"{experiment}-depth-1"]
    assert list(frame["param_max_depth"]) == [8, 1]


def test_why_share(store: str, elsewhere: Path, experiment: str) -> None:
    """How was this model trained? A colleague has the answer, and the model, from the store alone."""
    shown = command(elsewhere, "show", f"{experiment}-depth-8", store=store)
    assert shown["params"]["max_depth"] == "8"
    assert shown["notes"] == "for the team"
    assert {"confusion_matrix.json", "classification_report.json"} <= {file["path"] for file in shown["files"]}
    loaded = run(
        elsewhere,
        sys.executable,
        "-c",
        "import overt, sys\n"
        "from sklearn.datasets import load_wine\n"
        "X, y = load_wine(return_X_y=True)\n"
        "print((overt.load_model(sys.argv[1]).predict(X) == y).mean())",
        f"{experiment}-depth-8",
        store=store,
    )
    assert float(loaded) > 0.9


@pytest.mark.parametrize("trained", ["mlflow"], indirect=True)
def test_why_audit(store: str, elsewhere: Path, experiment: str) -> None:
    """Under which conditions was the model that is deployed trained, and who decided so on which numbers."""
    first = overt.register(f"{experiment}-depth-1", experiment, alias="champion", store=store)
    overt.register(f"{experiment}-depth-8", experiment, alias="challenger", store=store)
    overt.promote(experiment, "challenger", "champion", if_better="f1_score", store=store)
    trail = command(elsewhere, "audit", f"{experiment}@champion", store=store)
    assert trail["run"]["name"] == f"{experiment}-depth-8"
    assert trail["version"]["aliases"] == ["challenger", "champion"]
    assert len(trail["origin"]["commit"]) == 40
    assert trail["origin"]["dirty"] is True
    assert trail["origin"]["argv"][-4:] == ["train.py", experiment, "1", "8"]
    assert {data["context"] for data in trail["run"]["datasets"]} == {"training", "eval"}
    assert trail["origin"]["packages"]["scikit-learn"]
    assert all(file["recorded"] == file["found"] for file in trail["model_files"])
    assert len(trail["model_files"]) > 3
    (promotion,) = trail["promotions"]
    assert promotion["replaced"] == first.version
    assert promotion["score"] > promotion["replaced_score"]
    assert promotion["by"]
    printed = run(elsewhere, sys.executable, "-m", "overt", "audit", f"{experiment}@champion", store=store)
    for word in (f"{experiment}-depth-8", trail["origin"]["commit"], "TREES", promotion["by"], "f1_score"):
        assert word in printed
