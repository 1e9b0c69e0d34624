"""One deliverer at a time per run, on one machine and on every file system that has locks."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.05


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file at ``path`` for the block; yields False, without waiting, while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _try_flock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock_within(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock file at ``path`` for the block; yields False if another has it for ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        with try_lock(path) as is_ours:
            if is_ours or time.monotonic() >= deadline:
                yield is_ours
                return
        time.sleep(_POLL_S)


def holder(path: Path) -> int | None:
    """Process id of whoever holds the lock file at ``path``; None where the system does not tell."""
    with suppress(OSError, ValueError):
        inode = str(path.lstat().st_ino)
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            _, kind, _, _, pid, place, *_ = line.split()
            if kind == "FLOCK" and place.rpartition(":")[2] == inode and int(pid) > 0:
                return int(pid)
    return None


def are_unused(paths: list[Path]) -> bool:
    """Whether nobody writes to the segments at ``paths``, and nobody can begin to while ``hold_unused`` is held."""
    with hold_unused(paths) as unused:
        return unused


@contextmanager
def hold_unused(paths: list[Path]) -> Iterator[bool]:
    """Keep writers out of the segments at ``paths`` for the block; yields False where one is in use."""
    descriptors: list[int] = []
    try:
        unused = True
        for path in paths:
            descriptors.append(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
            unused = unused and _try_flock(descriptors[-1])
        yield unused
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return True  # no locks here: deliveries are idempotent, so two at once cost work, not truth
        raise
    return True
