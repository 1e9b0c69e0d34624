"""What a recording call accepts, in the form in which it is recorded; for anything else one sentence: expected, got.

Names and paths come out without secrets and without what UTF-8 cannot hold, since they reach the journal as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TypeVar

from overt.capture.params import describe
from overt.capture.secrets import redact, redact_value
from overt.errors import ConfigurationError, RecordError
from overt.journal.codec import MOST_WHOLE, is_safe_path
from overt.records import Cell

T = TypeVar("T")

OWN_FOLDER = "overt"
"""Of a run's artifacts, what overt itself captures: code, packages, environment."""

TRACEBACK_FILE = f"{OWN_FOLDER}/traceback.txt"
"""The one file there that is recorded through :class:`~overt.run.Run`, as any other."""


def recorded_name(call: str, name: object) -> str:
    """``name`` of a metric, param, tag or model."""
    if not isinstance(name, str) or not name:
        raise RecordError(f"{call}: the name must be a text that is not empty (got {name!r})")
    return without_surrogates(redact(name))


def recorded_dataset(dataset: object) -> str:
    """``dataset`` that a metric is a score on."""
    recorded = recorded_name("log_metric", dataset)
    name, mark, digest = recorded.rpartition("#")
    if not (name and mark and digest):
        raise RecordError(
            "log_metric: `dataset` must be 'name#digest', as run.log_dataset returns it; for data of your own any "
            f"version is a digest, such as 'holdout#2024-06' (got {dataset!r})"
        )
    return recorded


def recorded_path(call: str, path: object) -> str:
    """``path`` of a file among the run's artifacts."""
    path = path.as_posix() if isinstance(path, PurePath) else path
    path = without_surrogates(redact(path)) if isinstance(path, str) else path
    if not isinstance(path, str) or not is_safe_path(path):
        raise RecordError(
            f"{call}: an artifact's path must be relative, with '/' between its parts, which have 255 bytes at most, "
            f"and without '..', a backslash, control characters or a drive such as 'C:' (got {path!r})"
        )
    if path.startswith(f"{OWN_FOLDER}/") and path != TRACEBACK_FILE:
        raise RecordError(
            f"{call}: what overt itself records of a run lies in its folder {OWN_FOLDER}/, and would replace a file of "
            f"yours there: choose another folder (got {path!r})"
        )
    return path


def recorded_cell(name: str, value: object) -> Cell:
    """``value`` in the column ``name`` of a table."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    text = redact_value(name, describe(plain))
    is_plain = plain is None or isinstance(plain, bool | float) or (isinstance(plain, int) and abs(plain) <= MOST_WHOLE)
    return plain if is_plain and text == describe(plain) else without_surrogates(text)  # type: ignore[return-value]


def given_pairs(call: str, pairs: Mapping[str, T]) -> Iterable[tuple[str, T]]:
    """Names and values that ``call`` was given at once."""
    if not isinstance(pairs, Mapping):
        raise RecordError(f"{call}: expected a mapping of names to values (got {type(pairs).__name__})")
    return pairs.items()


def to_number(name: str, value: object) -> float:
    """``value`` of the metric ``name``: all that ``float`` takes and that is not text."""
    if isinstance(value, str | bytes):
        raise RecordError(f"log_metric: the value of {name!r} must be a number (got the text {value!r})")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = type(value).__name__
        raise RecordError(f"log_metric: the value of {name!r} must be one number (got a {kind}): {error}") from error


def to_step(name: str, step: object) -> int:
    """``step`` of the metric ``name``: a whole number that databases can hold."""
    try:
        whole = int(step)  # type: ignore[call-overload]
        if whole != step or not -MOST_WHOLE <= whole <= MOST_WHOLE:
            raise ValueError("it is not a whole number of 64 bits")
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"log_metric: the step of {name!r} must be a whole number (got {step!r}): {error}") from error
    return int(whole)


def without_surrogates(text: str) -> str:
    """``text`` without lone surrogates, which no store and no UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def check_details(
    *, experiment: object, run_name: object, tags: object, params: object, notes: object, name_argument: str
) -> None:
    """Refuse what a run cannot be described with, before it is started.

    Raises
    ------
    ConfigurationError
        Naming the argument, what was expected and what came.
    """
    for argument, text in (("experiment", experiment), (name_argument, run_name), ("notes", notes)):
        if not isinstance(text, str | None) or (text == "" and argument != "notes"):
            raise ConfigurationError(f"`{argument}` must be a text (got {text!r}).")
    for argument, given in (("tags", tags), ("params", params)):
        if not isinstance(given, Mapping | None):
            raise ConfigurationError(f"`{argument}` must map names to values (got {type(given).__name__}).")
        wrong = [name for name in given or () if not isinstance(name, str) or not name]
        if wrong:
            raise ConfigurationError(f"`{argument}` must have texts that are not empty as names (got {wrong[0]!r}).")
