"""A store that outlives its process, in a plugin of its own: couriers open it in a millisecond and without MLflow.

``kept:<file>`` holds a pickled MemoryStore. While ``<file>.away`` exists the store is unavailable. Each call keeps the
processor busy for ``KEPT_WORK_S`` seconds, none by default.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import time
from pathlib import Path
from typing import Any

from overt.errors import StoreUnavailable
from overt.stores.memory import MemoryRun, MemoryStore


class KeptStore:
    def __init__(self, uri: str) -> None:
        self.path = Path(uri.partition(":")[2])

    def __getattr__(self, verb: str) -> Any:
        if verb not in ("create_run", "log_batch", "log_artifacts", "log_model", "is_running", "finish"):
            raise AttributeError(verb)

        def call(*arguments: Any) -> Any:
            if self.path.with_suffix(".away").exists():
                raise StoreUnavailable("it is away")
            work_until = time.monotonic() + float(os.environ.get("KEPT_WORK_S", "0"))
            while time.monotonic() < work_until:
                pass
            with open(self.path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                store = load(self.path)
                result = getattr(store, verb)(*arguments)
                partial = self.path.with_suffix(f".{os.getpid()}")
                partial.write_bytes(pickle.dumps(store))
                partial.replace(self.path)
                with open(self.path.with_suffix(".calls"), "a") as calls:
                    calls.write(f"{os.getpid()} {verb}\n")
            return result

        return call

    def create_run(self, spec: Any) -> Any:
        return self.__getattr__("create_run")(spec)

    def log_batch(self, run_id: str, records: Any) -> None:
        self.__getattr__("log_batch")(run_id, records)

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        self.__getattr__("log_artifacts")(run_id, folder)

    def finish(self, run_id: str, status: Any, ended_ms: int) -> None:
        self.__getattr__("finish")(run_id, status, ended_ms)

    def close(self) -> None:
        pass


def load(path: Path) -> MemoryStore:
    if not path.exists():
        return MemoryStore()
    store: MemoryStore = pickle.loads(path.read_bytes())
    return store


def only_run(path: Path) -> MemoryRun:
    (run,) = load(path).runs.values()
    return run


def install(site: Path) -> Path:
    """A folder that, on the path, makes ``kept:`` a store."""
    info = site / "kept-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kept\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[overt.stores]\nkept = tests.unit.delivery.kept:KeptStore\n")
    return site
