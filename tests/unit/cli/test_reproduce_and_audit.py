"""What is recorded in one folder is audited and rebuilt in others, by processes that see only the store and a clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.unit.cli.conftest import ONE_RUN, Overt, Record
from tests.unit.recorded import GIT, Repo

TRAINING = """
    import sys
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split
    from overt import TrackedEstimator
    import depths

    X, y = load_iris(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    forest = RandomForestClassifier(int(sys.argv[1]), max_depth=depths.DEPTH, random_state=3)
    model = TrackedEstimator(forest, experiment="iris", run_name="forest", register_as=None).fit(X_train, y_train)
    model.evaluate(X_test, y_test)
""".replace(", register_as=None", "")

ORIGIN_FIELDS = {
    *("recorded_by", "commit", "branch", "remote", "dirty", "diff", "argv", "script", "cwd", "python", "environment"),
    *("packages", "seeds", "data"),
}


class Elsewhere:
    """A process in a folder, under a home and with settings that know nothing of where the run was recorded."""

    def __init__(self, home: Path, uri: str) -> None:
        self._home, self._uri = home, uri
        home.mkdir()

    def __call__(self, folder: Path, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("OVERT_", "GIT_"))}
        environment |= {"HOME": str(self._home), "OVERT_QUIET": "1", "OVERT_WAIT": "60", "OVERT_SYSTEM_METRICS": "0"}
        return subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    def overt(self, folder: Path, *arguments: object) -> dict[str, Any]:
        said = self(folder, sys.executable, "-m", "overt", *arguments, "--store", self._uri, "--json")
        assert said.returncode == 0, said.stderr
        assert said.stderr == ""
        found: dict[str, Any] = json.loads(said.stdout)
        return found


@pytest.fixture
def elsewhere(tmp_path: Path, sqlite_uri: str) -> Elsewhere:
    return Elsewhere(tmp_path / "home", sqlite_uri)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_is_audited_and_rebuilt_from_the_store_alone_and_gives_the_same_scores_again(
    elsewhere: Elsewhere, tmp_path: Path, sqlite_uri: str
) -> None:
    repo = Repo(tmp_path / "project")
    repo.write("code/train.py", textwrap.dedent(TRAINING))
    repo.write("code/depths.py", "DEPTH = 1\n")
    repo.write(".gitignore", "__pycache__/\n")
    commit = repo.commit()
    repo.write("code/depths.py", "DEPTH = 3\n")
    MlflowClient(sqlite_uri).create_experiment("iris", artifact_location=str(tmp_path / "artifacts"))
    recording = {"OVERT_STORE": sqlite_uri, "OVERT_DIR": str(tmp_path / ".overt")}
    trained = elsewhere(repo.folder / "code", sys.executable, "train.py", "7", **recording)
    assert trained.returncode == 0, trained.stderr
    subprocess.run([*GIT, "clone", "-q", repo.folder, tmp_path / "clone"], check=True)
    repo.folder.rename(tmp_path / "gone")
    (tmp_path / ".overt").rename(tmp_path / "no-journal-here")

    audited = elsewhere.overt(tmp_path / "home", "audit", "forest")
    assert audited["run"]["status"] == "FINISHED"
    assert (audited["origin"]["commit"], audited["origin"]["dirty"]) == (commit, True)
    assert audited["origin"]["argv"][1:] == ["train.py", "7"]
    assert audited["origin"]["diff"]["files"] == [{"path": "code/depths.py", "kind": "text"}]
    assert {data["name"] for data in audited["origin"]["data"]} == {"train", "test"}
    assert [lack for lack in audited["missing"] if "PYTHONPATH" not in lack] == []  # whoever tests may have set one

    rebuilt = elsewhere.overt(tmp_path / "clone", "reproduce", "forest", "--apply", tmp_path / "again")
    assert (tmp_path / "again" / "code" / "depths.py").read_text() == "DEPTH = 3\n"
    assert rebuilt["package_changes"] == {}
    script = tmp_path / "again" / "overt-reproduce" / "run.sh"
    again = recording | {"OVERT_STORE": f"sqlite:///{tmp_path / 'again.db'}", "PYTHON": sys.executable}
    repeated = elsewhere(tmp_path / "home", "sh", script, **again)
    assert repeated.returncode == 0, repeated.stderr
    (first,), (second,) = (_runs(uri) for uri in (sqlite_uri, again["OVERT_STORE"]))
    assert _scores(first) == _scores(second)
    assert _scores(first)["accuracy"] > 0.9
    assert [data.dataset.digest for data in first.inputs.dataset_inputs] == [
        data.dataset.digest for data in second.inputs.dataset_inputs
    ]


def _runs(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def _scores(run: Any) -> dict[str, float]:
    return {name: value for name, value in run.data.metrics.items() if "seconds" not in name}


@pytest.fixture
def small(record: Record, overt: Overt) -> None:
    """One run in the store, which was recorded outside any repository."""
    record(ONE_RUN)
    overt("sync")


def test_reproduce_as_json_has_the_documented_shape(small: None, overt: Overt) -> None:
    found = json.loads(overt("reproduce", "small", "--json").out)
    assert found.keys() == {"store", "run", "package_changes", "missing", "rebuilt"} | ORIGIN_FIELDS
    assert found["run"]["name"] == "small"
    assert found["rebuilt"] is None
    assert any("no commit" in sentence for sentence in found["missing"])


def test_audit_as_json_has_the_documented_shape(small: None, overt: Overt) -> None:
    found = json.loads(overt("audit", "last", "--json").out)
    assert found.keys() == {"store", "version", "model_files", "promotions", "run", "origin", "scores", "missing"}
    assert found["origin"].keys() == ORIGIN_FIELDS
    assert (found["version"], found["run"]["params"]) == (None, {"depth": "3"})


def test_people_read_what_is_there_and_last_what_is_missing(small: None, overt: Overt) -> None:
    audited, planned = overt("audit", "small"), overt("reproduce", "small")
    assert audited.code == planned.code == 0
    for word in ("FINISHED", "command", "depth", "python", "Missing, or in doubt"):
        assert word in audited.out, word
    assert "What cannot be matched" in planned.out
    assert planned.out.rstrip().splitlines()[-1].startswith("  no data are recorded")


@pytest.mark.parametrize("command", ["audit", "reproduce"])
def test_what_is_not_there_is_one_line(command: str, small: None, overt: Overt) -> None:
    assert "no run answers to 'nobody'" in overt.fails(command, "nobody")
    assert "nowhere.db" in overt.fails(command, "last", "--store", "sqlite:///nowhere.db")
    assert "registered model" in overt.fails(command, "flowers@champion") or command == "reproduce"
    assert not Path("nowhere.db").exists()


def test_a_run_that_cannot_be_rebuilt_is_one_line_and_no_folder(small: None, overt: Overt) -> None:
    assert "no commit" in overt.fails("reproduce", "small", "--apply", "built")
    assert not Path("built").exists()


@pytest.mark.parametrize("command", ["audit", "reproduce"])
def test_nothing_recorded_moves_the_cursor(command: str, record: Record, overt: Overt) -> None:
    record(
        r"""
        evil = "x\x1b[2J\rloud\u202e"
        with overt.start_run(evil, params={evil: evil, "seed": evil}, tags={"overt.argv": '["\\u001b[2J"]'}) as run:
            run.set_tags({"overt.git.branch": evil, "overt.git.commit": evil, "overt.overlap_rows": evil})
            run.log_metric("accuracy", 0.5)
        """
    )
    overt("sync")
    said = overt(command, "last")
    assert said.code == 0
    assert all(character.isprintable() or character == "\n" for character in said.out + said.err)
    assert "loud" in said.out


def test_a_crafted_promotion_is_printed_like_any_other(
    record: Record, overt: Overt, sqlite_uri: str, tmp_path: Path
) -> None:
    client = MlflowClient(sqlite_uri)
    client.create_registered_model("odd")
    client.create_model_version("odd", str(tmp_path))
    promotion = {"state": "done", "alias": "a", "source": [1], "replaced": {}, "run_id": 7, "by": None, "mode": 3}
    scores = {"metric": "f1", "score": "high", "replaced_score": [], "dataset": 5, "at": ""}
    client.set_model_version_tag("odd", "1", f"overt.promotion.a.{'9' * 25}", json.dumps(promotion | scores))
    (tmp_path / "MLmodel").write_text("{}")
    said = overt("audit", "odd/1", "--store", sqlite_uri)
    assert said.code == 0, said.err
    assert "high" in said.out
    assert json.loads(overt("audit", "odd/1", "--store", sqlite_uri, "--json").out)["promotions"][0]["by"] is None


def test_a_store_without_a_registry_says_that_models_need_mlflow(overt: Overt, record: Record, tmp_path: Path) -> None:
    store = f"jsonl:{tmp_path / 'light'}"
    said = record(ONE_RUN, OVERT_STORE=store, OVERT_DELIVERY="inline", OVERT_WAIT="60")
    assert said.returncode == 0, said.stderr
    audited = overt("audit", "small", "--store", store, "--json")
    assert audited.code == 0, audited.err
    assert json.loads(audited.out)["run"]["name"] == "small"
    assert "registered models need an MLflow store" in overt.fails("audit", "flowers@champion", "--store", store)


@pytest.mark.parametrize("command", ["audit", "show", "reproduce"])
def test_what_of_a_store_is_left_out_is_said_also_before_an_error(command: str, overt: Overt, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("no run\n")
    said = overt(command, "nobody", "--store", f"jsonl:{tmp_path}")
    assert said.code == 1
    doubt, error = said.err.splitlines()
    assert "is left out, since it is no run" in doubt
    assert "no run answers to 'nobody'" in error
