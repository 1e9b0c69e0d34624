"""What ``validation_step`` and ``test_step`` return becomes predictions and truth, from all ranks.

A mapping with one of ``preds``, ``logits``, ``probs`` or ``y_hat`` and one of ``target``, ``targets``, ``y`` or
``labels`` can be evaluated; nothing else is guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from overt.evaluation.predictions import Meaning, Predictions, ReadPredictions

_OUTPUTS: dict[str, Meaning] = {"logits": "logits", "probs": "probs", "preds": "preds", "y_hat": "preds"}
_TARGETS = ("target", "targets", "y", "labels")

ADVICE = (
    'to get a confusion matrix, a report and curves, return {"loss": loss, "logits": logits, "target": y} '
    '(or "preds", "probs", "y_hat"; "y", "labels") from %s'
)


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
