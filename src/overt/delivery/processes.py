"""A process is gone when the system says so, never when its pipes are closed: forked children may hold those open."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterator
from contextlib import ExitStack, suppress

_LOOK_S = 1.0
_MOST_BYTES = 65536


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when ``pid`` ends; None where the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def iter_lines_of_child(pid: int, outbox: int) -> Iterator[bytes]:
    """The lines that a child process writes, until it has ended; closes our end of its pipe."""
    with ExitStack() as stack:
        stack.callback(os.close, outbox)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(outbox, selectors.EVENT_READ)
        pidfd = open_pidfd(pid)
        if pidfd is not None:
            stack.callback(os.close, pidfd)
            selector.register(pidfd, selectors.EVENT_READ)
        os.set_blocking(outbox, False)
        unread = b""
        is_open = True
        while is_open:
            selector.select(_LOOK_S if pidfd is None else None)
            has_ended = _has_ended(pid)  # asked before the last read: nothing is written after that
            with suppress(BlockingIOError):
                while chunk := os.read(outbox, _MOST_BYTES):
                    *lines, unread = (unread + chunk).split(b"\n")
                    yield from lines
                is_open = False
            is_open = is_open and not has_ended


def _has_ended(pid: int) -> bool:
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13: only the end of the pipe tells
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has waited for it
        return True
