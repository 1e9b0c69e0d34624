"""A real MLflow server that answers everything but one record: that one is set aside, and holds up nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from tests.crash.processes import (
    Database,
    eventually,
    run_folders,
    run_python,
    sync_here,
    sync_once,
    sync_until_delivered,
)
from tests.faults.servers import Meddle, MlflowServer, free_port, meddling_proxy

pytestmark = pytest.mark.timeout(240)

TRAINING = """
    import overt
    with overt.start_run("poisoned", experiment="faults") as run:
        print(run.key, flush=True)
        run.log_param("lr", 0.1)
        for i in range(60):
            run.log_metric("loss", 1 / (i + 1), step=i)
            run.set_tag("newest", str(i))
            if i == 30:
                run.log_metric("cursed", 1.0)
                run.log_text("a curse", "cursed.txt")
        run.log_text("a note", "notes/a.txt")
    """


class Behind(NamedTuple):
    """A real server, the database behind it, and the folder in which its files arrive."""

    uri: str
    database: Database
    folder: Path


@pytest.fixture(scope="module")
def server(empty_mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """One for all tests here: each has a run of its own, and a start takes longer than they do."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_mlflow_database, folder / "mlflow.db")
    database_uri = f"sqlite:///{folder / 'mlflow.db'}"
    server = MlflowServer(database_uri, folder, free_port())
    try:
        server.start()
        yield Behind(server.uri, Database(database_uri), folder)
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # MLflow waits seconds before it asks again after a 500
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def chokes(method: str, path: str, body: bytes) -> int | None:
    is_write = method in ("POST", "PUT", "PATCH")
    return 500 if is_write and (b"cursed" in body or path.endswith("/cursed.txt")) else None


def refuses_writes(method: str, path: str, body: bytes) -> int | None:
    asks = ("/search", "/get")
    return 503 if method != "GET" and not any(verb in path for verb in asks) and "/runs/create" not in path else None


def refuses_files(method: str, path: str, body: bytes) -> int | None:
    return 503 if method == "PUT" and "artifacts" in path else None


def all_but_the_curse_is_there(database: Database, key: str) -> None:
    points = database.points(key)
    assert sorted((p.step, n) for p, n in points.items() if p.name == "loss") == [(i, 1) for i in range(60)]
    assert not [p for p in points if p.name == "cursed"]
    assert database.tags(key)["newest"] == "59"
    assert "overt.probe" not in database.tags(key)
    assert (database.params(key), database.status(key)) == ({"lr": "0.1"}, "FINISHED")


def arrived(server: Behind, key: str) -> set[str]:
    """Names of the text files that the run has on the server."""
    return {path.name for path in server.folder.glob(f"artifacts/*/{server.database.run_id(key)}/**/*.txt")}


def test_what_a_server_chokes_on_is_set_aside_by_the_courier_and_brought_by_a_later_sync(
    server: Behind, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = server.database
    lifted: list[bool] = []
    with meddling_proxy(server.uri, lambda *request: None if lifted else chokes(*request)) as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(TRAINING)
        assert ended.code == 0, ended.err
        key = ended.out.split()[0]
        (folder,) = run_folders(base)
        eventually(lambda: database.status(key) == "FINISHED", "its ending")
        all_but_the_curse_is_there(database, key)
        refused = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
        assert sorted(json.loads(entry["line"])["t"] for entry in refused) == ["artifact", "metric"]
        assert all("500" in entry["reason"] for entry in refused)
        assert any("metric cursed was refused" in line for line in ended.warnings), ended.err
        assert arrived(server, key) & {"a.txt", "cursed.txt"} == {"a.txt"}
        lifted.append(True)
        sync_until_delivered(base, uri)
    assert [p.value for p in database.points(key) if p.name == "cursed"] == [1.0]
    assert arrived(server, key) & {"a.txt", "cursed.txt"} == {"a.txt", "cursed.txt"}


@pytest.mark.parametrize("refuses", [refuses_writes, refuses_files])
def test_a_server_that_only_reads_or_whose_files_lie_elsewhere_leads_to_no_rejection(
    server: Behind, base: Path, monkeypatch: pytest.MonkeyPatch, refuses: Meddle
) -> None:
    monkeypatch.setenv("OVERT_DELIVERY", "manual")
    with meddling_proxy(server.uri, refuses) as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(TRAINING)
        key = ended.out.split()[0]
        (folder,) = run_folders(base)
        for _ in range(2):
            (outcome,) = sync_here(base, uri)
            assert not outcome.delivered
            assert "503" in outcome.problem
            assert not (folder / "rejected.jsonl").exists()
    # in a process of its own: MLflow remembers by a run's id through which server its files go
    (found,) = sync_once(base, server.uri)
    assert found["delivered"], found
    assert [p.value for p in server.database.points(key) if p.name == "cursed"] == [1.0]
    assert server.database.status(key) == "FINISHED"


def test_an_error_in_mlflows_own_client_is_that_records_and_no_others(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.log_batch

    def log_batch(self: MlflowClient, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if any(metric.key == "cursed" for metric in metrics):
            raise TypeError("unhashable type: 'curse'")
        real(self, run_id, metrics, params, tags)

    monkeypatch.setenv("OVERT_DELIVERY", "manual")
    ended = run_python(TRAINING)
    key = ended.out.split()[0]
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    (outcome,) = sync_here(base, sqlite_uri)
    assert "metric cursed was refused" in outcome.problem
    assert "TypeError: unhashable type" in outcome.problem
    all_but_the_curse_is_there(Database(sqlite_uri), key)
