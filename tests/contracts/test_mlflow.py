"""The contract on MLflow: a database file, and a real server over HTTP. Read back with MLflow's client alone."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import FileInfo

from overt import clock
from overt.errors import StoreRejected, StoreUnavailable
from overt.records import Dataset, Metric, Param, RunSpec, Tag
from overt.stores.mlflow.connection import connect
from overt.stores.mlflow.names import from_mlflow
from overt.stores.mlflow.store import MlflowStore
from overt.testing import StoreContract, StoredPoint, StoredRun

DRIFT = "param_drift."
LARGEST = 1.7976931348623157e308


class MlflowContract(StoreContract):
    def reopened(self, store: MlflowStore) -> MlflowStore:
        return MlflowStore(store._client, store._uri)

    def read(self, store: MlflowStore, run_id: str) -> StoredRun:
        return read_run(store._client, run_id)

    def test_files_whose_names_mlflow_would_cut_or_decode_arrive_each_on_its_own(
        self, store: MlflowStore, tmp_path: Path
    ) -> None:
        names = [" a.txt", "a#1.txt", "a?2.txt", "a%41.txt", "aA.txt", "sub/a#1", "sub/a#2"]
        (tmp_path / "sub").mkdir()
        for name in names:
            (tmp_path / name).write_text(name)
        run_id = store.create_run(RunSpec(clock.new_key(), "a run", "Default", 1_700_000_000_000))
        store.log_artifacts(run_id, tmp_path)
        read = self.read(store, run_id).artifacts
        assert {from_mlflow(path): content.decode() for path, content in read.items()} == {name: name for name in names}
        (tmp_path / ("#" * 250)).touch()
        with pytest.raises(StoreRejected, match="too long a name"):
            store.log_artifacts(run_id, tmp_path)

    def test_files_of_the_users_own_stay_where_long_values_are_kept_whole(
        self, store: MlflowStore, tmp_path: Path
    ) -> None:
        """A list and what is no JSON: neither is overwritten, and neither keeps a long value from arriving."""
        own = {"params.json": b"[1, 2]", "tags.json": b"no JSON"}
        for name, content in own.items():
            (tmp_path / name).write_bytes(content)
        run_id = store.create_run(RunSpec(clock.new_key(), "a run", "Default", 1_700_000_000_000))
        store.log_artifacts(run_id, tmp_path)
        store.log_batch(run_id, [Param("layers", "8, " * 5_000), Tag("story", "once " * 5_000)])
        read = self.read(store, run_id)
        assert read.artifacts == own
        assert (read.params["layers"], read.tags["story"]) == ("8, " * 5_000, "once " * 5_000)


@pytest.fixture(scope="module")
def database(empty_mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """One database for all tests here: each has runs of its own, and opening one takes longer than most tests."""
    copied = shutil.copyfile(empty_mlflow_database, tmp_path_factory.mktemp("contract") / "mlflow.db")
    return connect(f"sqlite:///{copied}")


class TestSqlite(MlflowContract):
    @pytest.fixture
    def store(self, database: MlflowClient) -> MlflowStore:
        return MlflowStore(database, database.tracking_uri)


@pytest.mark.parametrize("is_known", [False, True])
def test_of_a_deleted_experiment_it_is_said_how_to_take_it_back(database: MlflowClient, is_known: bool) -> None:
    store, name = MlflowStore(database, database.tracking_uri), f"gone {is_known}"
    experiment_id = database.create_experiment(name)
    if is_known:
        store.create_run(RunSpec("cd" * 16, "before", name, 1_700_000_000_000))
    database.delete_experiment(experiment_id)
    for _ in range(2):
        with pytest.raises(StoreRejected, match=f"mlflow experiments restore --experiment-id {experiment_id}"):
            store.create_run(RunSpec("ef" * 16, "after", name, 1_700_000_000_000))
    database.restore_experiment(experiment_id)
    assert store.create_run(RunSpec("ef" * 16, "after", name, 1_700_000_000_000))


def test_a_damaged_database_is_away_and_refuses_nothing(empty_mlflow_database: Path, tmp_path: Path) -> None:
    """MLflow calls it a bad request, as it does what else SQLAlchemy does not call operational."""
    path = shutil.copyfile(empty_mlflow_database, tmp_path / "mlflow.db")
    store = MlflowStore.open(f"sqlite:///{path}")
    run_id = store.create_run(RunSpec("ab" * 16, "a run", "Default", 1_700_000_000_000))
    path.write_bytes(b"no database\n" * 100_000)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.log_batch(run_id, [Metric("x", 1.0, 0, 1)])
        with pytest.raises(StoreUnavailable):
            store.probe_run(run_id)


class TestServer(MlflowContract):
    @pytest.fixture
    def store(self, mlflow_server: str) -> MlflowStore:
        return MlflowStore.open(mlflow_server)


@pytest.mark.parametrize("theirs", ["other", "another", "other, and long" * 1_000])
def test_a_param_that_somebody_else_has_written_into_the_run_is_drift(database: MlflowClient, theirs: str) -> None:
    store = MlflowStore(database, database.tracking_uri)
    run_id = store.create_run(RunSpec(clock.new_key(), "a run", "Default", 1_700_000_000_000))
    store.log_batch(run_id, [Param("alpha", "1")])
    database.log_param(run_id, "beta", "other")
    store.log_batch(run_id, [Param("alpha", "1"), Param("beta", theirs), Param("gamma", "3"), Metric("x", 1.0, 0, 1)])
    found = read_run(database, run_id)
    assert found.params == {"alpha": "1", "beta": "other", "gamma": "3"}
    assert found.drifted == ({"beta": theirs} if theirs != "other" else {})
    assert [point.value for point in found.points] == [1.0]


def test_data_of_more_columns_than_mlflow_describes_arrive_without_their_schema(database: MlflowClient) -> None:
    store = MlflowStore(database, database.tracking_uri)
    run_id = store.create_run(RunSpec(clock.new_key(), "a run", "Default", 1_700_000_000_000))
    wide, narrow = (
        Dataset(name, "d1", "training", "code", "{}", "x" * length, "{}")
        for name, length in (("wide", 1_048_576), ("narrow", 1_048_575))
    )
    store.log_batch(run_id, [wide, narrow])
    found = database.get_run(run_id)
    schemas = {item.dataset.name: item.dataset.schema for item in found.inputs.dataset_inputs}
    assert schemas == {"wide": None, "narrow": narrow.schema}
    assert "overt.schema_note" in found.data.tags


def read_run(client: MlflowClient, run_id: str) -> StoredRun:
    """What MLflow holds, with what the store's documentation says of names, long texts and infinities undone."""
    run = client.get_run(run_id)
    tags = dict(run.data.tags)
    mark = "overt.name."
    whole_names = {name.removeprefix(mark): text for name, text in tags.items() if name.startswith(mark)}

    def named(name: str) -> str:
        return whole_names.get(name.rpartition(" -- ")[2]) or from_mlflow(name)

    artifacts = _artifacts(client, run_id)
    whole_params = json.loads(artifacts.pop("overt/params.json", b"{}"))
    whole_tags = json.loads(artifacts.pop("overt/tags.json", b"{}"))
    tags = {named(name): whole_tags.get(named(name), text) for name, text in tags.items()}
    experiment = client.get_experiment(run.info.experiment_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    contexts = {
        (item.dataset.name, item.dataset.digest, tag.value)
        for item in inputs
        for tag in item.tags
        if tag.key == "mlflow.data.context"
    }
    for name, data_digest, _ in list(contexts):
        also = tags.get(f"overt.contexts.{name}.{data_digest}", "")
        contexts |= {(name, data_digest, context) for context in json.loads(also or "[]")}
    outputs = run.outputs.model_outputs if run.outputs else []
    return StoredRun(
        name=run.info.run_name,
        experiment=experiment.name,
        status=run.info.status,
        started_ms=run.info.start_time,
        ended_ms=run.info.end_time,
        params={named(name): whole_params.get(named(name), text) for name, text in run.data.params.items()},
        drifted={name.removeprefix(DRIFT): text for name, text in tags.items() if name.startswith(DRIFT)},
        tags=tags,
        points=tuple(
            StoredPoint(named(name), point.step, point.timestamp, _value(named(name), point.value, tags))
            for name in run.data.metrics
            for point in client.get_metric_history(run_id, name)
        ),
        artifacts=artifacts,
        datasets=frozenset(contexts),
        models={client.get_logged_model(item.model_id).name: f"models:/{item.model_id}" for item in outputs},
        parent_id=tags.get("mlflow.parentRunId"),
    )


def _value(name: str, value: float, tags: dict[str, str]) -> float:
    if abs(value) == LARGEST and f"overt.infinite.{name}" in tags:
        return math.copysign(math.inf, value)
    return value


def _artifacts(client: MlflowClient, run_id: str) -> dict[str, bytes]:
    run = client.get_run(run_id)
    found = {item.path: _download(client, run_id, item.path) for item in _files(client, run_id, None)}
    for output in run.outputs.model_outputs if run.outputs else []:
        logged = client.get_logged_model(output.model_id)
        folder = Path(download_artifacts(logged.artifact_location, tracking_uri=client.tracking_uri))
        own = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
        found |= {
            f"{logged.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in own
        }
    return found


def _files(client: MlflowClient, run_id: str, path: str | None) -> list[FileInfo]:
    listed = client.list_artifacts(run_id, path)
    below = [file for item in listed if item.is_dir for file in _files(client, run_id, item.path)]
    return [item for item in listed if not item.is_dir] + below


def _download(client: MlflowClient, run_id: str, path: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
