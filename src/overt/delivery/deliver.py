"""Delivers one run's journal to one store from wherever the last delivery got to, for courier and ``overt sync`` alike.

Progress is saved after what it speaks of has been sent, so a deliverer that dies repeats at most one batch, and the
store's idempotence turns at-least-once into exactly-once in effect. A journal is removed only when it is sealed (or its
processes are gone), delivered to the last byte, final for its store, nothing of it refused, and nobody writes to it.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from overt import clock
from overt.delivery.attempts import Attempts
from overt.delivery.lock import hold_unused
from overt.delivery.progress import Progress, load_progress, save_progress
from overt.delivery.projection import Draw, Projection
from overt.delivery.refused import forget_refused, iter_refused, keep_refused
from overt.errors import JournalError
from overt.journal.codec import encode
from overt.journal.folder import GONE, last_attempt, main_segment, new_segment_name, segment_paths
from overt.journal.owner import is_alive, this_process
from overt.journal.reader import (
    is_readable,
    iter_heads,
    iter_records,
    newest_head,
    open_blob,
    open_regular,
    read_batch,
    read_head,
)
from overt.journal.writer import JournalWriter
from overt.records import FIRST_ATTEMPT, ROWS_TAG, Attempt, Metric, Param, Record, Row, RunEnd, RunSpec, Seal, Tag
from overt.stores.protocols import JoinableStore, SealableStore, Store

_REPEATED = "%d: recorded again after the run was resumed. The first value of each step stands; the journal has both"


class RunDelivery:
    """Delivery of the journal in ``folder`` to ``store``.

    Parameters
    ----------
    folder : Path
        The run's folder.
    store : Store
        Where to.
    store_name : str
        The store's URI without credentials: progress is kept under it.
    draw : callable
        Turns a figure's kind and data into PNG bytes.
    on_progress : callable
        Called each time that something has arrived.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        store_name: str,
        draw: Draw,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.progress: Progress = load_progress(folder, store_name)
        self.progress.offsets = {
            name: offset for name, offset in self.progress.offsets.items() if _is_line_start(folder / name, offset)
        }
        self.problems: list[str] = []
        self._store = store
        self._store_name = store_name
        self._draw = draw
        self._on_progress = on_progress
        self._spec: RunSpec | None = None
        self._projection: Projection | None = None
        self._attempts: Attempts | None = None
        self._attempt_of: dict[str, Attempt] = {}
        self._ask_caller_at = 0.0
        self._readable: set[str] = set()
        self._foreign: set[str] = set()
        self._is_captured = False

    @property
    def spec(self) -> RunSpec:
        """What the run is, from the head of its first readable segment."""
        if self._spec is None:
            head = next(iter_heads(self.folder), None)
            if head is None:
                raise JournalError(f"{self.folder} holds no journal that this version of overt can read")
            self._spec = head[1].spec
        return self._spec

    def deliver(self, *, is_over: bool = False, is_captured: bool = True) -> bool:
        """Send all that is there now and not sent yet; whether anything was.

        Parameters
        ----------
        is_over : bool
            The processes that wrote the journal are gone, so nothing more will come: a line without its end is
            dropped (its call never returned), and params held back for the caller of a joined run go out.
        is_captured : bool
            What surrounds the run is in its journal, or never will be: else it is not final, whatever it says.

        Raises
        ------
        StoreUnavailable
            What was sent before is remembered; call again later.
        JournalError
            When no segment can be read.
        """
        self._is_captured = is_captured
        if self._passes_over():
            return False
        sent = False
        for path in filter(self._may_be_read, self._segments()):
            # What is recorded meanwhile is the next call's: else a fast loop would be sent in dribbles without end.
            # Where none is to come, every whole line goes out first: below, the rest is dropped as a line cut off.
            end = math.inf if is_over else _size(path)
            while self._offset(path) < end and self._has_more(path) and self._send_next(path, is_over=is_over):
                sent = True
            if is_over and self._has_more(path):
                self.progress.offsets[path.name] = path.stat().st_size
                self._save()
        if self.progress.held_params and (is_over or self._has_caller_ended()):
            held = [record for record in iter_records(self.folder) if isinstance(record, Param)]
            self._open().send(held)
            self.progress.held_params = False
            self._save()
        if is_captured:
            self._seal_store(is_over=is_over)
        return sent

    @property
    def is_complete(self) -> bool:
        """Whether every byte that is there now has been delivered."""
        paths = segment_paths(self.folder)
        return not self.progress.held_params and not any(self._has_more(path) for path in paths)

    def ask_caller(self) -> None:
        """Ask anew, with the next delivery, whether the caller of a joined run has ended it."""
        self._ask_caller_at = 0.0

    def close_vanished(self) -> bool:
        """Record the ending KILLED, for a run whose processes are gone and which has none; whether it had none."""
        newest = newest_head(self.folder)
        attempt = newest.attempt if newest else FIRST_ATTEMPT
        if self.progress.ended_attempt >= attempt.number or self.spec.joined_run_id:
            return False
        if any(isinstance(record, RunEnd) for record in iter_records(self.folder, attempt=attempt.number)):
            return False
        last_sign_ms = max(int(path.stat().st_mtime * 1000) for path in segment_paths(self.folder))
        writer = JournalWriter(self.folder, self.spec, segment=new_segment_name(), attempt=attempt)
        writer.append(encode(Tag("overt.ending", "the process vanished without an end record")))
        writer.append(encode(RunEnd("KILLED", min(last_sign_ms, clock.now_ms()))))
        writer.sync()
        writer.close()
        return True

    def begin_again_if_refused(self) -> None:
        """Send the run from its first byte if something of it was refused: the cause may be mended by now.

        All of it is sent again and not only what was refused: an older value sent last would stand for the newest.
        """
        if not self.progress.rejected:
            return
        refused = iter_refused(self.folder, self._store_name)
        if any(isinstance(record, RunEnd) for record in refused):
            self.progress.ended_attempt = 0
        self.progress.rejected = self.progress.bad_lines = 0
        self.progress.offsets.clear()
        self._save()
        forget_refused(self.folder, self._store_name)

    def remove_if_safe(self, *, is_over: bool) -> bool:
        """Remove the journal if nothing more will come and nothing of it is missing from the store.

        It stays until a delivery was told that the run is captured: before that its store does not know it as final.
        """
        kept = self.progress.rejected or self.progress.bad_lines or self.progress.repeated
        if kept or not self._is_captured or not (is_over or self.progress.sealed):
            return False
        with suppress(OSError), hold_unused(segment_paths(self.folder)) as unused:
            if unused and self.is_complete:
                gone = self.folder.with_name(f"{self.folder.name}-{secrets.token_hex(4)}{GONE}")
                self.folder.rename(gone)  # at one moment: half a journal would be taken for one that lost its files
                shutil.rmtree(gone, ignore_errors=True)
                return True
        return False

    def _is_for_rows(self) -> bool:
        with suppress(JournalError):  # nothing has been written yet
            return ROWS_TAG in self.spec.tags
        return False

    def _passes_over(self) -> bool:
        """Whether the run is one for rows and has nothing of any: nothing is sent then, and once it has, all of it."""
        if self.progress.run_id is not None or not self._is_for_rows():
            return False
        ends = {path.name: _size(path) for path in filter(self._may_be_read, segment_paths(self.folder))}
        if ends == self.progress.offsets:
            return True
        records = list(iter_records(self.folder))
        if any(isinstance(record, Row | Metric) for record in records):  # a worker killed in its first fit left points
            self.progress.offsets.clear()
            return False
        self.progress.offsets = ends
        self.progress.sealed = any(isinstance(record, Seal) for record in records)
        self._save()
        return True

    def _seal_store(self, *, is_over: bool) -> None:
        """Tell a store that wants to know that the run has arrived to the last byte and nothing more is expected."""
        has_ended = self.progress.ended_attempt >= last_attempt(self.folder) and (is_over or self.progress.sealed)
        if isinstance(self._store, SealableStore) and self.progress.run_id and has_ended and self.is_complete:
            self._store.seal(self.progress.run_id)

    def _segments(self) -> list[Path]:
        """The segments, those of earlier attempts first."""
        return sorted(segment_paths(self.folder), key=lambda path: self._attempt(path).number)

    def _attempt(self, path: Path) -> Attempt:
        """Which attempt a segment is of; one whose head is damaged counts to the first."""
        if path.name not in self._attempt_of and (head := read_head(path)) is not None:
            self._attempt_of[path.name] = head.attempt
        return self._attempt_of.get(path.name, FIRST_ATTEMPT)

    def _may_be_read(self, path: Path) -> bool:
        """Whether the lines of a segment are for this version to read; one that is not stays where it is."""
        if path.name not in self._readable and self._has_more(path):
            if is_readable(path):
                self._readable.add(path.name)
            elif path.name not in self._foreign:
                self._foreign.add(path.name)
                self.problems.append(f"{path.name} of {self.folder.name} cannot be read by this version of overt")
        return path.name not in self._foreign

    def _has_more(self, path: Path) -> bool:
        return _size(path) > self._offset(path)

    def _offset(self, path: Path) -> int:
        """Up to where a segment has been delivered."""
        return self.progress.offsets.get(path.name, 0)

    def _send_next(self, path: Path, *, is_over: bool) -> bool:
        """Send the next batch of one segment; False when only an unfinished line is left."""
        offset = self._offset(path)
        batch = read_batch(path, offset)
        if batch.end == offset:
            return False
        attempt = self._attempt(path)
        records = self._standing(self._sendable(batch.records, attempt, is_over=is_over), attempt)
        self._open().send(records)
        if any(isinstance(record, RunEnd) for record in records):
            self.progress.ended_attempt = attempt.number
        if path.name == main_segment(last_attempt(self.folder)) and batch.records:
            self.progress.sealed = isinstance(batch.records[-1], Seal)
        self.progress.bad_lines += batch.bad_lines
        self.progress.offsets[path.name] = batch.end
        if batch.bad_lines:
            self.problems.append(f"{path.name} of run {self.spec.name}: {batch.bad_lines} damaged line(s) skipped")
        self._save()
        return True

    def _standing(self, records: Sequence[Record], attempt: Attempt) -> Sequence[Record]:
        """``records`` without what another attempt at the run has said already, or says instead."""
        if self._attempts is None:
            self._attempts = Attempts(self._store, self._open_id())
        if attempt.number > max(self.progress.attempt, self.progress.ended_attempt):
            self._attempts.begin(attempt)
            self.progress.attempt = attempt.number
        if self._attempts.is_superseded(attempt):
            records = [record for record in records if not isinstance(record, RunEnd)]
        standing = list(self._attempts.iter_standing(records, attempt))
        if repeated := len(records) - len(standing):
            self.progress.repeated += repeated
            standing.append(Tag("overt.repeated_points", _REPEATED % self.progress.repeated))
        return standing

    def _sendable(self, records: Sequence[Record], attempt: Attempt, *, is_over: bool) -> list[Record]:
        """``records`` without those that are not to be sent now: later endings, and params held for the caller."""
        if self.spec.joined_run_id:
            records = [record for record in records if not isinstance(record, RunEnd)]
            has_params = any(isinstance(record, Param) for record in records)
            if has_params and not is_over and (self.progress.held_params or not self._has_caller_ended()):
                self.progress.held_params = True
                records = [record for record in records if not isinstance(record, Param)]
        ends = [record for record in records if isinstance(record, RunEnd)]
        superfluous = ends if self.progress.ended_attempt >= attempt.number else ends[1:]
        return [record for record in records if not any(record is end for end in superfluous)]

    def _has_caller_ended(self) -> bool:
        """Whether the caller of a joined run has ended it; asked at most once a second."""
        if time.monotonic() < self._ask_caller_at:
            return False
        self._ask_caller_at = time.monotonic() + 1.0
        return not (isinstance(self._store, JoinableStore) and self._store.is_running(self._open_id()))

    def _open_id(self) -> str:
        if self.progress.run_id is None:
            if self.spec.parent_key:  # a store nests a run by its parent's id, so the parent comes first
                parent = next(iter_heads(self.folder.with_name(self.spec.parent_key)), None)
                if parent is not None:
                    self._store.create_run(parent[1].spec)
            self.progress.run_id = self._store.create_run(self.spec)
            self._save()
        return self.progress.run_id

    def _open(self) -> Projection:
        if self._projection is None:
            self._projection = Projection(
                self._store,
                self._open_id(),
                open_blob=partial(open_blob, self.folder),
                rows_of=self._rows_of,
                draw=self._draw,
                on_reject=self._reject,
            )
            self._projection.models.update(self.progress.models)
        return self._projection

    def _rows_of(self, path: str) -> list[Row]:
        return [record for record in iter_records(self.folder) if isinstance(record, Row) and record.path == path]

    def _reject(self, record: Record, reason: str) -> None:
        self.progress.rejected += 1
        self.problems.append(f"run {self.spec.name}: {_named(record)} was refused: {reason}")
        keep_refused(self.folder, self._store_name, record, reason)

    def _save(self) -> None:
        if self._projection is not None:
            self.progress.models.update(self._projection.models)
        save_progress(self.folder, self._store_name, self.progress)
        self._on_progress()


def has_live_owner(folder: Path) -> bool:
    """Whether a process other than this one may still write to the run; unknown counts as alive."""
    ours = this_process()  # by more than its id: another container's process may have the same
    return any(head.owner != ours and is_alive(head.owner) is not False for _, head in iter_heads(folder))


def is_left_without_end(folder: Path) -> bool:
    """Whether nobody is left who could end the run: the process that made its last attempt is gone.

    Copies of the run in other processes end nothing. The idle workers of a pool outlive a killed parent, some for ever.
    """
    head = read_head(folder / main_segment(last_attempt(folder)))
    return is_alive(head.owner) is False if head is not None else not has_live_owner(folder)


def _size(path: Path) -> int:
    """Bytes of a segment; none when it is not there."""
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _is_line_start(path: Path, offset: int) -> bool:
    """Whether a line starts at ``offset``, or the file ends there: else the offset was not written by a delivery."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            return offset in (0, size) or (offset < size and os.pread(file.fileno(), 1, offset - 1) == b"\n")
    except OSError:
        return False


def _named(record: Record) -> str:
    label = getattr(record, "name", None) or getattr(record, "path", "")
    return f"{type(record).__name__.lower()} {label}".strip()
