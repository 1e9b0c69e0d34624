"""What a run knows of its own delivery, one class per case: this process delivers it, another one does, or none.

And the writer of the last case: a null run has the same methods as any other, and keeps nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from overt.delivery.dispatch import Route, dispatch
from overt.delivery.messages import Delivered as Arrived
from overt.errors import StoreUnavailable
from overt.journal.series import Series
from overt.records import FIRST_ATTEMPT, Blob, RunEnd, RunSpec
from overt.run import Delivered, Run


class OwnLink:
    """Of a run that this process delivers."""

    def __init__(self, key: str, route: Route) -> None:
        self._key = key
        self._route = route

    def watch(self) -> None:
        """Have the run's journal delivered from now on."""
        dispatch().watch(self._route)

    def require_arrival(self) -> Delivered:
        """Wait for the store, as long as it answers."""
        return dispatch().require_arrival(self._key, self._route.drain_timeout_s)

    def warn(self, text: str) -> None:
        """Tell the user."""
        dispatch().warn(text)


class WorkerLink:
    """Of a run that the process which started it delivers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def watch(self) -> None:
        """The other process's courier sees every segment."""

    def require_arrival(self) -> Delivered:
        """Nothing is known here of how far it got."""
        raise StoreUnavailable(f"run {self._name} is delivered by the process that started it: ask there")

    def warn(self, text: str) -> None:
        """Tell the user."""
        dispatch().warn(text)


class NullLink:
    """Of a run that is kept nowhere."""

    def require_arrival(self) -> Delivered:
        """It is nowhere."""
        return Arrived("", None)

    def warn(self, text: str) -> None:
        """Tell the user."""
        dispatch().warn(text)


class NullWriter:
    """Keeps nothing: for ``enabled=False`` and for all ranks but the first."""

    attempt = FIRST_ATTEMPT
    preamble = b""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def append(self, line: bytes) -> bool:
        """Keep nothing."""
        return True

    def append_all(self, lines: Sequence[bytes]) -> bool:
        """Keep nothing."""
        return True

    def append_point(
        self, series: Series, value: float, step: int | None, model: str | None = None, dataset: str | None = None
    ) -> bool:
        """Keep nothing but the last value."""
        series.value = value
        return True

    def store_bytes(self, data: bytes) -> Blob:
        """Keep nothing."""
        return Blob("0" * 64, len(data))

    def store_file(self, path: Path) -> Blob:
        """Keep nothing."""
        return Blob("0" * 64, path.stat().st_size)

    def sync(self) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """Nothing was opened."""


def null_run(spec: RunSpec, end: RunEnd | None = None) -> Run:
    """A run with the same methods that keeps nothing."""
    return Run(spec, NullWriter(), link=NullLink(), rebuild=(null_run, (spec,)), is_null=True)
