"""Sees the losses of ``torch.nn.functional`` where no loss is among the arguments, through PyTorch's scoped hook.

While the hook is in place every function of torch passes through it, so it is there for some steps only. It lies on
PyTorch's stack below everything that the call itself puts there: no ``with`` of the user's takes it for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import overrides
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

from overt.integrations.torch.observers import Watcher
from overt.run import Run, current_run

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


class FunctionalLosses(TorchFunctionMode):
    """The scoped hook."""

    def __init__(self, watcher: Watcher, run: Run) -> None:
        super().__init__()
        self._run = run  # a call within the call may have one of its own, and its own hook
        self._watcher = watcher
        self._base = 0
        self._is_on = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Let everything through, and tell of losses."""
        output = func(*args, **(kwargs or {}))
        name = _LOSSES.get(func)
        if name is not None and not torch.compiler.is_compiling() and current_run() is self._run:
            self._watcher.loss_computed(name, func, args, kwargs or {}, output)
        return output

    def resume(self) -> None:
        """The call's own code runs from here: what lies on the stack now is not of the call."""
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
        """The call's own code pauses or is over: take it off from wherever it lies."""
        if not self._is_on:
            return
        self._is_on = False
        stack = _stack()
        if self in stack:
            above = [_pop() for _ in stack[stack.index(self) :]]
            for mode in reversed(above[:-1]):
                _push(mode)


def _others() -> list[Any]:
    """What lies on the stack, but for the default device, which PyTorch itself keeps below everything."""
    return [mode for mode in _stack() if not isinstance(mode, DeviceContext)]
