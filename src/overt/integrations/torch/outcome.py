"""What a training returns or yields, as metrics: numbers are of one epoch, lists of numbers have one for each.

What overt has measured itself keeps its name. Where the function reports another value for the same epoch under that
name, both are kept, its own as ``reported_<name>``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def points_of(returned: Any, *, epoch: int) -> Iterator[tuple[str, Any, int]]:
    """Name, value and epoch of each number in what was returned; numbers alone are of ``epoch``, the last one.

    A list with one mapping for each epoch that was seen, which counts them from 1, has the same epochs. None in a list
    is an epoch without a value. An array is a series if it has a value for each epoch that was seen: others are
    predictions and the like.
    """
    if (fields := fields_of(returned)) is not None:
        for name, value in _iter_named(fields):
            if is_number(value):
                yield name, value, epoch
            elif isinstance(value, list | tuple):
                if all(item is None or is_number(item) for item in value):
                    yield from ((name, item, index) for index, item in enumerate(value) if item is not None)
            elif getattr(value, "shape", None) == (epoch + 1,) and not isinstance(value[0], str | bytes):
                yield from ((name, item, index) for index, item in enumerate(value.tolist()) if is_number(item))
    elif isinstance(returned, tuple):
        for item in returned:
            yield from points_of(item, epoch=epoch)
    elif isinstance(returned, list) and returned and all(isinstance(item, Mapping) for item in returned):
        counts_from_one = [item.get("epoch") for item in returned] == list(range(1, epoch + 2))
        for index, item in enumerate(returned):
            yield from points_of_epoch({**item, "epoch": index} if counts_from_one else item, epoch=index)


def points_of_epoch(yielded: Mapping[Any, Any], *, epoch: int) -> Iterator[tuple[str, Any, int]]:
    """Name, value and epoch of each number in a mapping that is of one epoch; it may say itself of which."""
    own = own_epoch(yielded)
    epoch = epoch if own is None else own
    for name, value in _iter_named(yielded):
        if name != "epoch" and is_number(value):
            yield name, value, epoch


def fields_of(value: Any) -> Mapping[Any, Any] | None:
    """What a mapping, a dataclass or a named tuple holds, by name; None of anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields: Mapping[str, Any] = value._asdict()
        return fields
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    return None


def _iter_named(fields: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All that has a name, those of mappings within joined with dots; nothing of weights."""
    if _are_weights(fields):
        return
    for name, value in fields.items():
        if not isinstance(name, str) or not name:
            continue
        if isinstance(value, Mapping):
            yield from _iter_named(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _are_weights(fields: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a module's ``state_dict()``, or one made of it: layers' names with dots, tensors alone."""
    if hasattr(fields, "_metadata"):  # which PyTorch leaves there
        return True
    are_tensors = all(isinstance(value, torch.Tensor) for value in fields.values())
    return are_tensors and any("." in str(name) and value.numel() > 1 for name, value in fields.items())


def own_epoch(yielded: Mapping[Any, Any]) -> int | None:
    """The epoch that a mapping says it is of."""
    own = yielded.get("epoch")
    return own if isinstance(own, int) and not isinstance(own, bool) else None


def is_number(value: Any) -> bool:
    """Whether ``value`` is one number, in a tensor or out of it."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)


def has_numbers(value: Any) -> bool:
    """Whether ``value`` is a number that is more than a count, or is a tuple or list with such a one."""
    items = value if isinstance(value, tuple | list) else (value,)
    return any(is_number(item) and not isinstance(item, int) for item in items)


def module_in(returned: Any) -> torch.nn.Module | None:
    """The module among what was returned, if there is one."""
    fields = fields_of(returned)
    items = fields.values() if fields is not None else returned if isinstance(returned, tuple) else (returned,)
    return next((item for item in items if isinstance(item, torch.nn.Module)), None)
