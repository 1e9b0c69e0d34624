"""Reads journals that may be torn, growing, damaged or hostile, and yields only whole, valid records.

Nothing is opened that is not a regular file, no link is followed, nothing is unpickled, and a line that is no record
is skipped and counted. A reader never writes into a segment: only its owner may heal it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

from overt.errors import JournalError
from overt.journal.codec import BadLine, UnknownFormat, decode
from overt.journal.folder import blob_path, segment_paths
from overt.records import Blob, Record, SegmentHead

CHUNK_BYTES = 4 * 1024 * 1024
"""Most that is held in memory of a segment, a longer line excepted."""

LONGEST_LINE_BYTES = 64 * 1024 * 1024
"""The longest line that is read; what is longer is no record of ours."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one segment between two byte offsets."""

    records: tuple[Record, ...]
    end: int
    bad_lines: int


def read_head(path: Path) -> SegmentHead | None:
    """First line of a segment, or None while it is not there yet or is no head of a format known here."""
    try:
        with open_regular(path) as file:
            line = file.readline(LONGEST_LINE_BYTES)
        head = decode(line) if line.endswith(b"\n") else None
    except (BadLine, FileNotFoundError, JournalError):
        return None
    return head if isinstance(head, SegmentHead) else None


def is_readable(path: Path) -> bool:
    """Whether the lines of a segment may be read: it is a regular file and of no format that is unknown here."""
    try:
        with open_regular(path) as file:
            decode(file.readline(LONGEST_LINE_BYTES))
    except (FileNotFoundError, JournalError, UnknownFormat):
        return False
    except BadLine:
        pass  # a damaged head; the records behind it are whole
    return True


def read_batch(path: Path, offset: int, *, most_records: int = 1000) -> Batch:
    """Up to ``most_records`` records from the byte ``offset`` on; a line without its newline is left for later."""
    with open_regular(path) as file:
        file.seek(offset)
        chunk = _read_chunk(file)
        if len(chunk) >= LONGEST_LINE_BYTES and b"\n" not in chunk:
            return Batch((), offset + len(chunk) + _skip_line(file), bad_lines=1)
    records: list[Record] = []
    bad_lines = start = 0
    while len(records) < most_records and (newline := chunk.find(b"\n", start)) >= 0:
        try:
            record = decode(chunk[start:newline])
        except BadLine:
            bad_lines += 1
        else:
            if not isinstance(record, SegmentHead):
                records.append(record)
        start = newline + 1
    return Batch(tuple(records), offset + start, bad_lines)


def iter_heads(folder: Path) -> Iterator[tuple[Path, SegmentHead]]:
    """Each segment of a run that can be read, with its head."""
    for path in segment_paths(folder):
        head = read_head(path)
        if head is not None:
            yield path, head


def newest_head(folder: Path) -> SegmentHead | None:
    """The first head of the last attempt at a run; None where no segment can be read."""
    return max((head for _, head in iter_heads(folder)), key=lambda head: head.attempt.number, default=None)


def iter_records(folder: Path, *, attempt: int | None = None) -> Iterator[Record]:
    """All records of a run, or of one attempt at it, segment after segment."""
    for path, head in iter_heads(folder):
        if attempt not in (None, head.attempt.number):
            continue
        offset = 0
        while (batch := read_batch(path, offset)).end > offset:
            yield from batch.records
            offset = batch.end


def read_blob(folder: Path, blob: Blob, *, most_bytes: int = 256 * 1024 * 1024) -> bytes:
    """The bytes of a spooled file.

    Raises
    ------
    JournalError
        When they are absent, larger than ``most_bytes``, or not those that were recorded.
    """
    with open_blob(folder, blob) as file:
        if blob.size > most_bytes:
            raise JournalError(f"spooled file {blob.sha256[:12]} is too large to be held in memory ({blob.size} bytes)")
        return file.read()


@contextmanager
def open_blob(folder: Path, blob: Blob) -> Iterator[BinaryIO]:
    """A spooled file, opened and found to hold what was recorded."""
    try:
        with open_regular(blob_path(folder, blob.sha256)) as file:
            size = os.fstat(file.fileno()).st_size
            if size != blob.size or hashlib.file_digest(cast("FileIO", file), "sha256").hexdigest() != blob.sha256:
                raise JournalError(f"spooled file {blob.sha256[:12]} does not hold what was recorded")
            file.seek(0)
            yield file
    except FileNotFoundError as error:
        raise JournalError(f"spooled file {blob.sha256[:12]} is missing from {folder.name}") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, and nothing else: no link, no pipe that would hang, no device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JournalError(f"{path.name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise JournalError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _read_chunk(file: BinaryIO) -> bytes:
    """The next bytes, up to the end of a line at least where one line is longer than a chunk."""
    chunk = file.read(CHUNK_BYTES)
    has_line = b"\n" in chunk
    while not has_line and len(chunk) < LONGEST_LINE_BYTES and (more := file.read(CHUNK_BYTES)):
        chunk += more
        has_line = b"\n" in more
    return chunk


def _skip_line(file: BinaryIO) -> int:
    """Bytes up to and including the next newline; all that is there if none comes."""
    skipped = 0
    while chunk := file.read(CHUNK_BYTES):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return skipped + newline + 1
        skipped += len(chunk)
    return skipped
