"""How much MLflow takes at once, read from MLflow itself so that a newer version's limits apply unasked.

What is too long is shortened in plain sight, and the caller keeps the whole text elsewhere in the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from mlflow.utils import validation

METRICS_PER_BATCH: int = validation.MAX_METRICS_PER_BATCH
PARAMS_PER_BATCH: int = validation.MAX_PARAMS_TAGS_PER_BATCH
TAGS_PER_BATCH: int = validation.MAX_PARAMS_TAGS_PER_BATCH
PARAM_CHARACTERS: int = validation.MAX_PARAM_VAL_LENGTH
TAG_CHARACTERS: int = validation.MAX_TAG_VAL_LENGTH
NAME_CHARACTERS: int = validation.MAX_ENTITY_KEY_LENGTH
EXPERIMENT_NAME_CHARACTERS: int = getattr(validation, "MAX_EXPERIMENT_NAME_LENGTH", 500)
SCHEMA_CHARACTERS: int = getattr(validation, "MAX_DATASET_SCHEMA_SIZE", 1_048_575)
DATASET_TAG_CHARACTERS: int = getattr(validation, "MAX_INPUT_TAG_VALUE_SIZE", 500)

T = TypeVar("T")


def shortened(text: str, most: int, *, whole_in: str) -> str:
    """``text`` if it has at most ``most`` characters, else its beginning and a note of where the whole is."""
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[
        :8
    ]  # texts that differ only later differ
    note = f" … [cut, {len(text):,} characters, sha256 {digest}, whole in {whole_in}]"
    return text[: most - len(note)] + note


def in_slices(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """``items`` in their order, at most ``most`` at a time."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
