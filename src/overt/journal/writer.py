"""One process's segment of one run: when :meth:`JournalWriter.append` has returned True, the line outlives the process.

One record is one line is one ``os.write`` on an ``O_APPEND`` descriptor, so the operating system holds it before the
call returns and no buffer of ours can die with us. A segment is written by one process only; a fork or another process
that takes the run up writes its own. What cannot be written (a full disk, a vanished folder) is counted and said, never
raised into training, and a half-written line is cut away so that it cannot swallow the next.

A held ``flock`` (shared) says "somebody writes here": whoever wants to remove the folder must first get it exclusively.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, Protocol

from overt.journal.codec import encode, encode_metric
from overt.journal.folder import blob_path, create_run_folder, main_segment, new_segment_name
from overt.journal.owner import this_process
from overt.journal.series import Series
from overt.records import FIRST_ATTEMPT, Attempt, Blob, Lost, RunSpec, SegmentHead


class Writer(Protocol):
    """Where a run's lines and bytes go."""

    attempt: Attempt
    """The attempt at the run that this process makes."""
    preamble: bytes
    """Lines that are repeated should the journal have to begin anew, such as the run's ending."""
    lock: threading.RLock
    """Held while a line is written and a point is stamped; a forked child has a new one. The thread that holds it may
    take it again: a signal handler of the user's, which may record, runs in the midst of a recording call."""

    def append(self, line: bytes) -> bool:
        """Take one encoded record; False when it could not be kept."""

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Take many encoded records; False when not all of them could be kept."""

    def append_point(
        self, series: Series, value: float, step: int | None, model: str | None = None, dataset: str | None = None
    ) -> bool:
        """Take one more point of ``series``; False when it could not be kept."""

    def store_bytes(self, data: bytes) -> Blob:
        """Take the content of a file; OSError when it could not be kept."""

    def store_file(self, path: Path) -> Blob:
        """Take a copy of a file as it is now; OSError when it could not be kept."""

    def sync(self) -> None:
        """Return when all that was appended survives power loss."""

    def close(self) -> None:
        """Release what is held; a later append opens it again."""


class JournalWriter:
    """Append to the run's segment of this process; safe from many threads, and in a forked child.

    Parameters
    ----------
    folder : Path
        The run's folder; created when the first line is written.
    spec : RunSpec
        Stands at the head of the segment, so that it can be delivered alone.
    segment : str, optional
        File name; that of the attempt's own process by default.
    attempt : Attempt
        At the run, which the process belongs to.
    on_open : callable, optional
        Called each time the segment was opened, the first time and after :meth:`close`.
    on_trouble : callable, optional
        Called with one sentence when a record or a file could not be kept.

    Attributes
    ----------
    preamble : bytes
        Lines that a segment of this process repeats behind its head if its delivered folder was removed: what later
        records need to be understood, such as the run's ending.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        *,
        segment: str | None = None,
        attempt: Attempt = FIRST_ATTEMPT,
        on_open: Callable[[], None] = lambda: None,
        on_trouble: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.attempt = attempt
        self.segment = segment or main_segment(attempt.number)
        self.lost = 0
        self.preamble = b""
        self._on_open = on_open
        self._on_trouble = on_trouble
        self._descriptor: int | None = None
        self._unsynced: set[str] = set()
        self._reported_lost = 0
        self.lock = threading.RLock()
        _writers.add(self)

    def append(self, line: bytes) -> bool:
        """Write ``line`` (with its newline) in one system call; False when it was lost. Budget: 3 us."""
        with self.lock:
            error = self._write_counted(line)
        return error is None or self._say(error)

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Write many lines that were recorded together in one system call; what does not fit goes line by line."""
        with self.lock:
            return self._has_written_whole(b"".join(lines)) or not [line for line in lines if not self.append(line)]

    def append_point(
        self, series: Series, value: float, step: int | None, model: str | None = None, dataset: str | None = None
    ) -> bool:
        """Stamp the next point of ``series`` and write it, under one lock: the hot path. Budget: 4 us."""
        with self.lock:
            step, time_ms = series.stamp(value, step)
            error = self._write_counted(encode_metric(series.name, value, step, time_ms, model, dataset))
        return error is None or self._say(error)

    def store_bytes(self, data: bytes) -> Blob:
        """Put ``data`` into the spool under its own digest."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self._hold()
        target = blob_path(self.folder, blob.sha256)
        if not target.exists():
            partial = self._partial()
            with _removed_on_failure(partial), open(partial, "xb") as file:
                file.write(data)
            os.replace(partial, target)
        self._unsynced.add(blob.sha256)
        return blob

    def store_file(self, path: Path) -> Blob:
        """Copy the file at ``path`` into the spool, so that the user may change or delete it at once."""
        self._hold()
        partial = self._partial()
        with _removed_on_failure(partial):
            shutil.copyfile(path, partial)
            with open(partial, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
        os.replace(partial, blob_path(self.folder, sha256))
        self._unsynced.add(sha256)
        return Blob(sha256, size)

    def sync(self) -> None:
        """Force lines, spooled files and their folder's entries to the disk (0.2 ms and up)."""
        with self.lock:
            self._write_again_if_removed()
            descriptor = self._descriptor
            if descriptor is None and not self._unsynced:
                return
            unsynced, self._unsynced = self._unsynced, set()
            for sha256 in unsynced:
                _sync_path(blob_path(self.folder, sha256))
            if unsynced:
                _sync_path(self.folder / "files")
            if descriptor is not None:
                os.fsync(descriptor)
            _sync_path(self.folder)

    def close(self) -> None:
        """Close the segment and let go of its lock."""
        with self.lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def forget_parent(self) -> None:
        """In a forked child: leave the parent's segment to the parent, and write one of one's own."""
        self.lock = threading.RLock()  # another thread of the parent may have held it
        if self._descriptor is not None:
            os.close(self._descriptor)  # the parent's own descriptor, and with it the lock, stays
            self._descriptor = None
        self.segment = new_segment_name()
        self._on_open = lambda: None  # the parent's courier sees it; a worker starts none

    def _hold(self) -> None:
        """Have the segment open, and with it the lock: else the file could be removed before its record is written."""
        with self.lock:
            if self._descriptor is None:
                self._open()
            self._write_again_if_removed()

    def _write_again_if_removed(self) -> None:
        """Bring back a segment whose file was removed under it (no deliverer does that): we still have its lines."""
        removed = self._descriptor
        if removed is None or os.fstat(removed).st_nlink > 0:
            return
        self._descriptor = None
        try:
            content = os.pread(removed, os.fstat(removed).st_size, 0)
            self._write(self._open(), content.partition(b"\n")[2])
        finally:
            os.close(removed)
        self._on_trouble(
            f"the journal of run {self.spec.name} was removed while it was in use. Its lines are written again to "
            f"{self.folder}; files recorded before that are lost"
        )

    def _open(self) -> int:
        """Open the segment, heal its tail and write its head; again if it was removed in the meantime."""
        while True:
            create_run_folder(self.folder)
            path = self.folder / self.segment
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with suppress(OSError):  # a file system without locks: delivered journals are then kept
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                if not _is_at(descriptor, path):
                    os.close(descriptor)
                    continue
                cut_torn_tail(descriptor)
                if os.fstat(descriptor).st_size == 0:
                    self._write(descriptor, encode(self._head()) + self.preamble)
            except BaseException:
                os.close(descriptor)
                raise
            if self._descriptor is not None:  # a signal handler that recorded was faster
                os.close(descriptor)
                return self._descriptor
            self._descriptor = descriptor
            self._on_open()
            return descriptor

    def _head(self) -> SegmentHead:
        return SegmentHead(self.spec, this_process(), attempt=self.attempt)

    def _write_counted(self, line: bytes) -> OSError | None:
        """Write ``line``, or count it as lost and return why."""
        try:
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = self._open()
            if self.lost > self._reported_lost:
                self._report_loss(descriptor)
            if os.write(descriptor, line) != len(line):
                self._undo_half_a_line(descriptor)
        except OSError as error:
            self.lost += 1
            return error
        return None

    def _has_written_whole(self, block: bytes) -> bool:
        """Write ``block`` or nothing of it, so that of its lines those can be told that are lost."""
        descriptor = self._descriptor
        if descriptor is None or self.lost > self._reported_lost:
            return False
        size = os.fstat(descriptor).st_size
        with suppress(OSError):
            if os.write(descriptor, block) == len(block):
                return True
            os.ftruncate(descriptor, size)
        return False

    def _say(self, error: OSError) -> bool:
        reason = error.strerror or str(error)
        self._on_trouble(f"a record of run {self.spec.name} could not be written to {self.folder} ({reason})")
        return False

    def _write(self, descriptor: int, line: bytes) -> None:
        if os.write(descriptor, line) != len(line):
            self._undo_half_a_line(descriptor)

    def _undo_half_a_line(self, descriptor: int) -> NoReturn:
        cut_torn_tail(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _report_loss(self, descriptor: int) -> None:
        lost = self.lost - self._reported_lost
        self._write(descriptor, encode(Lost(lost, "could not be written to the journal")))
        self._reported_lost = self.lost

    def _partial(self) -> Path:
        return self.folder / "files" / f"{new_segment_name()}.partial"


@contextmanager
def _removed_on_failure(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def cut_torn_tail(descriptor: int) -> None:
    """Cut a file back to its last newline, so that the next line is not glued to half of another."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the open file: its folder may have been removed between open and lock."""
    try:
        there, here = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _sync_path(path: Path) -> None:
    with suppress(FileNotFoundError):  # delivered and removed since: no longer ours to keep
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_writers: weakref.WeakSet[JournalWriter] = weakref.WeakSet()


def _in_forked_child() -> None:
    for writer in list(_writers):
        writer.forget_parent()


os.register_at_fork(after_in_child=_in_forked_child)
