"""Records of one run become calls of one store: the single place that knows which record leads to which verb.

Nothing of a record is executed or unpickled here. What a store refuses is set aside with its reason and the rest goes
through; what a store cannot take now (``StoreUnavailable``) passes to the caller, who tries again later, unless the
store takes everything else.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from overt.delivery.suspicion import Suspicion
from overt.errors import JournalError, MissingExtra, RecordError, StoreRejected
from overt.records import (
    Artifact,
    Batchable,
    Blob,
    Dataset,
    Figure,
    Lost,
    Metric,
    Model,
    Param,
    Record,
    Row,
    RunEnd,
    Seal,
    Tag,
)
from overt.stores.protocols import ModelStore, Store

STAGED_BYTES = 64 * 1024 * 1024
"""Most that is uploaded in one call, a larger file excepted: what a retry has to repeat."""

FIGURE_BYTES = 16 * 1024 * 1024
"""Most that is read to draw one figure; what the figures take themselves is far below it."""

_PATH_CONFLICTS = (FileExistsError, IsADirectoryError, NotADirectoryError)
"""One record's file stands where another's folder must be: "a" and "a/b"."""

Draw = Callable[[str, Mapping[str, Any]], bytes]


class OpenBlob(Protocol):
    """Opens spooled bytes after checking that they are those that were recorded."""

    def __call__(self, blob: Blob) -> AbstractContextManager[BinaryIO]:
        """Open ``blob``, or raise JournalError."""


class RowsOf(Protocol):
    """Reads back every row of one table, from all that has been recorded up to now."""

    def __call__(self, path: str) -> Iterable[Row]:
        """The rows of the table at ``path``, in any order."""


class Projection:
    """Sends one run's records to one store.

    Parameters
    ----------
    store, run_id
        Where to.
    open_blob : callable
        Gives spooled bytes.
    rows_of : callable
        Gives all rows of a table: a file cannot be added to, it is sent anew with each batch of rows.
    draw : callable
        Turns a figure's kind and data into PNG bytes.
    on_reject : callable
        Called with a record and a sentence for each record that will never arrive as it is.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        open_blob: OpenBlob,
        rows_of: RowsOf,
        draw: Draw,
        on_reject: Callable[[Record, str], None],
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._open_blob = open_blob
        self._rows_of = rows_of
        self._draw = draw
        self._on_reject = on_reject
        self._suspicion = Suspicion(store, run_id)
        self.models: dict[str, str] = {}

    def send(self, records: Iterable[Record]) -> None:
        """Send ``records`` in their order."""
        for verb, group in groupby(records, key=_verb):
            verb(self, list(group))

    def _send_batch(self, records: Sequence[Batchable]) -> None:
        while records:
            try:
                self._suspicion.call(partial(self._store.log_batch, self._run_id, records), is_single=len(records) == 1)
                return
            except StoreRejected as refusal:
                culprit = records[0] if len(records) == 1 else refusal.record
                if culprit not in records:
                    middle = len(records) // 2
                    self._send_batch(records[:middle])
                    records = records[middle:]
                else:
                    self._on_reject(culprit, str(refusal))  # type: ignore[arg-type]
                    records = [record for record in records if record != culprit]

    def _send_files(self, records: Sequence[Artifact | Figure]) -> None:
        for group in _of_bounded_size(records):
            with tempfile.TemporaryDirectory(prefix="overt-") as name:
                staged = [record for record in group if self._stage(record, Path(name))]
                if not staged:
                    continue
                try:
                    self._log_artifacts(Path(name), is_single=len(staged) == 1)
                except StoreRejected as refusal:
                    if len(staged) > 1:
                        middle = len(staged) // 2
                        self._send_files(staged[:middle])
                        self._send_files(staged[middle:])
                    else:
                        self._on_reject(staged[0], str(refusal))

    def _send_rows(self, records: Sequence[Row]) -> None:
        for path, last in {record.path: record for record in records}.items():
            with tempfile.TemporaryDirectory(prefix="overt-") as name:
                _target(Path(name), path).write_bytes(_table(self._rows_of(path)))
                try:
                    self._log_artifacts(Path(name), is_single=True)
                except StoreRejected as refusal:
                    self._on_reject(last, str(refusal))

    def _send_models(self, records: Sequence[Model]) -> None:
        for model in records:
            with tempfile.TemporaryDirectory(prefix="overt-") as name:
                folder = Path(name)
                try:
                    for file in model.files:
                        self._copy(file, folder)
                    if isinstance(self._store, ModelStore):
                        log_model = partial(self._store.log_model, self._run_id, model, folder)
                        self.models[model.name] = self._suspicion.call(log_model, is_single=True, with_file=True)
                    else:
                        self._log_files_of(model, folder)
                except (JournalError, StoreRejected, *_PATH_CONFLICTS) as refusal:
                    self._on_reject(model, str(refusal))

    def _log_files_of(self, model: Model, folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="overt-") as name:
            shutil.copytree(folder, Path(name, model.name))
            self._log_artifacts(Path(name), is_single=True)

    def _log_artifacts(self, folder: Path, *, is_single: bool) -> None:
        upload = partial(self._store.log_artifacts, self._run_id, folder)
        self._suspicion.call(upload, is_single=is_single, with_file=True)

    def _send_losses(self, records: Sequence[Lost]) -> None:
        count = sum(record.count for record in records)
        self._send_batch([Tag("overt.lost_records", f"{count}: {records[-1].reason}")])

    def _send_end(self, records: Sequence[RunEnd]) -> None:
        try:
            finish = partial(self._store.finish, self._run_id, records[0].status, records[0].ended_ms)
            self._suspicion.call(finish, is_single=True)
        except StoreRejected as refusal:
            self._on_reject(records[0], str(refusal))

    def _skip(self, records: Sequence[Seal]) -> None:
        """A seal concerns the journal, not the store."""

    def _stage(self, record: Artifact | Figure, folder: Path) -> bool:
        try:
            if isinstance(record, Artifact):
                self._copy(record, folder)
            else:
                if record.blob.size > FIGURE_BYTES:
                    raise RecordError(f"a figure's data may have {FIGURE_BYTES:,} bytes (got {record.blob.size:,})")
                with self._open_blob(record.blob) as file:
                    picture = self._draw(record.kind, orjson.loads(file.read()))
                target = _target(folder, record.path)
                target.write_bytes(picture)
        except _PATH_CONFLICTS:
            self._on_reject(record, "of two files one has the path of the other's folder: record one by another path")
            return False
        except (JournalError, RecordError, MissingExtra, orjson.JSONDecodeError) as error:
            self._on_reject(record, str(error))
            return False
        return True

    def _copy(self, artifact: Artifact, folder: Path) -> None:
        with self._open_blob(artifact.blob) as source, open(_target(folder, artifact.path), "wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)


def _target(folder: Path, path: str) -> Path:
    """Where ``path``, which the codec has found to stay inside, lies below ``folder``."""
    target = folder.joinpath(*path.split("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _table(rows: Iterable[Row]) -> bytes:
    """All rows as CSV, in the order of their time; columns in that of their first appearance."""
    ordered = sorted(rows, key=lambda row: row.time_ms)
    columns = list(dict.fromkeys(name for row in ordered for name in row.cells))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(row.cells) for row in ordered)
    return text.getvalue().encode()


def _of_bounded_size(records: Sequence[Artifact | Figure]) -> Iterator[list[Artifact | Figure]]:
    """Groups of at most ``STAGED_BYTES``, none with the same path twice."""
    group: dict[str, Artifact | Figure] = {}
    size = 0
    for record in records:
        if group and (size + record.blob.size > STAGED_BYTES or record.path in group):
            yield list(group.values())
            group, size = {}, 0
        group[record.path] = record
        size += record.blob.size
    if group:
        yield list(group.values())


_VERBS: Mapping[type, Callable[[Projection, Any], None]] = {
    Metric: Projection._send_batch,
    Param: Projection._send_batch,
    Tag: Projection._send_batch,
    Dataset: Projection._send_batch,
    Artifact: Projection._send_files,
    Figure: Projection._send_files,
    Row: Projection._send_rows,
    Model: Projection._send_models,
    Lost: Projection._send_losses,
    RunEnd: Projection._send_end,
    Seal: Projection._skip,
}


def _verb(record: Record) -> Callable[[Projection, Any], None]:
    return _VERBS[type(record)]
