"""What hooks put around each part of their recording: a part that fails stops neither the others nor the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from overt.run import GOES_ON, Run


@contextmanager
def recorded_part(run: Run, part: str) -> Iterator[None]:
    """Say in the run, and once aloud, that ``part`` could not be recorded; raise under ``on_error="raise"`` only."""
    try:
        yield
    except Exception as error:
        if run.is_strict:
            raise
        run.set_tag(f"overt.not_recorded.{part.replace(' ', '_')}", f"{type(error).__name__}: {error}")
        run.warn(f"{part} of run {run.name} could not be recorded ({type(error).__name__}: {error}). {GOES_ON}")


class Parts:
    """The parts of what is recorded of one training: one that fails is said once, for it may fail in every batch."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._failed: set[str] = set()

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Keep what fails in the block from stopping the others; see :meth:`failed`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - said in the run; raised under on_error="raise"
            self.failed(name, error)

    def failed(self, name: str, error: Exception) -> None:
        """Say in the run, and once aloud, that a part was not recorded.

        Raises
        ------
        Exception
            ``error`` itself, under ``on_error="raise"``.
        """
        if self._run.is_strict or name not in self._failed:
            self._failed.add(name)
            with recorded_part(self._run, name):
                raise error
