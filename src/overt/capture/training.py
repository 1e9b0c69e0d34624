"""What a training is made of, as plain values: optimizers, schedulers, the model's size, the batch's size.

Nothing here imports torch: whatever has ``param_groups`` is an optimizer, whatever has ``named_modules`` a model. No
tensor is read, so nothing here waits for a device.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overt.capture.params import describe

_NOT_SETTINGS = frozenset({"params", "param_names", "name", "initial_lr"})
_NOT_SCHEDULER_SETTINGS = frozenset({"self", "optimizer", "last_epoch", "verbose", "args", "kwargs"})
_ABSENT = object()


# -- optimizers --------------------------------------------------------------------------------------------------------


def optimizer_params(optimizers: Sequence[Any]) -> dict[str, object]:
    """The class and the settings of each optimizer.

    Parameters
    ----------
    optimizers : sequence of optimizers
        Each with ``param_groups``, as ``torch.optim`` has them.

    Returns
    -------
    dict
        Of one optimizer ``optimizer`` (its class) and its settings under their own names: ``lr``, ``weight_decay``, …
        Of several ``optimizer_0``, ``optimizer_0.lr``, …. A setting in which parameter groups differ is there for each
        group, ``lr.group_0``, or ``lr.head`` where the group has the name ``head``; one that is alike in all is there
        once. ``lr`` is what was set, which a scheduler may have changed since.
    """
    params: dict[str, object] = {}
    for prefix, optimizer in _prefixed(optimizers, "optimizer"):
        params[prefix.rstrip(".") or "optimizer"] = type(optimizer).__name__
        labels, groups = _labels(optimizer), [_settings(group) for group in optimizer.param_groups]
        if len(groups) > 1:
            params[f"{prefix}n_param_groups"] = len(groups)
        for name in dict.fromkeys(name for group in groups for name in group):
            values = [group.get(name, _ABSENT) for group in groups]
            if all(value is not _ABSENT and describe(value) == describe(values[0]) for value in values):
                params[f"{prefix}{name}"] = values[0]
            else:
                params |= {
                    f"{prefix}{name}.{label}": value
                    for label, value in zip(labels, values, strict=True)
                    if value is not _ABSENT
                }
    return params


def learning_rates(optimizers: Sequence[Any]) -> dict[str, Any]:
    """The learning rates of this moment, as they stand in the optimizers: numbers, or tensors that are not read.

    Returns
    -------
    dict
        ``lr`` for one optimizer with one group; ``lr.group_1``, ``optimizer_1.lr`` and so on where there are several.
    """
    rates: dict[str, Any] = {}
    for prefix, optimizer in _prefixed(optimizers, "optimizer"):
        groups = optimizer.param_groups
        labels = _labels(optimizer) if len(groups) > 1 else [""]
        for label, group in zip(labels, groups, strict=True):
            if "lr" in group:
                rates[f"{prefix}lr{'.' if label else ''}{label}"] = group["lr"]
    return rates


def gradient_norm(optimizer: Any, *, scale: Any = None) -> Any:
    """The 2-norm of all gradients that an optimizer holds, as a tensor on their device; None where there are none.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Whose gradients are as it is about to step.
    scale : tensor, optional
        What they are still multiplied by: a fused optimizer divides by a GradScaler's scale while it steps.
    """
    gradients = [p.grad.detach() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return None
    norm = sys.modules["torch"].nn.utils.get_total_norm(gradients)
    return norm if scale is None else norm / scale


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in group.items() if name not in _NOT_SETTINGS}
    if "initial_lr" in group:  # kept there by the first scheduler
        settings["lr"] = group["initial_lr"]
    return settings


def _labels(optimizer: Any) -> list[str]:
    groups = optimizer.param_groups
    names = [str(group.get("name") or f"group_{position}") for position, group in enumerate(groups)]
    return names if len(set(names)) == len(names) else [f"group_{position}" for position in range(len(groups))]


def _prefixed(things: Sequence[Any], word: str) -> Iterator[tuple[str, Any]]:
    """Each with what stands before its names: nothing for one alone."""
    if len(things) == 1:
        yield "", things[0]
        return
    for position, thing in enumerate(things):
        yield f"{word}_{position}.", thing


# -- schedulers --------------------------------------------------------------------------------------------------------


def scheduler_params(schedulers: Sequence[Any]) -> dict[str, object]:
    """The class and the settings of each learning rate scheduler.

    Returns
    -------
    dict
        ``scheduler`` (its class), ``scheduler.step_size``, …; of several ``scheduler_0``, ``scheduler_0.step_size``, ….
        Settings are the arguments of its constructor, as far as the scheduler has kept them.
    """
    params: dict[str, object] = {}
    for prefix, scheduler in _prefixed(schedulers, "scheduler"):
        name = prefix.rstrip(".") or "scheduler"
        params[name] = type(scheduler).__name__
        params |= {f"{name}.{setting}": value for setting, value in _scheduler_settings(scheduler).items()}
    return params


def _scheduler_settings(scheduler: Any) -> dict[str, object]:
    try:
        arguments = inspect.signature(type(scheduler).__init__).parameters
    except (TypeError, ValueError):
        return {}
    settings: dict[str, object] = {}
    for name in arguments:
        if name in _NOT_SCHEDULER_SETTINGS:
            continue
        kept = (getattr(scheduler, spelling, _ABSENT) for spelling in (name, f"{name}s", f"_{name}"))
        value = next((value for value in kept if value is not _ABSENT), _ABSENT)
        if value is not _ABSENT:
            settings[name] = _as_given(value)
    return settings


def _as_given(value: object) -> object:
    """A setting as it was given: milestones as a list, and schedulers in it (of a ChainedScheduler) in words."""
    if isinstance(value, Counter):
        return sorted(value.elements())
    if isinstance(value, list | tuple) and value and all(hasattr(item, "last_epoch") for item in value):
        shown = []
        for item in value:
            settings = ", ".join(f"{name}={describe(setting)}" for name, setting in _scheduler_settings(item).items())
            shown.append(f"{type(item).__name__}({settings})")
        return ", ".join(shown)
    return value


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """How large a model is.

    Attributes
    ----------
    total, trainable : int
        Numbers in its parameters; those that several layers share count once.
    size_bytes : int
        Of its parameters and buffers.
    table : str
        One line for each layer: name, class, parameters of it and of what is in it.
    """

    total: int
    trainable: int
    size_bytes: int
    table: str

    def to_params(self) -> dict[str, object]:
        """The numbers, under the names that they are recorded by."""
        return {
            "n_params": self.total,
            "n_trainable_params": self.trainable,
            "model_size_bytes": self.size_bytes,
        }


def summarize_model(model: Any) -> ModelSummary:
    """Count a ``torch.nn.Module``; a parameter that has no shape yet counts as nothing."""
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    total = sum(_count(parameter) for parameter in parameters)
    trainable = sum(_count(parameter) for parameter in parameters if parameter.requires_grad)
    size_bytes = sum(_count(tensor) * tensor.dtype.itemsize for tensor in tensors)
    return ModelSummary(total, trainable, size_bytes, _table(model, total, trainable, size_bytes))


def _count(tensor: Any) -> int:
    return 0 if _is_uninitialized(tensor) else int(tensor.numel())


def _is_uninitialized(tensor: Any) -> bool:
    return hasattr(tensor, "materialize")  # of a lazy layer before its first batch


def _table(model: Any, total: int, trainable: int, size_bytes: int) -> str:
    rows = [("layer", "class", "params", "trainable")]
    for name, layer in model.named_modules():
        own = list(layer.parameters())
        counted = "not known yet" if any(map(_is_uninitialized, own)) else f"{sum(map(_count, own)):,}"
        frozen = sum(_count(parameter) for parameter in own if not parameter.requires_grad)
        state = "" if not own else "no" if not any(p.requires_grad for p in own) else "partly" if frozen else "yes"
        depth = name.count(".") + 1 if name else 0
        rows.append(("  " * depth + (name.rpartition(".")[2] or "(model)"), type(layer).__name__, counted, state))
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{layer:<{wide[0]}}  {kind:<{wide[1]}}  {counted:>{wide[2]}}  {state:<{wide[3]}}".rstrip()
        for layer, kind, counted, state in rows
    ]
    lines.append("")
    lines.append(f"{total:,} parameters, {trainable:,} of them trainable, {size_bytes:,} bytes with buffers")
    return "\n".join(lines) + "\n"


# -- batches -----------------------------------------------------------------------------------------------------------


def count_samples(batch: Any) -> int | None:
    """How many samples a batch holds: the first dimension of the first tensor in it; None where there is none."""
    shape = getattr(batch, "shape", None)
    if isinstance(shape, tuple):
        return int(shape[0]) if shape else None
    if isinstance(batch, Mapping):
        items: Any = batch.values()
    elif isinstance(batch, list | tuple):
        items = batch
    else:
        return None
    return next((count for item in items if (count := count_samples(item)) is not None), None)


def is_tensor_like(batch: Any) -> bool:
    """Whether ``batch`` has dimensions of which the first is of samples: a graph of PyTorch Geometric has none."""
    return hasattr(batch, "detach") and hasattr(batch, "ndim")


def first_samples(batch: Any, count: int) -> Any:
    """A copy of the first samples of ``batch``, where it is: nothing waits for the device."""
    if is_tensor_like(batch):
        return (batch[:count] if batch.ndim else batch).detach().clone()
    if isinstance(batch, Mapping):
        return {name: first_samples(item, count) for name, item in batch.items()}
    if isinstance(batch, list | tuple):
        kind = list if isinstance(batch, list) else tuple  # a tuple is several arguments, a list is one
        return kind(first_samples(item, count) for item in batch)
    return batch
