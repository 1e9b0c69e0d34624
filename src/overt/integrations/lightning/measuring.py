"""What overt itself measures of a step and an epoch. Nothing here waits for a device, or resets what it counts."""

from __future__ import annotations

import sys
from typing import Any

from overt.capture import training
from overt.integrations.lightning.described import is_a

_MEGABYTE = 1e6
_SHARDING = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
_MEMORY = {
    "device_memory_peak_megabytes": "max_memory_allocated",
    "device_memory_megabytes": "memory_allocated",
}


def gradient_norm(trainer: Any, optimizer: Any) -> dict[str, Any]:
    """The norm of all gradients that ``optimizer`` holds, on their device; nothing where there are none.

    Raises
    ------
    NotImplementedError
        Where each rank holds a part of the gradients: their norm would be a wait for all ranks.
    """
    if any(is_a(trainer.strategy, name) for name in _SHARDING):
        raise NotImplementedError(f"under {type(trainer.strategy).__name__} no rank has all gradients")
    norm = training.gradient_norm(optimizer, scale=_scale_of_gradients(trainer, optimizer))
    if norm is None:
        return {}
    several = len(trainer.optimizers) > 1
    suffix = f"_optimizer_{trainer.optimizers.index(optimizer)}" if several else ""
    return {f"grad_norm{suffix}_step": norm}


def _scale_of_gradients(trainer: Any, optimizer: Any) -> Any:
    """What gradients are still multiplied by when Lightning shows them: a fused optimizer divides while it steps."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return scaler._get_scale_async()  # get_scale() would wait for the device


def device_memory(device: Any) -> dict[str, float]:
    """Megabytes that tensors take on ``device``, now and at most so far; nothing for one that does not count them."""
    counters = getattr(sys.modules["torch"], device.type, None)
    readers = {name: getattr(counters, reader, None) for name, reader in _MEMORY.items()}
    return {name: read(device) / _MEGABYTE for name, read in readers.items() if read is not None}
