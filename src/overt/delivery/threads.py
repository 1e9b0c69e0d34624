"""overt's threads in the training process take no signal: every one is left to the threads of the user's program.

A signal to a process is taken by whichever of its threads looks first, and Python acts on it in the main thread alone,
which is not woken: on a busy machine, without this, a script slept its ``time.sleep`` to the end after 6 of 30 Ctrl-C.
And one that the user's threads hold back (``signal.pthread_sigmask``: to write a checkpoint undisturbed) would end the
process at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


def background_thread(target: Callable[..., None], *arguments: Any, name: str) -> threading.Thread:
    """A daemon thread, not yet started, that no signal to the process reaches.

    A child process that it starts inherits that, and cannot be ended politely unless it gets a signal mask of its own.
    """

    def run() -> None:
        _hold_signals_back()
        target(*arguments)

    return threading.Thread(target=run, name=name, daemon=True)


def _hold_signals_back() -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        # those of faulthandler: held back, a crash in the thread itself would end the process without its last words
        own = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - own)
