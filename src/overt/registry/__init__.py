"""Registered models: which version has which name, on whose numbers it got it, and how it is loaded without trust."""

from __future__ import annotations

from overt.registry.loading import load_model as load_model
from overt.registry.promoting import promote as promote
from overt.registry.registering import register as register

__all__ = ["load_model", "promote", "register"]
