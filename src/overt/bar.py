"""One line on stderr, drawn by tqdm, that says how far the loops of this process have come.

tqdm is imported only when something is shown, and touches nothing of the user's: no thread is started and no stream
replaced. All loops are on one line, because a notebook cannot move the cursor up. What fails here stops no training,
and a forked child leaves the line to its parent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from threading import RLock
from typing import Any, TypeVar

from overt.settings import is_quiet

T = TypeVar("T")

_DELAY_S = 0.1
"""A loop within another is shown once it has lasted this long, so that short ones cost nothing."""
_open: dict[Any, None] = {}
"""The bars of this process, the outermost first. No list: to tqdm, bars on the same line are equal."""


def is_shown() -> bool:
    """Whether somebody looks at stderr: it is a terminal's or a notebook's, of no worker process, and not quieted."""
    if is_quiet() or _is_worker():
        return False
    stream = sys.stderr
    if type(stream).__module__ == "ipykernel.iostream":
        return True
    try:
        return stream.isatty()
    except Exception:  # noqa: BLE001 - absent, closed, or whatever the user has put there
        return False


def _is_worker() -> bool:
    process = sys.modules.get("multiprocessing.process")  # which a worker, loky's too, has imported
    return process is not None and process.parent_process() is not None


@cache
def bar_class() -> type[Any]:
    """The class of the bars."""
    from tqdm.std import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # made on first use
        """One loop. ``latest`` gives the values to show; a line that ``stays`` does so unless a loop is around it."""

        monitor_interval = 0
        _lock = RLock()  # tqdm's own is multiprocessing's: making it fixes the start method of the user's processes

        def __init__(
            self, name: str, total: int | None, latest: Callable[[], Mapping[str, float]], *, done: int, stays: bool
        ) -> None:
            self._name, self._latest, self._begun = name, latest, 0
            outer = list(_open)
            leave = stays and not outer
            try:
                super().__init__(
                    desc=", ".join([*(bar.reached() for bar in outer), name]),
                    total=total,
                    initial=done,
                    leave=leave,
                    delay=0.0 if leave else _DELAY_S,
                    miniters=1,
                    dynamic_ncols=True,
                    position=0,
                )
                if outer:
                    self.sp = outer[0].sp  # which knows how much it has to write over
            except Exception:  # noqa: BLE001 - a broken stream, or what TQDM_* variables say
                self.disable = True
            _open[self] = None

        def reached(self) -> str:
            """How far the loop has come, for those within it."""
            return f"{self._name} {self.n}" + (f"/{self.total}" if self.total else "")

        def goes_on(self, item: T) -> T:
            """The next item begins; it is given back as it is. Budget: 2 us, besides the drawing."""
            self.update(self._begun)
            self._begun = 1
            return item

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            with suppress(Exception):
                if msg is None:
                    values = {_printable(name): value for name, value in self._latest().items()}
                    self.set_postfix(values, refresh=False)
                return bool(super().display(msg, pos))
            return False

        def close(self) -> None:
            _open.pop(self, None)
            with suppress(Exception):
                super().close()

    def leave_to_parent() -> None:
        for bar in _open:
            bar.disable = True
            Bar._instances.discard(bar)
        _open.clear()
        Bar._lock = RLock()  # whoever held it may not have been forked

    os.register_at_fork(after_in_child=leave_to_parent)
    return Bar


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
