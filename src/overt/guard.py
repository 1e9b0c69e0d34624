"""What hooks put around each part of their recording: a part that fails stops neither the others nor the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from overt.run import Run


@contextmanager
def recorded_part(run: Run, part: str) -> Iterator[None]:
    """Say in the run, and once aloud, that ``part`` could not be recorded; raise under ``on_error="raise"`` only."""
    try:
        yield
    except Exception as error:
        if run.is_strict:
            raise
        run.set_tag(f"overt.not_recorded.{part.replace(' ', '_')}", f"{type(error).__name__}: {error}")
        run.warn(f"{part} of run {run.name} could not be recorded ({type(error).__name__}: {error})")
