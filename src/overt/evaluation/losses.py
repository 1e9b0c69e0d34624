"""What a loss was given says what a model has predicted: which of a loss's arguments are what is known by its kind.

What nothing is known of is not guessed. No framework is imported: whatever has ``detach`` is a tensor, and a loss is
known by its name or by those of its class and the classes above it. Nothing is read from a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from overt.evaluation.predictions import Meaning

_MEANINGS: Mapping[str, Meaning] = {
    "CrossEntropyLoss": "logits",
    "cross_entropy": "logits",
    "NLLLoss": "logits",  # logarithms of probabilities: their softmax is these
    "nll_loss": "logits",
    "MultiMarginLoss": "logits",
    "multi_margin_loss": "logits",
    "BCEWithLogitsLoss": "logits",
    "binary_cross_entropy_with_logits": "logits",
    "BCELoss": "probs",
    "binary_cross_entropy": "probs",
    "MSELoss": "preds",
    "mse_loss": "preds",
    "L1Loss": "preds",
    "l1_loss": "preds",
    "SmoothL1Loss": "preds",
    "smooth_l1_loss": "preds",
    "HuberLoss": "preds",
    "huber_loss": "preds",
}
_MOST_VALUES_OF_A_ROW = 20  # of a regression that nobody has asked for: a report has three metrics for each
_OF_ONE_CLASS = frozenset(["CrossEntropyLoss", "cross_entropy"])  # that take probabilities of classes as targets too


@dataclass(frozen=True, slots=True)
class Given:
    """What a loss was given.

    Attributes
    ----------
    outputs, targets : tensor
        On their device.
    meaning : {"logits", "probs", "preds"}
        What the outputs are.
    """

    outputs: Any
    targets: Any
    meaning: Meaning

    @property
    def are_rows(self) -> bool:
        """Whether there is one row for each sample: pixels, tokens and single values are none."""
        outputs, targets = self.outputs.shape, self.targets.shape
        return 1 <= len(outputs) <= 2 and 1 <= len(targets) <= 2 and outputs[0] == targets[0]

    @property
    def are_for_a_report(self) -> bool:
        """Whether there are rows, and not such that are a reconstruction of what a model was given."""
        is_reconstruction = self.meaning == "preds" and self.outputs.shape[-1] > _MOST_VALUES_OF_A_ROW
        return self.are_rows and not (self.outputs.ndim == 2 and is_reconstruction)


def given_to(loss: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given | None:
    """Outputs and targets among the arguments of a loss, function or module; None where it is not known which."""
    given = [*args[:2], *(kwargs[name] for name in ("input", "target") if name in kwargs)]
    if len(given) < 2 or not all(hasattr(each, "detach") for each in given[:2]):
        return None
    outputs, targets = given[:2]
    kind: type = type(loss)
    meaning, is_of_one_class = _known_of(kind, getattr(loss, "__name__", ""))
    if meaning is None and outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
        meaning = "logits"  # a loss of the user's own on scores of classes
    if meaning is None:
        return None
    if is_of_one_class and targets.ndim > 1 and targets.is_floating_point():
        targets = targets.argmax(dim=1)  # a probability for each class: the most probable one is taken as true
    elif (ignored := _ignored_by(loss, args, kwargs)) >= 0 and not targets.is_floating_point():
        targets = targets.long().masked_fill(targets == ignored, -1)  # a padding or a border: nothing to be right about
    return Given(outputs, targets, meaning)


def _ignored_by(loss: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """The target that a loss leaves out; a negative one is left out in any case."""
    is_fifth = len(args) > 4 and getattr(loss, "__name__", "") in ("cross_entropy", "nll_loss")
    ignored = args[4] if is_fifth else kwargs.get("ignore_index", getattr(loss, "ignore_index", -1))
    return ignored if isinstance(ignored, int) else -1


@lru_cache(maxsize=64)
def _known_of(kind: type, name: str) -> tuple[Meaning | None, bool]:
    """What a loss of this class and name takes, if that is known, and whether its samples are of one class each."""
    names = [*(parent.__name__ for parent in kind.__mro__), name]
    return next((_MEANINGS[name] for name in names if name in _MEANINGS), None), not _OF_ONE_CLASS.isdisjoint(names)
