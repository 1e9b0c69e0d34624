"""``track_training``: a plain PyTorch loop, recorded through PyTorch's own hooks and transparent observers.

Nothing of the user's is changed for good: every hook and observer is there for the call and gone when it returns, and
the weights that come out are those of the undecorated loop to the last bit.
"""

from __future__ import annotations

from overt.optional import require

for _needed in ("torch", "wrapt"):
    require(_needed, extra="torch")
