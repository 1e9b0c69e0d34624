"""Which data a score was taken on: the same content is the same data, whatever it is called.

Only a digest of overt's own stands for the content. Any other text is a name that somebody gave, and two of them mean
the same data only if they are equal as a whole: ``holdout#2024-06`` says nothing of ``other#2024-06``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from overt.records import StoredDataset

_OWN_DIGEST = re.compile(r"[0-9a-f]{32}")


def identity_of(dataset: str | None) -> str | None:
    """What is equal for equal data; None where ``dataset``, a ``name#digest``, does not say which they are."""
    digest = (dataset or "").rpartition("#")[2]
    if not digest:
        return None
    return digest if _OWN_DIGEST.fullmatch(digest) else dataset


def of_training(datasets: Sequence[StoredDataset]) -> frozenset[str]:
    """Identities of the data that a run's model was fitted to."""
    named = (f"{data.name}#{data.digest}" for data in datasets if data.context == "training")
    return frozenset(identity for name in named if (identity := identity_of(name)))
