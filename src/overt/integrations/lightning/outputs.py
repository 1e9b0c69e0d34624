"""What ``validation_step`` and ``test_step`` return becomes predictions and truth, from all ranks.

A mapping with one of ``preds``, ``logits``, ``probs`` or ``y_hat`` and one of ``target``, ``targets``, ``y`` or
``labels`` can be evaluated. Where a step returns none, what a loss of ``torch.nn.functional`` is given in it stands for
it: loss modules call these functions too. Nothing else is guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from overt.capture.functional import LossMode, is_changed_by_modes
from overt.evaluation.losses import Given, given_to
from overt.evaluation.predictions import Meaning, Predictions, ReadPredictions
from overt.guard import Parts
from overt.integrations.lightning.described import is_a

_OUTPUTS: dict[str, Meaning] = {"logits": "logits", "probs": "probs", "preds": "preds", "y_hat": "preds"}
_TARGETS = ("target", "targets", "y", "labels")

ADVICE = (
    'to get a confusion matrix, a report and curves, return {"loss": loss, "logits": logits, "target": y} '
    '(or "preds", "probs", "y_hat"; "y", "labels") from %s'
)

_SEVERAL = "several losses were seen in a batch: the report is of what the last one of a classification was given"

Place = tuple[str, int]
"""A stage and a data loader of it."""


class Outputs:
    """Predictions and truth of one pass over data at a time.

    The first batch of each data loader decides. If its step returns what can be evaluated, that is taken, and no
    losses are watched from then on; else, if a loss is seen in it, what losses are given; else only what later batches
    return. Nothing is read from a device before :meth:`read`.

    Parameters
    ----------
    parts : Parts
        Keeps failures from the step in which losses are watched.

    Notes
    -----
    Of several losses in a batch the last one of a classification is taken, else the last one.

    Measured on one evaluation batch of an MLP (64-128-10, 32 rows, one thread, best of 25, on a busy machine, twice):
    bare 39 and 62 us, losses watched 71 and 114 us, what was seen kept as well 129 and 197 us.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._mode = LossMode(self._see)
        self._predictions: dict[int, Predictions] = {}
        self._returning: set[Place] = set()
        self._is_watchable = False
        self._by_losses: dict[int, bool] = {}  # whether a data loader is evaluated by its losses, once that is decided
        self._widths: dict[int, tuple[int, ...]] = {}
        self._seen: Given | None = None
        self._n_seen = 0
        self._with_several: set[int] = set()

    def begin(self, model: Any) -> None:
        """A pass over data begins."""
        self.stop_watching()
        self.forget()
        self._is_watchable = not is_changed_by_modes(model)

    def forget(self) -> None:
        """Let go of the pass before."""
        self._predictions, self._by_losses, self._widths = {}, {}, {}
        self._with_several = set()

    def watch(self, place: Place) -> None:
        """A batch begins: see its losses, if they are needed."""
        self._seen, self._n_seen = None, 0
        if self._is_watchable and place not in self._returning and self._by_losses.get(place[1], True):
            self._mode.resume()

    def stop_watching(self) -> None:
        """Leave nothing on PyTorch's stack, whatever has happened."""
        self._mode.suspend()

    def add(self, returned: Any, place: Place) -> None:
        """A batch ends: keep what it gives."""
        self.stop_watching()
        seen, self._seen = self._seen, None
        loader = place[1]
        predictions = self._predictions.setdefault(loader, Predictions())
        if not self._by_losses.get(loader) and add_outputs(predictions, returned):
            self._returning.add(place)
            return
        self._by_losses.setdefault(loader, seen is not None)
        if seen is not None:
            self._add_seen(seen, predictions, loader)

    def read(self) -> dict[int, ReadPredictions]:
        """What was kept of this pass on this rank, by data loader."""
        found = ((loader, predictions.read()) for loader, predictions in self._predictions.items())
        return {
            loader: read
            for loader, read in found
            if read is not None and (not self._by_losses.get(loader) or read.can_be_true)
        }

    def notes(self, loader: int) -> list[str]:
        """What is to be said of a data loader's predictions."""
        return [_SEVERAL] if loader in self._with_several else []

    def _see(self, name: str, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        with self._parts.guarded("predictions"):
            given = given_to(function, args, kwargs)
            if given is None or not given.are_for_a_report:
                return
            self._n_seen += 1
            if self._seen is None or self._seen.meaning == "preds" or given.meaning != "preds":
                self._seen = given

    def _add_seen(self, seen: Given, predictions: Predictions, loader: int) -> None:
        width = tuple(seen.outputs.shape[1:])
        if self._widths.setdefault(loader, width) != width:  # similarities within a batch: no classes of the data
            self._by_losses[loader] = False
            del self._predictions[loader]
            return
        if self._n_seen > 1:
            self._with_several.add(loader)
        predictions.add(seen.outputs, seen.targets, meaning=seen.meaning)


def add_outputs(predictions: Predictions, outputs: Any) -> bool:
    """Keep what a step has returned; whether there was anything to keep."""
    if not isinstance(outputs, Mapping):
        return False
    predicted = next((name for name in _OUTPUTS if outputs.get(name) is not None), None)
    target = next((name for name in _TARGETS if outputs.get(name) is not None), None)
    if predicted is None or target is None:
        return False
    predictions.add(outputs[predicted], outputs[target], meaning=_OUTPUTS[predicted])
    return True


def without_repeats(trainer: Any, found: dict[int, ReadPredictions]) -> dict[int, ReadPredictions]:
    """The predictions of this rank, less those of samples that only fill it up: other ranks have them as well."""
    if trainer.world_size == 1:
        return found
    loaders = trainer._evaluation_loop._combined_loader.flattened
    return {loader: _own_part(read, getattr(loaders[loader], "sampler", None)) for loader, read in found.items()}


def _own_part(read: ReadPredictions, sampler: Any) -> ReadPredictions:
    """Of a DistributedSampler that does not shuffle, each rank's last sample may be one of the first again."""
    if not is_a(sampler, "DistributedSampler") or sampler.shuffle or read.n_seen != len(sampler):
        return read
    n_own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))
    return replace(read, outputs=read.outputs[:n_own], targets=read.targets[:n_own], n_seen=min(n_own, read.n_seen))


def gather(trainer: Any, found: dict[int, ReadPredictions]) -> dict[int, ReadPredictions]:
    """The predictions of all ranks on the first, by data loader; each rank has to call this, whatever it has."""
    if trainer.world_size == 1:
        return found
    distributed = sys.modules["torch.distributed"]
    parts: list[Any] | None = [None] * trainer.world_size if trainer.global_rank == 0 else None
    distributed.gather_object(found, parts)
    joined: dict[int, ReadPredictions] = {}
    for loader in sorted({loader for part in parts or () for loader in part}):
        whole = ReadPredictions.join(part.get(loader) for part in parts or ())
        if whole is not None:
            joined[loader] = whole
    return joined
