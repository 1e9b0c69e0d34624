"""Which data a run's evaluations were on: the first data keep the plain names, and no other data take them.

Data are told apart by the number of their batches and by the first samples of the first batch. Those of a fit's own
validation are only kept: nothing is read from a device until a ``validate()`` is to be told apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from overt.capture.training import first_samples, is_tensor_like

_ROWS = 5


class EvaluatedData:
    """The data that one stage has been through, in the order in which they came."""

    def __init__(self) -> None:
        self._known: list[tuple[list[float], Any]] = []

    def __len__(self) -> int:
        return len(self._known)

    def number(self, batch: Any, *, n_batches: Sequence[float]) -> int:
        """1 for the first data and for their repetitions, 2 for the next, and so on."""
        given = (list(n_batches), first_samples(batch, _ROWS))
        for number, known in enumerate(self._known, start=1):
            if known[0] == given[0] and _are_equal(known[1], given[1]):
                return number
        self._known.append(given)
        return len(self._known)


def _are_equal(one: Any, other: Any) -> bool:
    if is_tensor_like(one) and is_tensor_like(other):
        is_same = one.shape == other.shape and one.dtype == other.dtype
        return is_same and bool(((one == other) | ((one != one) & (other != other))).all())  # NaN is NaN here
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_are_equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, str | bytes | int | float) and isinstance(other, str | bytes | int | float):
        return one == other
    return type(one) is type(other)  # nothing else is known to compare by its content
