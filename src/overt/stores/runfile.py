"""One run of a light store as one file: what was recorded of it, line by line, in the journal's own format.

What a run is now is what its lines say together, so a line that stands twice (of a batch that was delivered twice)
changes nothing. The file has one writer at a time: whoever delivers the run.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from overt.journal.codec import BadLine, decode, encode
from overt.journal.owner import this_process
from overt.journal.reader import LONGEST_LINE_BYTES, open_regular
from overt.records import (
    ATTEMPTS_TAG,
    Attempt,
    Dataset,
    Metric,
    Model,
    Param,
    Record,
    RunEnd,
    RunSpec,
    SegmentHead,
    Status,
    Tag,
)
from overt.stores.appending import append

DRIFT = "param_drift."


@dataclass(slots=True)
class RunState:
    """What the lines of one run say together.

    Attributes
    ----------
    last : dict
        The point of the highest step of each metric, as MLflow's last value is.
    attempts : list of int
        When the attempts from the second on began.
    n_damaged : int
        How many lines of its file say nothing.
    """

    spec: RunSpec
    status: Status = "RUNNING"
    ended_ms: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    last: dict[str, Metric] = field(default_factory=dict)
    datasets: dict[Dataset, None] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=list)
    n_damaged: int = 0

    def add(self, record: Record | SegmentHead) -> Record | SegmentHead | None:
        """Take in a record; the line to be kept for it, None where it says nothing new."""
        match record:
            case Metric():
                if self.last.get(record.name) == record:
                    return None
                self._add_point(record)
            case Param():
                if record.name not in self.params:
                    self.params[record.name] = record.value
                elif self.params[record.name] != record.value:
                    return self.add(Tag(DRIFT + record.name, record.value))
                else:
                    return None
            case Tag():
                if self.tags.get(record.name) == record.value:
                    return None
                self.tags[record.name] = record.value
            case Dataset():
                if record in self.datasets:
                    return None
                self.datasets[record] = None
            case Model():
                if self.models.get(record.name) == record:
                    return None
                self.models[record.name] = record
            case RunEnd():
                if (self.status, self.ended_ms) == (record.status, record.ended_ms):
                    return None
                self.status, self.ended_ms = record.status, record.ended_ms
            case SegmentHead():
                return self._begin(record)
            case _:
                return None
        return record

    def _add_point(self, point: Metric) -> None:
        last = self.last.get(point.name)
        if last is None or (point.step, point.time_ms) >= (last.step, last.time_ms):
            self.last[point.name] = point

    def _begin(self, head: SegmentHead) -> SegmentHead | None:
        if head.attempt.number == 1 or head.attempt.started_ms in self.attempts:
            return None
        self.attempts.append(head.attempt.started_ms)
        self.tags[ATTEMPTS_TAG] = json.dumps(sorted(self.attempts))
        self.status, self.ended_ms = "RUNNING", None
        return head


class RunFile:
    """The file of one run.

    Parameters
    ----------
    path : Path
        Where it is, or is to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: RunState | None = None

    def create(self, spec: RunSpec) -> None:
        """Make the file, unless it is there; of two processes that make it at once, one does."""
        partial = self.path.with_name(f".{self.path.name}.{this_process().pid}")
        partial.unlink(missing_ok=True)
        append(partial, encode(SegmentHead(spec, this_process())))
        try:
            self.path.hardlink_to(partial)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links: whoever delivers the run is its only writer in any case
            if not self.path.exists():
                partial.rename(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self) -> RunState:
        """What the run is, as far as this object knows: read once, then kept up to date by :meth:`add`.

        Raises
        ------
        FileNotFoundError
            When there is no such run.
        """
        if self.state is None:
            self.state = read_state(self.path)
        return self.state

    def add(self, records: Iterable[Record | SegmentHead]) -> bool:
        """Add what ``records`` say that is new; whether anything was."""
        state = self.read()
        try:
            lines = b"".join(encode(kept) for record in records if (kept := state.add(record)) is not None)
            if lines:
                append(self.path, lines)
        except BaseException:
            self.state = None  # it knows of lines that are not there
            raise
        return bool(lines)

    def begin(self, attempt: Attempt) -> bool:
        """Add that the run goes on in another attempt; whether that was new."""
        return self.add([SegmentHead(self.read().spec, this_process(), attempt=attempt)])


def read_state(path: Path) -> RunState:
    """What the lines of ``path`` say together.

    Raises
    ------
    FileNotFoundError
        When there are none, or the first, which says which run it is, was cut off or changed.
    """
    lines = Lines(path)
    records = iter(lines)
    head = next(records, None)
    if not isinstance(head, SegmentHead):
        raise FileNotFoundError(
            errno.ENOENT, "it does not begin as the records of a run do. Bring it back from a copy", str(path)
        )
    state = RunState(head.spec, tags=dict(head.spec.tags))
    for record in records:
        state.add(record)
    state.n_damaged = lines.n_damaged
    return state


def iter_points(path: Path) -> Iterator[Metric]:
    """Every point of every metric, each once."""
    seen: set[tuple[str, int, int, float | str]] = set()
    for record in Lines(path):
        if isinstance(record, Metric):
            value = "nan" if math.isnan(record.value) else record.value  # NaN equals NaN as text
            point = (record.name, record.step, record.time_ms, value)
            if point not in seen:
                seen.add(point)
                yield record


class Lines:
    """What each whole line of a file says, each time that it is gone through; a damaged one says nothing.

    Attributes
    ----------
    n_damaged : int
        How many said nothing as far as it was last gone through, one that was cut off at the end included.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.n_damaged = 0

    def __iter__(self) -> Iterator[Record | SegmentHead]:
        self.n_damaged = 0
        with open_regular(self._path) as file:
            while (line := file.readline(LONGEST_LINE_BYTES)).endswith(b"\n"):
                try:
                    record = decode(line)
                except BadLine:
                    self.n_damaged += 1
                else:
                    yield record
        self.n_damaged += bool(line)
