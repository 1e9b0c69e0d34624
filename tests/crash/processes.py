"""Real processes for tests that kill them: started in a session of their own, found again by their environment, and
looked at through SQLite and /proc, never through overt; only what is left of them is delivered by it.

What a test waits for is a fact with a deadline; how long a fact took to come is never part of a test.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from overt.delivery.sync import Outcome, sync

DEADLINE_S = 90.0
_POLL_S = 0.02
_started: list[subprocess.Popen[str]] = []


class Point(NamedTuple):
    """A metric as MLflow's database holds it."""

    name: str
    value: float
    step: int
    ms: int


def start_python(source: str, *arguments: object, **keywords: Any) -> subprocess.Popen[str]:
    """Start ``source`` as a script, in a new session, so that a signal to its group reaches nothing of ours."""
    path = Path.cwd() / f"script-{secrets.token_hex(4)}.py"
    path.write_text(textwrap.dedent(source), "utf-8")
    environment = keywords.pop("env", {})
    process = subprocess.Popen(
        [*keywords.pop("prefix", ()), sys.executable, str(path), *map(str, arguments)],
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"} | environment,
        stdin=keywords.pop("stdin", subprocess.DEVNULL),
        stdout=keywords.pop("stdout", subprocess.PIPE),
        stderr=keywords.pop("stderr", subprocess.PIPE),
        text=True,
        start_new_session=True,
        **keywords,
    )
    _started.append(process)
    return process


class Ended(NamedTuple):
    """How a script ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def warnings(self) -> list[str]:
        """Lines of overt's warnings."""
        return [line for line in self.err.splitlines() if "OvertWarning:" in line]


