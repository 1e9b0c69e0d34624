"""Runs in memory, complete when the recording call returns: no process, no file, no waiting.

Records pass through the same codec and projection as real ones, so what a test sees is what a store would get; only
pictures stay undrawn (``MemoryRun.figures``).
"""

from __future__ import annotations

import hashlib
import io
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from overt import opening
from overt.delivery.attempts import Attempts
from overt.delivery.dispatch import dispatch
from overt.delivery.messages import Delivered
from overt.delivery.projection import Projection
from overt.errors import StoreRejected
from overt.journal.codec import decode, encode_metric
from overt.journal.series import Series
from overt.links import null_run
from overt.records import Attempt, Blob, Figure, Record, Row, RunEnd, RunSpec, SegmentHead
from overt.run import Run, status_of
from overt.say import users_line
from overt.stores.memory import MemoryRun, MemoryStore


@contextmanager
def captured_runs() -> Iterator[list[MemoryRun]]:
    """Capture all runs that start within the block, in this process and its threads.

    Worker processes that the block starts (``n_jobs=2``) are processes of their own and record as they are configured:
    in a test, let them fit in this one (``n_jobs=1``), or switch them off with ``OVERT_DISABLED=1``.

    Runs that are still open when the block ends are ended as they are at the end of a script.

    Yields
    ------
    list of MemoryRun
        In the order of their start; each is up to date whenever it is looked at.

    Examples
    --------
    >>> import overt
    >>> with overt.testing.captured_runs() as runs:
    ...     with overt.start_run("mine") as run:
    ...         run.log_metric("loss", 0.25)
    >>> runs[0].status, runs[0].metrics
    ('FINISHED', {'loss': 0.25})
    """
    capture = _Capture()
    with opening.divert(capture.build):
        error: BaseException | None = None
        try:
            yield capture.runs
        except BaseException as raised:
            error = raised
            raise
        finally:
            status = status_of(error)
            for run in capture.started:
                run.finish(status, error=error if status == "FAILED" else None)


class _Capture:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runs: list[MemoryRun] = []
        self.started: list[Run] = []

    def build(self, spec: RunSpec, attempt: Attempt, top_steps: Mapping[str, int]) -> Run:
        writer = _MemoryWriter(self.store, spec, attempt)
        captured = self.store.runs[writer.run_id]
        if captured not in self.runs:
            self.runs.append(captured)
        run = Run(spec, writer, link=_MemoryLink(writer), rebuild=(_rebuild, (spec,)), top_steps=top_steps)
        _captured[spec.key] = run
        self.started.append(run)
        return run


_captured: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()


def _rebuild(spec: RunSpec, end: RunEnd | None = None) -> Run:
    """A pickled run read back: itself in this process, and in another one, which has no such memory, a null run."""
    return _captured.get(spec.key) or null_run(spec)


class _MemoryWriter:
    """Delivers each line as it is written."""

    preamble = b""

    def __init__(self, store: MemoryStore, spec: RunSpec, attempt: Attempt) -> None:
        self.attempt = attempt
        self._blobs: dict[str, bytes] = {}
        self._rows: list[Row] = []
        self.lock = threading.RLock()
        self.run_id = store.create_run(spec)
        self._run = store.runs[self.run_id]
        self.projection = Projection(
            store,
            self.run_id,
            open_blob=self._open_blob,
            rows_of=lambda path: [row for row in self._rows if row.path == path],
            draw=_undrawn,
            on_reject=self._refuse,
        )
        self._attempts = Attempts(store, self.run_id)
        self._attempts.begin(attempt)

    def append(self, line: bytes) -> bool:
        """Take one record."""
        record = decode(line)
        assert not isinstance(record, SegmentHead)
        with self.lock:
            if isinstance(record, Figure):
                self._run.figures[record.path] = record
                return True
            if isinstance(record, Row):
                self._rows.append(record)
            self.projection.send(self._attempts.iter_standing([record], self.attempt))
        return True

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Take many records."""
        return not [line for line in lines if not self.append(line)]

    def append_point(
        self, series: Series, value: float, step: int | None, model: str | None = None, dataset: str | None = None
    ) -> bool:
        """Take one more point."""
        with self.lock:
            step, time_ms = series.stamp(value, step)
            return self.append(encode_metric(series.name, value, step, time_ms, model, dataset))

    def store_bytes(self, data: bytes) -> Blob:
        """Take a file's content."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self._blobs[blob.sha256] = data
        return blob

    def store_file(self, path: Path) -> Blob:
        """Take a file."""
        return self.store_bytes(path.read_bytes())

    def sync(self) -> None:
        """Nothing is on a disk."""

    def close(self) -> None:
        """Nothing is open."""

    @contextmanager
    def _open_blob(self, blob: Blob) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._blobs[blob.sha256])

    def _refuse(self, record: Record, reason: str) -> None:
        raise StoreRejected(reason, record=record)


class _MemoryLink:
    def __init__(self, writer: _MemoryWriter) -> None:
        self._writer = writer

    def require_arrival(self) -> Delivered:
        return Delivered("", self._writer.run_id, models=self._writer.projection.models)

    def warn(self, text: str) -> None:
        dispatch().blame(*users_line())
        dispatch().warn(text)


def _undrawn(kind: str, data: Mapping[str, Any]) -> bytes:
    raise AssertionError("captured figures are not drawn")
