"""Sees the losses of ``torch.nn.functional`` where no loss is among the arguments; for some steps only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overt.capture.functional import LossMode
from overt.integrations.torch.observers import Watcher
from overt.run import Run, current_run


class FunctionalLosses(LossMode):
    """The scoped hook of one call: a call within it may have a run of its own, and its own hook."""

    def __init__(self, watcher: Watcher, run: Run) -> None:
        def tell(name: str, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
            if current_run() is run:
                watcher.loss_computed(name, function, args, kwargs, output)

        super().__init__(tell)
