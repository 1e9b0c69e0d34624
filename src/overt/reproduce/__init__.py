"""Builds again what a run was: what that takes is read from the store alone, and what cannot be had again is said.

:func:`plan` only looks. :func:`apply` writes one folder, new and apart: the repository's own work tree, index, HEAD,
branches and stashes stay as they are, and nothing of what was recorded is run.
"""

from __future__ import annotations

from overt.reproduce.applying import Rebuilt as Rebuilt
from overt.reproduce.applying import apply as apply
from overt.reproduce.planning import Plan as Plan
from overt.reproduce.planning import plan as plan

__all__ = ["Plan", "Rebuilt", "apply", "plan"]
