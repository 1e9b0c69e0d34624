"""System metrics of the training process, recorded by its courier into a segment of its own of each open run.

The training process pays nothing for them, and a run that is shorter than the period has none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from overt import clock
from overt.capture.system import SystemSampler
from overt.journal.folder import new_segment_name
from overt.journal.series import Series
from overt.journal.writer import JournalWriter
from overt.records import FIRST_ATTEMPT, Attempt, RunSpec

PERIOD_S = 10.0
FIRST_LOOK_S = 1.0


@dataclass(slots=True)
class Sampled:
    """One run's series; its segment is open only while a sample is written, so that it is in nobody's way."""

    folder: Path
    spec: RunSpec
    attempt: Attempt = FIRST_ATTEMPT
    _writer: JournalWriter = field(init=False)
    _series: dict[str, Series] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._writer = JournalWriter(self.folder, self.spec, segment=new_segment_name(), attempt=self.attempt)

    @property
    def _last_step_before(self) -> int:
        """The highest step that an earlier attempt can have come to: it began with the run, and took one a period."""
        before_ms = self.attempt.started_ms - self.spec.started_ms
        return -1 if self.attempt.number == 1 else int(before_ms / 1000 // PERIOD_S)

    @property
    def is_long_enough(self) -> bool:
        """Whether the run has lasted for a period."""
        return clock.now_ms() - self.spec.started_ms >= PERIOD_S * 1000

    def add(self, sample: dict[str, float]) -> None:
        """Record one sample; its step is its number."""
        for name, value in sample.items():
            series = self._series.setdefault(name, Series(name, top_step=self._last_step_before))
            self._writer.append_point(series, float(value), None)
        self._writer.close()


class Sampling:
    """Takes a sample every ``PERIOD_S`` while it is asked.

    Parameters
    ----------
    pid : int
        The training process.
    directory : Path
        A place on the disk that is looked at.
    """

    def __init__(self, pid: int, directory: Path) -> None:
        self._pid = pid
        self._directory = directory
        self._sampler: SystemSampler | None = None
        self._next_at = time.monotonic() + PERIOD_S

    def take(self) -> dict[str, float]:
        """A sample if it is time for one, else nothing."""
        if time.monotonic() < self._next_at:
            return {}
        self._next_at = time.monotonic() + PERIOD_S
        if self._sampler is None:  # utilization is that between two looks: this was the first
            self._sampler = SystemSampler(self._pid, str(self._directory))
            self._next_at = time.monotonic() + FIRST_LOOK_S
            return {}
        return self._sampler.sample()
