from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Overt


def processes_with(text: str) -> list[str]:
    """Command lines of the processes that have ``text`` in theirs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in words:
            found.append(words)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize(("request_to_end", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_ui_answers_and_ends_with_all_it_started(
    sqlite_uri: str, request_to_end: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "overt", "ui", "--port", "0", "--store", sqlite_uri]
    environment = dict(os.environ) | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as ui:
        assert ui.stdout is not None
        line = ui.stdout.readline()
        assert line.startswith(f"MLflow's UI on {sqlite_uri}: http://127.0.0.1:"), line
        address = line.partition(": ")[2].partition(" ")[0]
        port = address.rpartition(":")[2]
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            assert answer.status == 200
        mine = processes_with(f"--port {port}")
        assert mine
        assert not any(sqlite_uri in words for words in mine)
        os.kill(ui.pid, request_to_end)
        out, err = ui.communicate(timeout=20)
    assert ui.returncode == code
    assert out == ""
    assert "Traceback" not in err
    deadline = time.monotonic() + 5
    while processes_with(f"--port {port}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(f"--port {port}") == []


def test_a_taken_port_is_one_line(overt: Overt, sqlite_uri: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = overt.fails("ui", "--port", port, "--store", sqlite_uri)
    assert f"port {port} of 127.0.0.1" in said
    assert "--port" in said


def test_an_address_that_is_not_this_machines_is_one_line(overt: Overt, sqlite_uri: str) -> None:
    overt.fails("ui", "--host", "192.0.2.1", "--store", sqlite_uri)


def test_of_a_server_the_address_is_printed_without_its_credentials(overt: Overt) -> None:
    said = overt("ui", "--store", "http://me:secret@mlflow.example:5000")
    assert said == (0, "http://mlflow.example:5000\n", "")


def test_a_store_without_a_ui_is_one_line(overt: Overt) -> None:
    assert "a database or a server" in overt.fails("ui", "--store", "databricks://profile")


def test_a_server_that_does_not_start_is_one_line(
    overt: Overt, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\nexit 3\n")
    false.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(false))
    monkeypatch.setattr("sys.stderr", sys.__stderr__)
    said = overt("ui", "--port", "0", "--store", sqlite_uri)
    assert said.code == 1
