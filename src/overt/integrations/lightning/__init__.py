"""``TrackingCallback`` for both trees of Lightning: ``lightning.pytorch`` and ``pytorch_lightning``.

``from overt import TrackingCallback`` gives the subclass of the tree that this process has imported; where it has
imported both or neither, that of ``lightning.pytorch`` if it is installed. The other one is always at hand:
:class:`overt.integrations.lightning.lightning_pytorch.TrackingCallback` and
:class:`overt.integrations.lightning.pytorch_lightning.TrackingCallback`. All that they do is in modules that import
neither tree.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from overt.optional import is_installed, require


def __getattr__(name: str) -> Any:
    if name != "TrackingCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{_tree()}").TrackingCallback


def _tree() -> str:
    has_lightning = "lightning.pytorch" in sys.modules
    if "pytorch_lightning" in sys.modules and not has_lightning:
        return "pytorch_lightning"
    if has_lightning or is_installed("lightning") or not is_installed("pytorch_lightning"):
        require("lightning.pytorch", extra="lightning")
        return "lightning_pytorch"
    return "pytorch_lightning"
