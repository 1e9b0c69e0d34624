"""A store that can be read and holds whatever a test puts there, and git repositories of the test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from overt.capture.environment import environment, packages
from overt.errors import ArtifactNotFound, RunNotFound
from overt.records import RunDetails, RunSpec, RunSummary, StoredDataset, StoredFile
from overt.stores.memory import MemoryRun, MemoryStore

GIT = ("git", "-c", "user.name=Mina", "-c", "user.email=mina@example.org", "-c", "commit.gpgsign=false")


class Readable(MemoryStore):
    """Runs in memory, to be read back."""

    def add(self, name: str = "mine", **fields: Any) -> MemoryRun:
        run = MemoryRun(
            f"{len(self.runs) + 1:032x}", RunSpec(f"{len(self.runs) + 1:032x}", name, "shelf", 1_000), **fields
        )
        self.runs[run.id] = run
        return run

    def iter_runs(
        self, *, experiment: str | None = None, name: str | None = None, prefix: str | None = None
    ) -> Iterator[RunSummary]:
        for run in reversed(self.runs.values()):
            if name in (None, run.name) and run.id.startswith(prefix or ""):
                yield self.read_run(run.id).run

    def read_run(self, run_id: str) -> RunDetails:
        if run_id not in self.runs:
            raise RunNotFound(f"there is no run {run_id}")
        run = self.runs[run_id]
        summary = RunSummary(
            *(run.id, run.name, run.experiment, run.status, run.spec.started_ms, run.ended_ms, run.spec.key),
            *(run.metrics, run.params, run.tags),
        )
        data = tuple(StoredDataset(data.name, data.digest, data.context, data.profile) for data in run.datasets)
        files = tuple(StoredFile(path, len(content)) for path, content in run.artifacts.items())
        return RunDetails(summary, {}, data, files, ())

    def read_file(self, run_id: str, path: str) -> bytes:
        if path not in self.runs[run_id].artifacts:
            raise ArtifactNotFound(path)
        return self.runs[run_id].artifacts[path]


def told(commit: str | None, *, diff: bytes = b"", argv: list[str] | None = None, **tags: str) -> dict[str, Any]:
    """Tags, params and files of a run that tells everything, as far as it is not replaced."""
    given: Mapping[str, str | None] = {
        "overt.git.commit": commit,
        "overt.git.dirty": "true" if b"diff --git" in diff else "false",
        "overt.argv": json.dumps(argv or ["/opt/env/bin/python3", "train.py"]),
        "mlflow.source.name": "/home/mina/project/train.py",
        "mlflow.user": "mina",
        "overt.host": "far",
        **tags,
    }
    files = {
        "overt/environment.json": json.dumps(environment() | {"cwd": "/home/mina/project", "variables": {}}).encode(),
        "overt/packages.json": json.dumps(packages()).encode(),
    }
    return {
        "tags": {name: value for name, value in given.items() if value is not None},
        "params": {"random_state": "0"},
        "artifacts": files | ({"overt/uncommitted.diff": diff} if diff else {}),
        "status": "FINISHED",
    }


class Repo:
    """A git repository with one commit, of a script and a page of text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self("init", "-q", "-b", "main")
        self.write("train.py", "print('one')\n")
        self.write("sub/text.txt", "first\nsecond\nthird\n")
        self.first = self.commit()

    def __call__(self, *arguments: str) -> str:
        asked = subprocess.run([*GIT, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return asked.stdout

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, "utf-8")

    def commit(self) -> str:
        self("add", "-A")
        self("commit", "-q", "--no-verify", "-m", "a step")
        return self("rev-parse", "HEAD").strip()

    def diff(self) -> bytes:
        """As overt records it."""
        from overt.capture.source import source

        return source(self.folder, ["python"]).diff or b""

    def state(self) -> tuple[str, ...]:
        """Everything of it that rebuilding has to leave alone."""
        index = (self.folder / ".git" / "index").read_bytes().hex()
        seen = ("HEAD", "refs"), ("status", "--porcelain", "-z"), ("stash", "list"), ("config", "--list", "--local")
        said = [self("for-each-ref"), *(self(*question) for question in seen[1:])]
        head = (self.folder / ".git" / "HEAD").read_text("utf-8")
        return (index, head, *said, self("worktree", "list"))


Kept = Mapping[str, str]


def tree(folder: Path) -> Kept:
    """Text of every file below a folder, git's own and what is written beside the code excepted."""
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (".git", "overt-reproduce")
    }
