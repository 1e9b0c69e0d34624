"""The loops of a run: they pass on what they are given as it is, and know where an epoch begins and ends.

Whoever else has something to do there (an observer of the training, a checkpoint) listens to them and need not guess.
How far they have come is shown where somebody looks; elsewhere not one byte is printed.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from overt.bar import bar_class, is_shown
from overt.checkpoints import CheckpointFile, NoCheckpoint, Stateful, to_stateful
from overt.errors import OvertError, RecordError
from overt.journal.series import Series

T = TypeVar("T")

_NO_PLACE = (
    "epochs: `checkpoint` is for a function with @track_training that has a parameter called `run`: only there a later "
    "process finds it again. Elsewhere, save run.to_checkpoint() with your own"
)
_MOST_VALUES = 3
"""How many metrics are shown."""


class Recorder(Protocol):
    """The run, as its loops know it."""

    is_null: bool
    is_inherited: bool

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def status(self) -> str:
        """RUNNING until it has ended."""

    def log_metric(self, name: str, value: float, *, epoch: int | None = None) -> None:
        """Record one value."""

    def set_tag(self, name: str, value: object) -> None:
        """Set one label."""

    def flush(self) -> None:
        """Return when everything recorded so far survives power loss."""

    def to_checkpoint(self) -> dict[str, Any]:
        """What a checkpoint tells of the run."""

    def warn(self, text: str) -> None:
        """Tell the user."""

    def call_at_end(self, call: Callable[[Any], None]) -> None:
        """Have ``call(run)`` called once the run has ended."""


class EpochListener(Protocol):
    """Is told of the epochs of a run's loops; what it raises reaches the loop."""

    def epoch_begins(self, epoch: int) -> None:
        """The loop is about to get ``epoch``."""

    def epoch_ends(self, epoch: int) -> None:
        """All of ``epoch`` has been gone through; it is still the run's epoch, and nothing of it is flushed yet."""


class Loops:
    """The loops of one run.

    Parameters
    ----------
    series : mapping
        The run's metrics, by name.

    Attributes
    ----------
    listeners : list of EpochListener
        Are told of epochs, in this order.
    were_used : bool
        Whether there was a loop over epochs.
    is_to_be_repeated : bool
        Whether an epoch was left in its midst that whoever goes on from the checkpoint goes through again.
    """

    def __init__(self, series: Mapping[str, Series]) -> None:
        self.listeners: list[EpochListener] = []
        self.were_used = False
        self.is_to_be_repeated = False
        self._keeping: _Keeping | None = None
        self._series = series
        self._going: list[_EpochLoop] = []
        self._was_left = False
        self._n_begun = 0  # epochs of all loops: those of a second one are recorded behind those of the first
        self._read: dict[str, float] = {}

    @property
    def epoch(self) -> int | None:
        """The epoch that is going on, as it is recorded; the innermost if there are several."""
        return self._going[-1].recorded_as if self._going else None

    def keep_checkpoint(self, file: CheckpointFile, *, counted: Stateful, is_own: bool) -> None:
        """Have the loop that is asked to keep a checkpoint keep it in ``file``.

        Parameters
        ----------
        counted : Stateful
            What has counted epochs and steps, and is to go on counting.
        is_own : bool
            Whether the run was started for the loop, and goes on with it.
        """
        self._keeping = _Keeping(file, counted, is_own)

    def epochs(self, run: Recorder, count: int, checkpoint: object) -> Iterator[int]:
        """See :meth:`overt.Run.epochs`."""
        self.were_used = True
        loop = _EpochLoop(to_count(count))
        if checkpoint is not None:
            loop.saved = self._keeping_for(run, to_stateful(checkpoint))
            loop.start = min(loop.saved.restore(), loop.count)
        return self._go_through(run, loop)

    def _keeping_for(self, run: Recorder, objects: tuple[Stateful, ...]) -> _Keeping:
        keeping = self._keeping
        if keeping is None:
            if not run.is_null:
                raise RecordError(_NO_PLACE)
            keeping = _Keeping(NoCheckpoint())
        if keeping.objects:
            raise RecordError("epochs: a run keeps the checkpoint of one loop, and an earlier loop has it already")
        keeping.objects = objects
        return keeping

    def batches(self, run: Recorder, loader: Iterable[T]) -> Iterable[T]:
        """See :meth:`overt.Run.batches`."""
        if not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
            raise RecordError(f"batches: `loader` must be a DataLoader or the like (got {loader!r})")
        return Batches(loader, lambda: self._is_shown(run), self.latest)

    def latest(self) -> dict[str, float]:
        """The metrics recorded last, as far as they are numbers already: nothing is read from a device."""
        series = list(self._series.items())
        self._read |= {name: found.value for name, found in series if type(found.value) is float}
        self._read.pop("epoch_seconds", None)
        newest = sorted(series, key=lambda item: item[1].last_ms)
        shown = [name for name, _ in newest if name in self._read][-_MOST_VALUES:]
        return {name: self._read[name] for name, _ in series if name in shown}

    def _go_through(self, run: Recorder, loop: _EpochLoop) -> Iterator[int]:
        is_shown = loop.count and self._is_shown(run)
        bar = bar_class()("epoch", loop.count, self.latest, done=loop.start, stays=True) if is_shown else None
        self._going.append(loop)
        self._n_begun += loop.start
        try:
            for epoch in range(loop.start, loop.count):
                loop.recorded_as = self._n_begun
                self._n_begun += 1
                for listener in list(self.listeners):
                    listener.epoch_begins(loop.recorded_as)
                began = time.perf_counter()
                yield epoch
                self._end_epoch(run, loop.recorded_as, time.perf_counter() - began)
                if loop.saved is not None:
                    loop.saved.save(run, epoch + 1)
                if bar is not None:
                    bar.update()
        except GeneratorExit:
            self.is_to_be_repeated = loop.saved is not None
            self._leave(run)
            raise
        finally:
            self._going.remove(loop)
            if bar is not None:
                bar.close()

    def _end_epoch(self, run: Recorder, epoch: int, seconds: float) -> None:
        for listener in list(self.listeners):
            listener.epoch_ends(epoch)
        run.log_metric("epoch_seconds", seconds, epoch=epoch)
        run.flush()

    def _leave(self, run: Recorder) -> None:
        """The loop has been left in the midst of an epoch, which is not recorded as a whole one.

        Whether by a ``break`` or by an exception can't be seen from here: only how the run ends will tell.
        """
        if run.status != "RUNNING":
            return
        with suppress(OvertError):  # nothing may be raised from here; in strict mode the next record says it again
            run.flush()
        if not self._was_left:
            self._was_left = True
            run.call_at_end(_say_stopped_early)

    @staticmethod
    def _is_shown(run: Recorder) -> bool:
        return not run.is_null and not run.is_inherited and is_shown()


