"""What a training returns or yields, as metrics: numbers are of one epoch, lists of numbers have one for each.

What overt has measured itself keeps its name. Where the function reports another value for the same epoch under that
name, both are kept, its own as ``reported_<name>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def points_of(returned: Any, *, epoch: int) -> Iterator[tuple[str, Any, int]]:
    """Name, value and epoch of each number in what was returned; numbers alone are of ``epoch``, the last one.

    A list with one mapping for each epoch that was seen, which counts them from 1, has the same epochs.
    """
    if isinstance(returned, tuple):
        for item in returned:
            yield from points_of(item, epoch=epoch)
    elif isinstance(returned, Mapping):
        for name, value in returned.items():
            if not isinstance(name, str) or not name:
                continue
            if is_number(value):
                yield name, value, epoch
            elif isinstance(value, list | tuple) and value and all(map(is_number, value)):
                yield from ((name, item, index) for index, item in enumerate(value))
    elif isinstance(returned, list) and returned and all(isinstance(item, Mapping) for item in returned):
        counts_from_one = [item.get("epoch") for item in returned] == list(range(1, epoch + 2))
        for index, item in enumerate(returned):
            yield from points_of_epoch({**item, "epoch": index} if counts_from_one else item, epoch=index)


def points_of_epoch(yielded: Mapping[Any, Any], *, epoch: int) -> Iterator[tuple[str, Any, int]]:
    """Name, value and epoch of each number in a mapping that is of one epoch; it may say itself of which."""
    own = own_epoch(yielded)
    epoch = epoch if own is None else own
    for name, value in yielded.items():
        if isinstance(name, str) and name and name != "epoch" and is_number(value):
            yield name, value, epoch


def own_epoch(yielded: Mapping[Any, Any]) -> int | None:
    """The epoch that a mapping says it is of."""
    own = yielded.get("epoch")
    return own if isinstance(own, int) and not isinstance(own, bool) else None


def is_number(value: Any) -> bool:
    """Whether ``value`` is one number, in a tensor or out of it."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)


def module_in(returned: Any) -> torch.nn.Module | None:
    """The module among what was returned, if there is one."""
    items = returned if isinstance(returned, tuple) else (returned,)
    return next((item for item in items if isinstance(item, torch.nn.Module)), None)
