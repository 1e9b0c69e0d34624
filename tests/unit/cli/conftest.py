from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from overt.cli import commands

Record = Callable[..., subprocess.CompletedProcess[str]]


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Overt:
    """The command line, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        self._capsys.readouterr()
        code = 0
        try:
            commands.main([str(argument) for argument in arguments], prog_name="overt")
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *self._capsys.readouterr())

    def fails(self, *arguments: object, code: int = 1) -> str:
        """The one line that a command fails with; whatever else it did would be wrong."""
        said = self(*arguments)
        assert said.code == code, said
        assert said.out == ""
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("overt: ")
        return said.err


@pytest.fixture
def overt(capsys: pytest.CaptureFixture[str]) -> Overt:
    return Overt(capsys)


@pytest.fixture
def record(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Record runs in a child process, by default into journals that nobody delivers yet; its code, out and err."""
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)

    def record(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        script = "import os, signal\nimport overt\n" + textwrap.dedent(source)
        return subprocess.run(
            [sys.executable, "-c", script],
            env=dict(os.environ) | {"OVERT_DELIVERY": "manual", "OVERT_WAIT": "0"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return record


ONE_RUN = """
with overt.start_run("small", experiment="shelf", params={"depth": 3}, notes="a *note*", tags={"team": "blue"}) as run:
    for epoch in range(4):
        run.log_metric("loss", 1 / (epoch + 1), epoch=epoch)
    run.log_metric("mAP@0.5", float("inf"))
    run.log_metric("odd", float("nan"))
    run.log_text("hello", "notes/hello.txt")
"""

VANISHED_RUN = """
run = overt.start_run("lost", experiment="shelf")
run.log_metric("loss", 0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def journals(base: Path | None = None) -> list[Path]:
    """The run folders that lie in a journal folder, the test's own by default."""
    runs = (base or Path(".overt")) / "runs"
    return sorted(runs.iterdir()) if runs.is_dir() else []
