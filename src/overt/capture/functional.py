"""Sees the losses of ``torch.nn.functional`` through PyTorch's own scoped hook; loss modules call them as well.

While the hook is in place every function of torch passes through it, so whoever puts it there takes it off again soon.
It lies on PyTorch's stack below everything that the code it watches puts there: no ``with`` of the user's takes it for
its own. This is the one module below the integrations that imports torch: import it only where torch is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn, overrides
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

_stack: Callable[[], list[Any]] = overrides._get_current_function_mode_stack
_push: Callable[[Any], None] = overrides._push_mode
_pop: Callable[[], Any] = overrides._pop_mode

_NAMES = (
    "binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy ctc_loss "
    "gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss "
    "multilabel_margin_loss multilabel_soft_margin_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss "
    "triplet_margin_loss triplet_margin_with_distance_loss"
).split()
_LOSSES: Mapping[Any, str] = {getattr(functional, name): name for name in _NAMES}

_WITH_FAST_PATHS = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)

Told = Callable[[str, Any, tuple[Any, ...], Mapping[str, Any], Any], None]
"""Called with a loss's name, the function, its arguments by position and by name, and its value. It must not raise."""


class LossMode(TorchFunctionMode):
    """The scoped hook: tells ``tell`` of each loss that is computed while it is on, and changes none."""

    def __init__(self, tell: Told) -> None:
        super().__init__()
        self._tell = tell
        self._base = 0
        self._is_on = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Let everything through, and tell of losses."""
        output = func(*args, **(kwargs or {}))
        name = _LOSSES.get(func)
        if name is not None and not torch.compiler.is_compiling():
            self._tell(name, func, args, kwargs or {}, output)
        return output

    def resume(self) -> None:
        """The watched code runs from here: what lies on the stack now is not of it."""
        self._base = len(_others())
        self.set(True)

    def set(self, is_on: bool) -> None:
        """Put it on or take it off, where nothing of the user's would come into disorder."""
        if is_on and not self._is_on and len(_others()) == self._base:
            _push(self)
            self._is_on = True
        elif not is_on and self._is_on and _stack()[-1:] == [self]:
            _pop()
            self._is_on = False

    def suspend(self) -> None:
        """The watched code pauses or is over: take it off from wherever it lies."""
        if not self._is_on:
            return
        self._is_on = False
        stack = _stack()
        if self in stack:
            above = [_pop() for _ in stack[stack.index(self) :]]
            for mode in reversed(above[:-1]):
                _push(mode)


def is_changed_by_modes(model: nn.Module) -> bool:
    """Whether a mode on the stack may change how ``model`` computes: what is compiled would be compiled once more."""
    return has_fast_paths(model) or is_compiled(model)


def has_fast_paths(model: nn.Module) -> bool:
    """Whether a mode on the stack may change the last bits of what ``model`` computes in evaluation.

    PyTorch's fast paths for attention give way to any mode (torch/nn/modules/transformer.py, ``has_torch_function``).
    """
    return any(isinstance(module, _WITH_FAST_PATHS) for module in model.modules())


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of ``model`` is compiled."""
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        or getattr(module, "_compiler_ctx", None) is not None  # where Lightning remembers it
        for module in model.modules()
    )


def _others() -> list[Any]:
    """What lies on the stack, but for the default device, which PyTorch itself keeps below everything."""
    return [mode for mode in _stack() if not isinstance(mode, DeviceContext)]
