"""One file that a training goes on from: written whole or not at all, and read without running anything in it.

It holds what the training needs to be as if it had never stopped (weights, optimizers, schedulers, the states of the
random numbers) and what :meth:`overt.Run.to_checkpoint` tells, so both go on together. While a process trains with it
the file is that process's own: another one that would choose the same starts a training of its own.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from overt.errors import ConfigurationError, RecordError

_FORMAT = 1

finished: set[Path] = set()
"""Where the trainings that have finished in this process had their checkpoints."""


@runtime_checkable
class Stateful(Protocol):
    """A model, an optimizer, a scheduler, a scaler, a sampler: what has a state that can be saved and loaded."""

    def state_dict(self) -> Any:
        """Its state."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take the state over."""


class CheckpointFile:
    """The checkpoint of one training, at a place that the same training finds again.

    Parameters
    ----------
    path : Path
        Of the file; its folder is made when it is needed.
    is_main : bool
        Whether this process writes it. Other ranks read what the main one has written, and keep random numbers of
        their own.
    """

    def __init__(self, path: Path, *, is_main: bool = True) -> None:
        self.path = path
        self._is_main = is_main
        self._lock: int | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._is_proven = False

    def hold(self) -> bool:
        """Keep other processes off the file from now on; False while another one has it."""
        if not self._is_main:
            return True
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError:
            pass  # a file system without locks
        self._lock = lock
        _held.add(self)
        return True

    def load(self) -> Mapping[str, Any] | None:
        """What was saved last, weights on the CPU and read when they are used; None if nothing was.

        Raises
        ------
        ConfigurationError
            When the file is there and cannot be read.
        """
        if self._loaded is None and self.path.exists():
            self._loaded = _read(self.path)
        return self._loaded

    def save(self, objects: Sequence[Stateful], **told: Any) -> None:
        """Replace the file by the state of ``objects`` and of the random numbers, and what else is told.

        Raises
        ------
        RecordError
            When a state could not be loaded again, found out at the first time.
        OSError
            When the file could not be written. What was saved before is still there.
        """
        if not self._is_main:
            return
        import torch

        content = {
            "format": _FORMAT,
            "kinds": [type(thing).__name__ for thing in objects],
            "states": [thing.state_dict() for thing in objects],
            "random": random_states(),
            **told,
        }
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            if not self._is_proven:
                _prove(partial, objects)
                self._is_proven = True
            os.replace(partial, self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def restore(self, objects: Sequence[Stateful]) -> Mapping[str, Any] | None:
        """Bring ``objects`` and the random numbers to where the file says; what else it tells, or None without one.

        Raises
        ------
        ConfigurationError
            When what was saved is no state of these objects.
        """
        saved = self.load()
        if saved is None:
            return None
        kinds = [type(thing).__name__ for thing in objects]
        if saved["kinds"] != kinds:
            raise self._unfit(f"it was made of {', '.join(saved['kinds'])} (got {', '.join(kinds)})")
        for thing, state in zip(objects, saved["states"], strict=True):
            try:
                thing.load_state_dict(state)
            except Exception as error:
                raise self._unfit(f"{type(thing).__name__}: {error}") from error
        if self._is_main:
            set_random_states(saved["random"])
        self._loaded = None
        return saved

    def remove(self) -> None:
        """Have nothing to go on from."""
        if self._is_main:
            self.path.unlink(missing_ok=True)
        self._loaded = None

    def leave(self) -> None:
        """The training is over: the next one like it in this process, as that of another fold, is another one."""
        finished.add(self.path)

    def release(self) -> None:
        """Let other processes have it; the lock's own file stays, since somebody may be about to take it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _unfit(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"the checkpoint {self.path} does not fit what `checkpoint` was given: {why}. To start anew, delete it or "
            "pass resume='never'."
        )


class NoCheckpoint(CheckpointFile):
    """Of a run that is kept nowhere: tracking is off, or a test captures it."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), is_main=False)

    def load(self) -> None:
        """There is nothing."""


def file_name(name: str, identity: str) -> str:
    """Name of the checkpoint of a training called ``name``, of which ``identity`` tells it from its like."""
    return f"{_plain(name)}-{identity}.pt"


def newest(folder: Path, name: str) -> Path | None:
    """The checkpoint that was written last of the trainings called ``name``."""
    found = [path for path in folder.glob(f"{_plain(name)}-*.pt") if re.fullmatch(r".*-[0-9a-f]{12}", path.stem)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def to_stateful(given: object) -> tuple[Stateful, ...]:
    """What is to be saved, one by one.

    Raises
    ------
    RecordError
        For what has no state.
    """
    things = tuple(given) if isinstance(given, tuple | list) else (given,)
    for thing in things:
        if not isinstance(thing, Stateful):
            raise RecordError(
                "epochs: `checkpoint` must be a model, an optimizer or others with state_dict() and load_state_dict(), "
                f"or a tuple of them (got {type(thing).__name__})"
            )
    return things


def random_states() -> dict[str, Any]:
    """States of Python's, NumPy's and torch's random numbers, as values that load with weights only."""
    import torch

    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, *rest = numpy.random.get_state()
        states["numpy"] = (str(kind), [int(key) for key in keys], *(int(value) for value in rest[:-1]), float(rest[-1]))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Go on with the random numbers where they were; of a device that is not there, nothing."""
    import torch

    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states and (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, *rest = states["numpy"]
        numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), *rest))
    if "cuda" in states and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def _plain(name: str) -> str:
    """``name`` as part of a file's name."""
    return re.sub(r"[^\w.]+", "_", name)[:80].strip("._") or "training"


def _read(path: Path) -> Mapping[str, Any]:
    problem = "it is of another version of overt"
    try:
        content = _loaded(path)
        if isinstance(content, dict) and content.get("format") == _FORMAT:
            return content
    except Exception as error:  # noqa: BLE001 - a damaged file raises anything
        problem = f"it is damaged, or no checkpoint of overt's: {type(error).__name__}"
    raise ConfigurationError(
        f"the checkpoint {path} cannot be read ({problem}). To start anew, delete it or pass resume='never'."
    )


def _prove(path: Path, objects: Sequence[Stateful]) -> None:
    """Read what was just written: a state that does not load with weights only must be known of now, not later."""
    try:
        _loaded(path)
    except Exception as error:
        raise RecordError(
            "torch.load(weights_only=True) would not load it again: the state of "
            f"{', '.join(type(thing).__name__ for thing in objects)} holds more than tensors, numbers, texts and "
            "lists or dicts of them"
        ) from error


def _loaded(path: Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


_held: weakref.WeakSet[CheckpointFile] = weakref.WeakSet()


def _in_forked_child() -> None:
    for file in list(_held):
        file.release()  # a loader's worker lives on for seconds when its parent was killed, and would keep the lock


os.register_at_fork(after_in_child=_in_forked_child)