def run_python(source: str, *arguments: object, deadline_s: float = DEADLINE_S, **keywords: Any) -> Ended:
    """Run ``source`` to its end. Its output pipes have to close then, whatever it has left running."""
    began = time.monotonic()
    process = start_python(source, *arguments, **keywords)
    try:
        out, err = process.communicate(timeout=deadline_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Ended(process.returncode, out or "", err or "", time.monotonic() - began)


def eventually(is_true: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until ``is_true()``; fail with ``what`` if it does not become true."""
    deadline = time.monotonic() + deadline_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {deadline_s:.0f} s: {what}"
        time.sleep(_POLL_S)


# -- delivering later --------------------------------------------------------------------------------------------------

_SYNC = """
    import json, sys
    from pathlib import Path
    from overt.delivery.sync import sync
    base, uri, keep = sys.argv[1:]
    for outcome in sync(Path(base), store_of=lambda spec: uri, keep=keep == "keep"):
        spec = outcome.finding.spec
        print(json.dumps({
            "folder": outcome.finding.folder.name, "key": spec and spec.key, "delivered": outcome.delivered,
            "closed": outcome.closed, "problem": outcome.problem, "state": outcome.finding.state,
        }))
"""


def sync_once(base: Path, uri: str, *, keep: bool = False, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
    """What ``overt sync`` does, in a process that knows nothing of the one that recorded; its outcomes."""
    ended = run_python(_SYNC, base, uri, "keep" if keep else "remove", deadline_s=deadline_s)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def sync_here(base: Path, uri: str, *, keep: bool = False) -> list[Outcome]:
    """The same in this process, which knows nothing of the one that recorded either and has imported MLflow."""
    return list(sync(base, store_of=lambda spec: uri, keep=keep))


def sync_until_delivered(base: Path, uri: str) -> None:
    """Sync until nothing is left; a courier that still holds a run's lock makes it the next round's."""
    eventually(
        lambda: not run_folders(base) or (sync_here(base, uri), not run_folders(base))[1], f"{base} delivered by sync"
    )


def run_folders(base: Path) -> list[Path]:
    """The journals that lie in ``base``."""
    return sorted(base.glob("runs/*"))


# -- what has arrived --------------------------------------------------------------------------------------------------


class Database:
    """MLflow's sqlite file, read past MLflow."""

    def __init__(self, uri: str) -> None:
        self.path = Path(uri.removeprefix("sqlite:///"))

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Result of a query."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute(query, parameters).fetchall()

    def dump(self) -> list[str]:
        """Everything that is in the file."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=60)) as connection:
            return list(connection.iterdump())

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the one run with this key."""
        found = self.rows("SELECT run_uuid FROM tags WHERE key = 'overt.key' AND value = ?", key)
        assert len(found) <= 1, f"run {key} is there {len(found)} times"
        return found[0][0] if found else None

    def status(self, key: str) -> str | None:
        """Status of the run."""
        found = self.rows("SELECT status FROM runs WHERE run_uuid = ?", self.run_id(key))
        return found[0][0] if found else None

    def keys(self) -> list[str]:
        """Keys of all runs."""
        return [key for (key,) in self.rows("SELECT value FROM tags WHERE key = 'overt.key'")]

    def points(self, key: str) -> Counter[Point]:
        """All metric points of the run, and how often each is there."""
        found = self.rows("SELECT key, value, step, timestamp FROM metrics WHERE run_uuid = ?", self.run_id(key))
        return Counter(Point(*row) for row in found)

    def tags(self, key: str) -> dict[str, str]:
        """Tags of the run."""
        return dict(self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", self.run_id(key)))

    def params(self, key: str) -> dict[str, str]:
        """Params of the run."""
        return dict(self.rows("SELECT key, value FROM params WHERE run_uuid = ?", self.run_id(key)))

    def artifacts(self, key: str) -> Path:
        """The folder of the run's artifacts (a store without a server)."""
        ((uri,),) = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", self.run_id(key))
        return Path(uri.removeprefix("file://"))


class PlainFiles:
    """The folder of a JSONL store, read past overt: its courier starts in no time, having no MLflow to import."""

    def __init__(self, uri: str) -> None:
        self._folder = Path(uri.removeprefix("jsonl:"))

    def status(self, key: str) -> str | None:
        """Status of the run."""
        return str(self._run(key)["status"])

    def points(self, key: str) -> Counter[Point]:
        """All metric points of the run, and how often each is there."""
        lines = map(json.loads, (self._folder / "records" / f"{key}.jsonl").read_text().splitlines())
        metrics = [line for line in lines if line["t"] == "metric"]
        return Counter(Point(line["name"], line["value"], line["step"], line["ms"]) for line in metrics)

    def tags(self, key: str) -> dict[str, str]:
        """Tags of the run."""
        return dict(self._run(key)["tags"])

    def artifacts(self, key: str) -> Path:
        """The folder of the run's artifacts."""
        return self._folder / "artifacts" / key

    def _run(self, key: str) -> dict[str, Any]:
        runs = map(json.loads, (self._folder / "runs.jsonl").read_text().splitlines())
        (found,) = (run for run in runs if run["run_id"] == key)
        return dict(found)


# -- processes ---------------------------------------------------------------------------------------------------------


def couriers_of(base: Path) -> list[int]:
    """Process ids of the couriers that were started with ``OVERT_DIR`` naming ``base``."""
    return [pid for pid, command in _processes(f"OVERT_DIR={base}") if "overt.delivery.courier" in command]


@contextmanager
def nothing_left_running(base: Path) -> Iterator[None]:
    """Kill what a test leaves running: couriers linger for half a minute when their store is away."""
    try:
        yield
    finally:
        for pid, _ in _processes(f"OVERT_DIR={base}"):
            if pid != os.getpid():
                kill(pid)
        while _started:  # of a test that failed: else its pipes are another test's ResourceWarning
            with _started.pop() as process:
                process.kill()


def kill(pid: int | None) -> None:
    """Kill -9, if it is still there."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, a zombie included."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _processes(variable: str) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def bare(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment in which the scripts of these tests do without overt."""
    return dict(environment or {}) | {"WITHOUT_OVERT": "1"}
