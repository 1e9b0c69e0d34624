"""The callback for ``pytorch_lightning``: a real subclass, so that its ``LightningCLI`` takes it."""

from __future__ import annotations

from pytorch_lightning import Callback

from overt.integrations.lightning.callback import TrackingHooks


class TrackingCallback(TrackingHooks, Callback):  # type: ignore[misc]  # mypy reads Lightning's trees as Any
    """Records what a ``pytorch_lightning.Trainer`` trains; see :class:`TrackingHooks` for all that it takes."""
