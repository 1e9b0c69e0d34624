"""Files that many processes write to: a line is there whole or not at all, and a replaced file is never half replaced.

Writers of one place take turns by a lock on a file beside it; readers take none. What has been written is on the disk
when a call returns, since the journal that it came from may be removed afterwards.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overt.journal.writer import cut_torn_tail

_PARTIAL = re.compile(r"\.[0-9a-f]{16}\.partial")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock that the file ``path`` stands for during the block; the file is made, and stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: one writer at a time is then the user's to see to
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append(path: Path, lines: bytes, *, own: bytes = b"") -> None:
    """Add whole ``lines`` to a file that is there or is made; half a line at its end, of a writer that died, is cut.

    Parameters
    ----------
    path : Path
        The file. The caller holds its lock, or is its only writer.
    lines : bytes
        Each with its newline.
    own : bytes
        How overt's lines begin, in a file that others write to as well: a last line that begins otherwise, or that only
        lacks its newline, is given one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if own and _lacks_only_its_newline(descriptor, own):
            lines = b"\n" + lines
        else:
            cut_torn_tail(descriptor)
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, lines)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Have the file ``path`` hold ``content``; a reader sees it as it was, or as it is to be. Its rights stay."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            _copy_rights(path, descriptor)
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def copy(source: Path, target: Path) -> None:
    """Have the file ``target`` hold what ``source`` holds, and its folder exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        shutil.copyfile(source, partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that :func:`copy` has not finished."""
    return _PARTIAL.fullmatch(name) is not None


def _copy_rights(path: Path, descriptor: int) -> None:
    """Give the open file the owner, the group and the mode of ``path``, if that is there; as far as one may."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return
    for owner, group in ((there.st_uid, -1), (-1, there.st_gid)):
        with suppress(OSError):  # only root gives files away
            os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, there.st_mode & 0o777)  # last, and by itself: the umask takes bits from a new file's mode


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _lacks_only_its_newline(descriptor: int, own: bytes) -> bool:
    """Whether the last line is there without a newline, but not as half a line that begins as ``own`` does."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return False
    start = size
    tail = b""
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 65536)
        tail = os.pread(descriptor, size - start, start)
    line = tail.rpartition(b"\n")[2]
    if not line.startswith(own) and not own.startswith(line):
        return True
    try:
        json.loads(line)  # Python's own reader: it takes the NaN that Python's writer writes
    except ValueError:
        return False
    return True
