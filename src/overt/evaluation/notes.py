"""What could not be computed becomes a sentence in the report: never a warning, never a silence.

scikit-learn and numpy speak of undefined metrics through warnings and errors. Inside :func:`gathered` both
are turned into notes, so an evaluation says everything in the one place that is kept with the run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_MAX_NAMED = 5


class Notes:
    """Sentences in the order in which they came, each of them once."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str) -> None:
        """Keep a sentence, unless it is there already."""
        self._sentences[sentence] = None

    def attempt(self, metric: str, compute: Callable[[], float]) -> float:
        """Return what ``compute`` returns, or NaN and a note where scikit-learn refuses."""
        try:
            return float(compute())
        except (ValueError, TypeError) as error:
            self.add(f"{metric} is undefined: {_first_line(error)}")
            return float("nan")

    @property
    def sentences(self) -> tuple[str, ...]:
        """All sentences so far."""
        return tuple(self._sentences)


@contextmanager
def gathered() -> Iterator[Notes]:
    """Collect notes; warnings raised inside are among them once the block has ended."""
    notes = Notes()
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        notes.add(f"scikit-learn warns: {_first_line(warning.message)}")


def named(names: Sequence[str]) -> str:
    """Join names for a sentence, and say how many there are when they are too many to list."""
    listed = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    rest = len(names) - _MAX_NAMED
    return f"{listed} and {rest:,} more" if rest > 0 else listed


def named_where(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    """Join the names that are chosen, as :func:`named` does."""
    return named([name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen])


def _first_line(message: object) -> str:
    return (str(message).strip().splitlines() or [type(message).__name__])[0]