@dataclass(slots=True, eq=False)
class _EpochLoop:
    count: int
    recorded_as: int = 0
    start: int = 0
    saved: _Keeping | None = None


@dataclass(slots=True, eq=False)
class _Keeping:
    """The checkpoint of a loop: what goes into its file, and when."""

    file: CheckpointFile
    counted: Stateful | None = None
    is_own: bool = False
    objects: tuple[Stateful, ...] = ()

    def restore(self) -> int:
        """Bring everything to where the file says; the epoch that comes next."""
        saved = self.file.restore(self.objects)
        if saved is None:
            return 0
        if self.counted is not None:
            self.counted.load_state_dict(saved["counted"])
        return int(saved["epoch"])

    def save(self, run: Recorder, next_epoch: int) -> None:
        """Save where the training stands; what goes wrong with it is said, and the training goes on."""
        counted = {} if self.counted is None else self.counted.state_dict()
        try:
            told = {"run": run.to_checkpoint(), "is_own": self.is_own, "epoch": next_epoch, "counted": counted}
            self.file.save(self.objects, **told)
        except (RecordError, OSError) as error:
            run.warn(f"the checkpoint of run {run.name} could not be written ({error}); the one before stays")


class Batches(Generic[T]):
    """A loader, passed on: each pass over it begins one pass over the loader, at once."""

    def __init__(
        self, loader: Iterable[T], is_shown: Callable[[], bool], latest: Callable[[], Mapping[str, float]]
    ) -> None:
        self._loader = loader
        self._is_shown = is_shown
        self._latest = latest

    def __iter__(self) -> Iterator[T]:
        real = iter(self._loader)  # at once: a DataLoader draws from the random numbers of the loop here
        if not self._is_shown():
            return real  # which costs nothing per batch
        return _shown(real, length_of(self._loader), self._latest)


def _shown(real: Iterator[T], length: int | None, latest: Callable[[], Mapping[str, float]]) -> Iterator[T]:
    with bar_class()("batch", length, latest, done=0, stays=False) as bar:
        yield from map(bar.goes_on, real)  # no batch is held here while the next one is made


def length_of(loader: object) -> int | None:
    """Number of batches, if asking for it changes nothing: a DataLoader of a stream that was asked for it checks it."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(getattr(loader, "dataset", None), torch.utils.data.IterableDataset):
        return None
    try:
        return operator.length_hint(loader) or None
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return None


def to_count(count: object) -> int:
    """``count`` of epochs as a whole number from 0 up."""
    whole = -1
    if not isinstance(count, bool):
        with suppress(TypeError):
            whole = operator.index(count)  # type: ignore[arg-type]
    if whole < 0:
        hint = f": epochs count from 0, so say run.epochs({len(count)})" if isinstance(count, range) else ""
        raise RecordError(f"epochs: the number of epochs must be a whole number from 0 up (got {count!r}){hint}")
    return whole


def _say_stopped_early(run: Recorder) -> None:
    if run.status == "FINISHED":
        run.set_tag("stopped_early", "true")
