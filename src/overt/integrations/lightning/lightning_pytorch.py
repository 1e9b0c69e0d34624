"""The callback for ``lightning.pytorch``: a real subclass, so that ``LightningCLI`` takes it."""

from __future__ import annotations

from lightning.pytorch import Callback

from overt.integrations.lightning.callback import TrackingHooks


class TrackingCallback(TrackingHooks, Callback):  # type: ignore[misc]  # mypy reads Lightning's trees as Any
    """Records what a ``lightning.pytorch.Trainer`` trains; see :class:`TrackingHooks` for all that it takes."""
