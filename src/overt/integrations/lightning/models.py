"""The module as it is saved: what its ``forward`` takes, found in a real batch; the best weights in a copy of it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from overt.integrations.lightning.described import is_a
from overt.models.torch import copied_to_cpu

_REQUIRED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TARGETS = frozenset("target targets y label labels".split())


def candidates_in(batch: Any, module: Any) -> list[Any]:
    """What ``module.forward`` may take of a batch, likeliest first; the last is the batch itself.

    Likeliest is of a tuple or list the first item, or as many as ``forward`` needs when one is left for the target. Of
    a mapping the items that bear the names of ``forward``'s arguments, else the only one that is not called like a
    target. A tuple is several arguments, a list is one.
    """
    if isinstance(batch, Mapping):
        return [_inputs_of(module, batch), dict(batch)]
    if isinstance(batch, Sequence) and batch and not isinstance(batch, str):
        return [_inputs_of(module, batch), list(batch)]
    return [batch]


def _inputs_of(module: Any, batch: Any) -> Any:
    arguments = _required_arguments(module)
    if isinstance(batch, Mapping):
        if arguments and all(name in batch for name in arguments):
            chosen = tuple(batch[name] for name in arguments)
            return chosen[0] if len(chosen) == 1 else chosen
        others = [name for name in batch if str(name) not in _TARGETS]
        return batch[others[0]] if len(others) == 1 and len(arguments) == 1 else dict(batch)
    if 1 < len(arguments) < len(batch):
        return tuple(batch[: len(arguments)])
    return batch[0]


def best_checkpoints(trainer: Any) -> dict[Path, int]:
    """The file (or folder) of the best checkpoint of each ModelCheckpoint, and when it was written, in nanoseconds.

    Those that watch a metric come first: the best of any other is its latest.
    """
    found = {}
    for callback in sorted(trainer.checkpoint_callbacks, key=lambda kept: getattr(kept, "monitor", None) is None):
        if is_a(callback, "ModelCheckpoint") and callback.best_model_path:
            path = Path(callback.best_model_path)
            with suppress(FileNotFoundError):  # it may be in a bucket
                found[path] = path.stat().st_mtime_ns
    return found


def with_weights_of(module: Any, checkpoint: Path) -> Any:
    """A copy of ``module`` with the weights of a checkpoint that this training has written."""
    loaded = sys.modules["torch"].load(checkpoint, map_location="cpu", weights_only=False)
    best = copied_to_cpu(module)
    best.on_load_checkpoint(loaded)
    best.load_state_dict(loaded["state_dict"], strict=getattr(best, "strict_loading", True))
    return best


def _required_arguments(module: Any) -> list[str]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in _REQUIRED and p.default is p.empty]
