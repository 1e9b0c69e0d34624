"""Predictions and truth seen at the loss of an evaluation: an accuracy for each epoch, a report of the last pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from overt.evaluation.losses import given_to
from overt.evaluation.predictions import Meaning, Predictions, evaluate_predictions
from overt.guard import recorded_part
from overt.run import Run

_MOST_AT_ONCE = 64  # batches, whose copy is then small beside what is kept


class Evaluations:
    """The last evaluation of each set of one run."""

    def __init__(self, run: Run, class_names: Sequence[str] | None) -> None:
        self._run = run
        self._class_names = class_names
        self._predictions: dict[str, Predictions] = {}
        self._n_counted: dict[str, int] = {}
        self._counts: dict[str, list[tuple[Any, Any, Any]]] = {}
        self._epochs: dict[str, int] = {}

    def add(self, name: str, loss: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_new: bool) -> None:
        """Keep what a loss was given, if it is known what that is; nothing is read."""
        if is_new:
            self.forget([name])
        given = given_to(loss, args, kwargs)
        if given is None or given.outputs.ndim == 0:
            return
        outputs, targets, meaning = given.outputs, given.targets, given.meaning
        is_kept = False
        if given.are_for_a_report:
            is_kept = self._predictions.setdefault(name, Predictions()).add(outputs, targets, meaning=meaning)
        if not is_kept:  # of pixels and tokens: the accuracy of each
            self._count(name, outputs.detach(), targets.detach(), meaning)

    def forget(self, names: Iterable[str]) -> None:
        """Let go of the last evaluations of these sets."""
        for name in names:
            self._predictions.pop(name, None)
            self._n_counted.pop(name, None)
            self._counts.pop(name, None)

    def counted(self, name: str) -> Sequence[Any]:
        """The right answers of a set that were counted so far; from here on it is counted anew."""
        if name in self._predictions:
            self._count_kept(name)
        return self._counts.pop(name, ())

    def accuracies(self, read: Callable[[Sequence[Any]], Sequence[float]]) -> dict[str, float]:
        """Share of right answers in each set since it was last asked for."""
        for name in self._predictions:
            self._count_kept(name)
        counted, self._counts = self._counts, {}
        return self.read_accuracies(counted, read)

    @staticmethod
    def read_accuracies(
        counted: Mapping[str, Sequence[Any]], read: Callable[[Sequence[Any]], Sequence[float]]
    ) -> dict[str, float]:
        """Share of right answers in each set, of what was counted, with one transfer."""
        flat = [number for batches in counted.values() for batch in batches for number in batch]
        values = iter(read(flat))
        found: dict[str, float] = {}
        for name, batches in counted.items():
            right = total = between = 0.0
            for _ in batches:
                right += next(values)
                total += next(values)
                between += next(values)
            if total and not between:
                found[f"{name}_accuracy"] = right / total
        return found

    def told(self, names: Sequence[str], epoch: int) -> None:
        """The last evaluations of these sets are of ``epoch``."""
        self._epochs |= dict.fromkeys(names, epoch)

    def record(self, is_written: Callable[[int, str], bool]) -> None:
        """Record the report of each set's last evaluation, as of its epoch, without what was recorded already."""
        collected, self._predictions, self._n_counted = self._predictions, {}, {}
        for name, predictions in collected.items():
            epoch = self._epochs.get(name, 0)
            with recorded_part(self._run, f"evaluation {name}"):
                read = predictions.read()
                if read is None or not read.can_be_true:
                    continue
                report = evaluate_predictions(read, class_names=self._class_names)
                prefix = f"{name}_"
                for metric, value in report.metrics.items():
                    if not is_written(epoch, prefix + metric):
                        self._run.log_metric(prefix + metric, value, epoch=epoch)
                self._run.log_report_files(report, prefix=prefix)

    def _count_kept(self, name: str) -> None:
        """Count the right answers among what was kept since the last time, many batches at once.

        Batch by batch, between two steps of a network, the seven small operations that it takes cost ten times as much.
        """
        kept = self._predictions[name]
        batches = kept.batches()[self._n_counted.get(name, 0) :]
        self._n_counted[name] = self._n_counted.get(name, 0) + len(batches)
        for _, alike in groupby(batches, key=_layout):
            waiting = list(alike)
            while waiting:
                some, waiting = waiting[:_MOST_AT_ONCE], waiting[_MOST_AT_ONCE:]
                outputs, targets = (torch.cat(parts) for parts in zip(*some, strict=True))
                self._count(name, outputs, targets, kept.meaning)

    def _count(self, name: str, outputs: torch.Tensor, targets: torch.Tensor, meaning: Meaning) -> None:
        if (counted := _right(outputs, targets, meaning)) is not None:
            self._counts.setdefault(name, []).append(counted)


def _layout(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[Any, ...]:
    """What the batches have in common that can be put together."""
    return tuple((part.shape[1:], part.dtype, part.device) for part in batch)


def _right(outputs: Any, targets: Any, meaning: Meaning) -> tuple[Any, Any, Any] | None:
    """How many answers are right, how many there are, and how many targets lie between two classes; None without any.

    The counts are tensors on their device.
    """
    if meaning == "preds":
        return None
    if targets.is_floating_point():
        if outputs.shape != targets.shape:
            return None  # probabilities as targets
        right = (outputs > (0 if meaning == "logits" else 0.5)) == (targets > 0.5)
        return right.sum(), torch.full_like(right.sum(), right.numel()), (targets != targets.round()).sum()
    if outputs.ndim != targets.ndim + 1:
        return None
    is_meant = targets >= 0  # a negative target is one to be ignored
    right = (outputs.argmax(dim=1) == targets) & is_meant
    return right.sum(), is_meant.sum(), torch.zeros_like(right.sum())
