"""Runs and points as pandas DataFrames: a row each, columns of one type, no text changed into another number.

Columns are built whole, one list each, so that ten thousand runs take a tenth of a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from overt.optional import require
from overt.records import NOTES_TAG, Metric, RunSummary

if TYPE_CHECKING:
    from pandas import DataFrame

_MACHINERY = ("mlflow.", "overt.")
_WHOLE = re.compile(r"-?[1-9]\d{0,18}|0", re.ASCII)
# Decimal refuses exponents of more than 18 digits; four are one more than a float ever needs
_NUMBER = re.compile(r"-?(?:(?:[1-9]\d*|0)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?|-?inf", re.ASCII)
_BOOLS: Mapping[str | None, Any] = {"True": True, "False": False, None: None}


def runs_frame(runs: Sequence[RunSummary]) -> DataFrame:
    """One row for each run: what every run has, then ``param_…``, ``metric_…`` and ``tag_…`` of those that any has.

    A param's column is whole, float or boolean if all its texts are such numbers or words, and text as recorded if not,
    or if a float would show another number than one of them says.
    Tags of MLflow's and overt's own are left out.
    """
    pandas = require("pandas", extra="pandas")
    columns: dict[str, Any] = {
        "run_id": _texts(pandas, [run.id for run in runs]),
        "run_name": _texts(pandas, [run.name for run in runs]),
        "experiment": _texts(pandas, [run.experiment for run in runs]),
        "status": _texts(pandas, [run.status for run in runs]),
        "start_time": _times(pandas, [run.started_ms for run in runs]),
        "end_time": _times(pandas, [run.ended_ms for run in runs]),
        "notes": _texts(pandas, [run.tags.get(NOTES_TAG, "") for run in runs]),
    }
    params, metrics, tags = [run.params for run in runs], [run.metrics for run in runs], [run.tags for run in runs]
    for name in _union(params):
        columns[f"param_{name}"] = _typed(pandas, [held.get(name) for held in params])
    for name in _union(metrics):
        columns[f"metric_{name}"] = [held.get(name, math.nan) for held in metrics]
    for name in _union(tags):
        if not name.startswith(_MACHINERY):
            columns[f"tag_{name}"] = [held.get(name) for held in tags]
    return pandas.DataFrame(columns)


def points_frame(series: Iterable[tuple[RunSummary, Sequence[Metric]]]) -> DataFrame:
    """One row for each point of each series, in the order given."""
    pandas = require("pandas", extra="pandas")
    rows = [(run, point) for run, points in series for point in points]
    return pandas.DataFrame(
        {
            "run_id": _texts(pandas, [run.id for run, _ in rows]),
            "run_name": _texts(pandas, [run.name for run, _ in rows]),
            "metric": _texts(pandas, [point.name for _, point in rows]),
            "step": pandas.array([point.step for _, point in rows], dtype="int64"),
            "time": _times(pandas, [point.time_ms for _, point in rows]),
            "value": pandas.array([point.value for _, point in rows], dtype="float64"),
        }
    )


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names in the order in which they first come."""
    return list(dict.fromkeys(chain.from_iterable(mappings)))


def _texts(pandas: Any, texts: list[str]) -> Any:
    """A column that is one of texts even if it is empty."""
    return pandas.Series(texts, dtype=str)


def _times(pandas: Any, milliseconds: list[int] | list[int | None]) -> Any:
    whole = pandas.array(milliseconds, dtype="Int64")
    return pandas.to_datetime(pandas.Series(whole), unit="ms", utc=True)


def _typed(pandas: Any, texts: list[str | None]) -> Any:
    """The texts as numbers or booleans if that changes none of them, else as they are. None stays missing."""
    distinct = set(texts)
    some_missing = None in distinct
    known: set[str] = {text for text in distinct if text is not None}
    if known <= _BOOLS.keys():
        return _mapped(pandas, texts, _BOOLS, "boolean" if some_missing else "bool")
    if all(_WHOLE.fullmatch(text) and abs(int(text)) < 2**63 for text in known):
        wholes: dict[str | None, Any] = {text: int(text) for text in known}
        return _mapped(pandas, texts, {**wholes, None: None}, "Int64" if some_missing else "int64")
    if all(_is_float(text) for text in known):
        floats: dict[str | None, Any] = {text: float(text) for text in known}
        return _mapped(pandas, texts, {**floats, None: math.nan}, "float64")
    return texts


def _mapped(pandas: Any, texts: list[str | None], values: Mapping[str | None, Any], dtype: str) -> Any:
    return pandas.array(list(map(values.__getitem__, texts)), dtype=dtype)


def _is_float(text: str) -> bool:
    """Whether the text is a number, and the float that it is read as is shown as that very number."""
    if not _NUMBER.fullmatch(text):
        return False
    shown = repr(float(text))
    return shown == text or Decimal(shown) == Decimal(text)
