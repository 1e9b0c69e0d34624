"""Every test starts from the same nothing: an empty folder, no setting of overt's or MLflow's, one thread for numbers.

What is costly to make (MLflow's database schema, a running MLflow server) is made once and lent out; what a test may
change (its folder, its database file) is its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, settings

from overt import settings as overt_settings
from overt.settings import Settings

OURS = ("MLFLOW_", "OVERT_")
# No system metrics: a test that a busy machine makes last ten seconds would find points that it did not record.
FIXED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OVERT_QUIET": "1",
    "OVERT_SYSTEM_METRICS": "0",
    "OMP_NUM_THREADS": "1",
}

SERVER_START_S = 50.0
SERVER_STOP_S = 5.0


def _strip(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` without the developer's own settings of overt and MLflow, with the tests' fixed ones."""
    return {name: value for name, value in environment.items() if not name.startswith(OURS)} | FIXED


# Before any test module is imported: numpy and torch read OMP_NUM_THREADS once, when they load.
os.environ.update(FIXED)

# A shell that starts the tests in its background has them ignore Ctrl-C, and with them every script that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline per example would measure the neighbours on a busy machine; each test has its time limit already. The
# isolation below is a function-scoped fixture on purpose: examples of one test may share a folder.
settings.register_profile("overt", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("overt")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only serial tests are asked for, import no file without one: importing all takes a quarter of a minute."""
    only_serial = config.option.markexpr.startswith("serial") and collection_path.suffix == ".py"
    return True if only_serial and "mark.serial" not in collection_path.read_text("utf-8") else None


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in an empty working directory, with no setting of the developer's, nor of a test that ran before."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    for name, value in FIXED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OVERT_DIR", str(tmp_path / ".overt"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("MPLCONFIGDIR", str(_for_all_workers(tmp_path_factory) / "matplotlib"))  # its list of fonts
    monkeypatch.setattr(overt_settings, "_configured", Settings())
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def empty_mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sqlite file with MLflow's schema and nothing in it: made once for all workers, copied and never opened.

    A child process makes it, so that no test finds mlflow imported unless it imported it.
    """
    folder = _for_all_workers(tmp_path_factory)
    database = folder / "empty-mlflow.db"
    with open(folder / "empty-mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            draft = folder / "empty-mlflow-draft.db"
            script = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
            subprocess.run(
                [sys.executable, "-c", script, f"sqlite:///{draft}"],
                cwd=folder,
                env=_strip(dict(os.environ)),
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
            draft.rename(database)
    return database


def _for_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of the tests, which its workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def sqlite_uri(empty_mlflow_database: Path, tmp_path: Path) -> str:
    """URI of an empty MLflow database of the test's own, without the 1.3 s that MLflow takes to create its schema.

    Artifacts of the experiment Default go to ``mlruns/0`` in the test's folder, as they would had it created the file.
    """
    return _copy_database(empty_mlflow_database, tmp_path, artifacts=str(tmp_path / "mlruns" / "0"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have matplotlib draw nothing in this process: pictures took more than half of a delivery that nobody looks at."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def print_png(canvas: FigureCanvasAgg, file: BinaryIO, **options: object) -> None:
        file.write(b"\x89PNG")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", print_png)


@pytest.fixture(scope="session")
def mlflow_server(empty_mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real MLflow server on loopback, with an sqlite file and proxied artifacts behind it.

    One server serves all tests of a worker (a start takes some five seconds), so a test looks up what it wrote by the
    names and keys that it chose, and never counts what the server holds. A test that kills or pauses a server starts
    its own.
    """
    folder = tmp_path_factory.mktemp("mlflow-server")
    _copy_database(empty_mlflow_database, folder, artifacts="mlflow-artifacts:/0")
    with _running_server(folder) as uri:
        yield uri


def _copy_database(template: Path, folder: Path, *, artifacts: str) -> str:
    """Copy ``template`` to ``folder/mlflow.db`` and point its experiment Default at ``artifacts``."""
    database = folder / "mlflow.db"
    shutil.copyfile(template, database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (artifacts,))
    return f"sqlite:///{database}"


@contextmanager
def _running_server(folder: Path) -> Iterator[str]:
    """Run ``mlflow server`` on the database in ``folder``; end it with everything that it started."""
    port = _free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    # Its job runners are seven more processes, which tracking never uses.
    environment = _strip(dict(os.environ)) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(server, uri, log)
        yield uri
    finally:
        _end_group(server)


def _free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(server: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    """Return when ``uri`` answers; raise with the end of the server's log when it died or takes too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + SERVER_START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"{uri}/health", timeout=1.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    state = "is silent" if server.poll() is None else f"ended with {server.returncode}"
    raise RuntimeError(f"mlflow server {state}:\n{log.read_text(errors='replace')[-2000:]}")


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server's process group, which holds its workers too: politely, then surely."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, request)
        except ProcessLookupError:
            break
        try:
            server.wait(timeout=SERVER_STOP_S)
        except subprocess.TimeoutExpired:
            continue
    server.wait()
