"""Predictions of a loop, batch by batch, become one :class:`~overt.evaluation.report.Report`.

Tensors stay where they are, detached, and are read in one transfer when the report is asked for: collecting them makes
nothing wait for a device. What is kept is bounded, and a report that rests on a part says so. No framework is imported:
whatever has ``detach`` is a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overt.errors import ConfigurationError
from overt.evaluation.classification import classify
from overt.evaluation.regression import regress
from overt.evaluation.report import Report

Meaning = Literal["logits", "probs", "preds"]
"""What outputs are: scores before a softmax or sigmoid, probabilities, or to be seen from the numbers."""

MAX_VALUES = 20_000_000
"""Numbers kept by default: 80 MB as float32, so 2,000,000 samples of 10 classes and 20,000 of 1,000."""

_SUM_TOLERANCE = 1e-3  # bfloat16 probabilities of 1,000 classes sum to within this of one
_THRESHOLD = 0.5


class Predictions:
    """Collects outputs and targets of one pass over data.

    Parameters
    ----------
    max_values : int
        Most numbers to keep. Batches beyond it are counted and not kept.

    Examples
    --------
    >>> predictions = Predictions()
    >>> predictions.add([[2.0, -1.0], [0.5, 0.1], [-3.0, 1.0]], [0, 1, 1], meaning="logits")
    >>> report = predictions.report(class_names=["cat", "dog"])
    >>> round(report["accuracy"], 3), report.notes[0]
    (0.667, 'softmax was taken of the outputs: they were called logits')
    """

    def __init__(self, *, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._outputs: list[Any] = []
        self._targets: list[Any] = []
        self._n_values = 0
        self._n_kept = 0
        self._n_seen = 0
        self.meaning: Meaning = "preds"

    def __len__(self) -> int:
        """How many samples were seen, kept or not."""
        return self._n_seen

    @property
    def is_cut(self) -> bool:
        """Whether samples were seen that are not kept."""
        return self._n_kept < self._n_seen

    def add(self, outputs: Any, targets: Any, *, meaning: Meaning = "preds") -> bool:
        """Keep a copy of one batch; False when there is no more room.

        Parameters
        ----------
        outputs : tensor or array of shape (n_samples, …)
            Scores, labels or values, one row for each sample.
        targets : tensor or array of shape (n_samples, …)
            What is true of the samples.
        meaning : {"logits", "probs", "preds"}
            What the outputs are.

        Raises
        ------
        ConfigurationError
            When both do not hold the same number of samples.
        """
        outputs, targets = _at_least_1d(outputs), _at_least_1d(targets)
        n_samples = int(outputs.shape[0])
        if int(targets.shape[0]) != n_samples:
            raise ConfigurationError(
                f"outputs and targets must hold the same samples (got {n_samples} and {int(targets.shape[0])})"
            )
        self._n_seen += n_samples
        size = _size(outputs) + _size(targets)
        if self._n_kept + n_samples < self._n_seen or self._n_values + size > self._max_values:
            return False  # once one batch is left out, so are those after it: what is kept is the beginning, no choice
        self._outputs.append(_kept(outputs))
        self._targets.append(_kept(targets))
        self.meaning = meaning
        self._n_values += size
        self._n_kept += n_samples
        return True

    def batches(self) -> Sequence[tuple[Any, Any]]:
        """Outputs and targets that are kept, batch by batch, on their device."""
        return list(zip(self._outputs, self._targets, strict=True))

    def read(self) -> ReadPredictions | None:
        """All that is kept, as arrays; None where there is nothing. This waits for the device, once."""
        if not self._outputs:
            return None
        outputs, targets = _read(self._outputs, self._targets)
        return ReadPredictions(outputs, targets, self.meaning, self._n_seen)

    def report(self, *, class_names: Sequence[str] | None = None) -> Report:
        """Evaluate what was collected; see :func:`evaluate_predictions`."""
        found = self.read()
        if found is None:
            raise ConfigurationError("there are no predictions to evaluate; add() at least one batch")
        return evaluate_predictions(found, class_names=class_names)


@dataclass(frozen=True, slots=True)
class ReadPredictions:
    """Predictions in plain arrays, so that those of several processes can be joined.

    Attributes
    ----------
    n_seen : int
        How many samples there were, of which the arrays hold the first.
    """

    outputs: NDArray[Any]
    targets: NDArray[Any]
    meaning: Meaning
    n_seen: int

    @property
    def can_be_true(self) -> bool:
        """Whether targets are classes where a loss takes them for it: a reconstruction is trained on shades of grey."""
        is_between = self.meaning != "preds" and self.targets.dtype.kind == "f"
        return not is_between or bool(np.all(self.targets == np.rint(self.targets)))

    @staticmethod
    def join(parts: Iterable[ReadPredictions | None]) -> ReadPredictions | None:
        """One from many; those that are None saw nothing."""
        found = [part for part in parts if part is not None]
        if not found:
            return None
        return ReadPredictions(
            np.concatenate([part.outputs for part in found]),
            np.concatenate([part.targets for part in found]),
            found[0].meaning,
            sum(part.n_seen for part in found),
        )


def evaluate_predictions(predictions: ReadPredictions, *, class_names: Sequence[str] | None = None) -> Report:
    """Evaluate predictions as the problem that they are.

    Targets that are whole numbers make it a classification; so do outputs called logits or probs. Outputs of shape
    (n_samples, n_classes) are scores of classes, of shape (n_samples,) those of the second class if they are no whole
    numbers, else labels. Targets and outputs of shape (n_samples, n_labels) make it multilabel, with 0.5 as threshold.
    Numbers without such signs make it a regression.

    Parameters
    ----------
    predictions : ReadPredictions
        From :meth:`Predictions.read`.
    class_names : sequence of str, optional
        What to call classes 0, 1, …, or the outputs of a regression.

    Returns
    -------
    Report
        Its notes say how scores became probabilities, which samples were left out, and whether some were not kept.

    Raises
    ------
    ConfigurationError
        For shapes that are none of these, such as those of a segmentation.
    """
    outputs, targets, notes = _squeezed(predictions.outputs), _squeezed(predictions.targets), list[str]()
    if predictions.n_seen > len(predictions.targets):
        notes.append(
            f"evaluated on the first {len(predictions.targets):,} of {predictions.n_seen:,} samples: no more are kept"
        )
    is_classification = targets.dtype.kind in "iub" or predictions.meaning != "preds"
    if outputs.ndim > 2 or targets.ndim > 2 or (targets.ndim == 2 and targets.shape != outputs.shape):
        raise ConfigurationError(
            f"outputs of shape {outputs.shape} with targets of shape {targets.shape} are no classification or "
            "regression of one row per sample; flatten them before they are returned"
        )
    if is_classification:
        report = _classified(outputs, targets, predictions.meaning, class_names, notes)
    else:
        report = regress(targets, outputs, target_names=class_names)
    return replace(report, notes=(*notes, *report.notes))


# -- classification ----------------------------------------------------------------------------------------------------


def _classified(
    outputs: NDArray[Any], targets: NDArray[Any], meaning: Meaning, names: Sequence[str] | None, notes: list[str]
) -> Report:
    if targets.dtype.kind == "f":  # of a binary cross entropy
        targets = np.rint(targets).astype(np.int64) if np.all(targets == np.rint(targets)) else targets >= _THRESHOLD
    targets = targets.astype(np.int64)
    if targets.ndim == 2:
        scores = _sigmoid(outputs, meaning, notes)
        return classify(targets, (scores >= _THRESHOLD).astype(np.int64), scores=scores, class_names=names)
    is_ignored = targets < 0
    if is_ignored.any():
        notes.append(f"{int(is_ignored.sum()):,} samples with a negative target are left out")
        outputs, targets = outputs[~is_ignored], targets[~is_ignored]
    if outputs.ndim == 2:
        scores = _softmax(outputs, meaning, notes)
        classes = np.arange(scores.shape[1])
        return classify(targets, scores.argmax(axis=1), scores=scores, classes=classes, class_names=names)
    if outputs.dtype.kind == "f" and not (meaning == "preds" and np.all(outputs == np.rint(outputs))):
        scores = _sigmoid(outputs, meaning, notes)
        predicted = (scores >= _THRESHOLD).astype(np.int64)
        return classify(targets, predicted, scores=scores, classes=np.arange(2), class_names=names)
    labels = None if names is None else list(range(len(names)))
    return classify(targets, outputs.astype(np.int64), classes=labels, class_names=names)


def _softmax(outputs: NDArray[Any], meaning: Meaning, notes: list[str]) -> NDArray[np.float64]:
    """Probabilities that sum to one, by what the outputs are called, else by what they look like."""
    values: NDArray[np.float64] = outputs.astype(np.float64)
    is_shared = bool(np.all(values >= 0) and np.all(np.abs(values.sum(axis=1) - 1) <= _SUM_TOLERANCE))
    if is_shared and meaning != "logits":
        return np.asarray(values / values.sum(axis=1, keepdims=True))
    if meaning == "probs":
        notes.append("the outputs were called probs and do not sum to one in each row: softmax was taken of them")
    elif meaning == "logits":
        notes.append("softmax was taken of the outputs: they were called logits")
    else:
        notes.append("softmax was taken of the outputs: they are no probabilities, since rows do not sum to one")
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _sigmoid(outputs: NDArray[Any], meaning: Meaning, notes: list[str]) -> NDArray[np.float64]:
    """Probabilities one by one, likewise."""
    values: NDArray[np.float64] = outputs.astype(np.float64)
    is_between = bool(np.all((values >= 0) & (values <= 1)))
    if is_between and meaning != "logits":
        return values
    reason = "they were called logits" if meaning == "logits" else "some of them lie outside 0 to 1"
    notes.append(f"the sigmoid was taken of the outputs: {reason}")
    probabilities: NDArray[np.float64] = 0.5 * (1 + np.tanh(values / 2))  # never overflows
    return probabilities


def _squeezed(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


# -- tensors -----------------------------------------------------------------------------------------------------------


def _at_least_1d(values: Any) -> Any:
    if hasattr(values, "detach"):
        return values.reshape(1) if values.ndim == 0 else values
    return np.atleast_1d(np.asarray(values))


def _size(values: Any) -> int:
    return int(values.numel() if hasattr(values, "numel") else values.size)


def _kept(values: Any) -> Any:
    """A copy: loops write batch after batch into one buffer, and a slice keeps alive all that it is a part of."""
    return values.detach().clone() if hasattr(values, "detach") else values.copy()


def _read(outputs: list[Any], targets: list[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if not (hasattr(outputs[0], "detach") and hasattr(targets[0], "detach")):
        arrays = [np.concatenate([_to_array(part) for part in parts]) for parts in (outputs, targets)]
        return arrays[0], arrays[1]
    torch = sys.modules["torch"]
    device = outputs[0].device
    both = [torch.cat([part.to(device) for part in parts]) for parts in (outputs, targets)]
    if device.type == "cpu":
        return _to_array(both[0]), _to_array(both[1])
    return _in_one_transfer(torch, both[0], both[1])


def _in_one_transfer(torch: Any, outputs: Any, targets: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as one block of bytes, which crosses to the host once."""
    parts = [_plain_dtype(tensor).contiguous() for tensor in (outputs, targets)]
    block = torch.cat([part.reshape(-1).view(torch.uint8) for part in parts]).cpu().numpy()
    arrays, begin = [], 0
    for part in parts:
        end = begin + part.numel() * part.element_size()
        dtype = np.dtype(str(part.dtype).removeprefix("torch."))
        arrays.append(np.frombuffer(block[begin:end].tobytes(), dtype=dtype).reshape(tuple(part.shape)))
        begin = end
    return arrays[0], arrays[1]


def _plain_dtype(tensor: Any) -> Any:
    """``tensor`` in a type that numpy has."""
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _to_array(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        array: NDArray[Any] = _plain_dtype(values).cpu().numpy()
        return array
    return np.asarray(values)
