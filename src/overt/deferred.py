"""Tensors that were recorded as metrics: they stay on their device, and are read together in one transfer.

Reading one tensor makes the host wait for all that its device has been given to do, so nothing is read on the hot path.
A copy is kept, since a loop may go on adding to the tensor that it recorded. No library is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from overt.journal.series import Series

MOST_WAITING = 10_000
"""Points that wait at most: a transfer of as many takes milliseconds."""
LONGEST_WAIT_MS = 10_000
"""How long a point waits at most while others come, so that a long epoch can be followed and outlives its process."""
_PLACES = 64


class DeferredPoint(NamedTuple):  # made in a quarter of a frozen dataclass's time, once a step
    """A point whose value is still on its device; its step and time are those of its recording."""

    series: Series
    tensor: Any
    step: int
    time_ms: int
    model: str | None
    dataset: str | None


def is_tensor(value: object) -> bool:
    """Whether ``value`` is one number in a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex()


def kept_on_device(tensor: Any) -> Any:
    """A copy without history that nothing else writes to; queued on the device, waited for by nobody."""
    kept = tensor.detach().clone()
    return kept if kept.ndim == 0 else kept.reshape(())


class Shelf:
    """Keeps numbers on the CPU side by side, as :func:`kept_on_device` does each for itself.

    Small tensors that stay, one after each step, lie between the large ones of a network. What is free above them is
    given back to the system and asked for again in every step: 4 page faults, of a microsecond or two each.
    """

    def __init__(self) -> None:
        self._free: list[Any] = []

    def keep(self, tensor: Any) -> Any:
        """A copy, without history, of a tensor of no dimension that has one."""
        detached = tensor.detach()
        if not detached.is_cpu:
            return detached.clone()
        try:
            place = self._free.pop()  # another thread may take the last one at any moment
        except IndexError:
            place = None
        if place is None or place.dtype is not detached.dtype:
            *self._free, place = detached.new_empty(_PLACES).unbind()
        return place.copy_(detached)


def is_due(waiting: Sequence[DeferredPoint]) -> bool:
    """Whether it is time to read, now that the last of them has come."""
    return len(waiting) >= MOST_WAITING or waiting[-1].time_ms - waiting[0].time_ms >= LONGEST_WAIT_MS


def read_together(tensors: Sequence[Any]) -> list[float]:
    """The values in their order, with one transfer for each device and dtype (one, as a rule)."""
    torch = sys.modules["torch"]
    groups: dict[tuple[Any, Any], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(index)
    values = [0.0] * len(tensors)
    for indices in groups.values():
        together = torch.stack([tensors[index] for index in indices])
        for index, value in zip(indices, together.cpu().double().tolist(), strict=True):
            values[index] = value
    return values
