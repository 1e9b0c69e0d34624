"""A run as one JSON object: the line of ``runs.jsonl``, in the fields of the source document's own tracker.

``run_id experiment run_name timestamp params metrics tags artifacts`` are the document's; ``status started_ms ended_ms
datasets models`` are ours. A line of the document's, or of anybody who writes these fields, reads as well.

A param is a number, a truth value or null where that reads back as the same text, else a text. JSON has no NaN and no
infinity: a metric that is none is one of the texts ``"nan"``, ``"inf"``, ``"-inf"``. Python's own ``NaN`` is read too,
and a metric that is null is one that the run has not.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from overt.journal.codec import is_key, is_safe_path
from overt.records import RunSummary
from overt.stores.runfile import RunState

LINE_START = b'{"run_id"'
"""How a line begins, ours and the document's: by this, half a line of a writer that died is told from others' text."""

_OURS = {
    *("run_id", "experiment", "run_name", "timestamp", "params", "metrics", "tags", "artifacts"),
    *("status", "started_ms", "ended_ms", "datasets", "models"),
}
_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_IS_TEXT, _IS_FLOAT, _PLAIN = {str}, {float}, {int, float, bool, type(None)}


class NotARun(ValueError):
    """A line is not a run; the message says why."""


def to_line(state: RunState, artifacts: Iterable[str]) -> bytes:
    """The line of a run, newline included."""
    spec = state.spec
    fields: dict[str, Any] = {
        "run_id": spec.key,
        "experiment": spec.experiment,
        "run_name": spec.name,
        "timestamp": timestamp(spec.started_ms),
        "status": state.status,
        "params": {name: typed(text) for name, text in state.params.items()},
        "metrics": {name: number_or_text(point.value) for name, point in state.last.items()},
        "tags": state.tags,
        "artifacts": list(artifacts),
        "started_ms": spec.started_ms,
        "ended_ms": state.ended_ms,
    }
    if state.datasets:
        fields["datasets"] = [
            {"name": data.name, "digest": data.digest, "context": data.context} for data in state.datasets
        ]
    if state.models:
        fields["models"] = list(state.models)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes) -> RunSummary:
    """The run that a line is about.

    Raises
    ------
    NotARun
        When it is about none.
    """
    return from_fields(read_fields(line))


def read_fields(line: bytes) -> dict[str, Any]:
    """What a line says, whatever it is about; NotARun if it says nothing."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        fields = _with_nan(line)
    if not isinstance(fields, dict):
        raise NotARun("it is not a JSON object")
    return fields


def from_fields(fields: Mapping[str, Any]) -> RunSummary:
    """The run that a line with these fields is about; NotARun if it is about none."""
    try:
        is_ours = "started_ms" in fields
        tags = fields.get("tags", {})
        if not is_ours:
            tags = {**tags, **{key: value for key, value in fields.items() if key not in _OURS}}
        return RunSummary(
            id=_id(fields["run_id"]),
            name=_text(fields["run_name"]),
            experiment=_text(fields["experiment"]),
            status=_text(fields.get("status", "FINISHED")),
            started_ms=_whole(fields["started_ms"]) if is_ours else to_milliseconds(fields["timestamp"]),
            ended_ms=None if fields.get("ended_ms") is None else _whole(fields["ended_ms"]),
            key=fields["run_id"] if is_ours and is_key(fields["run_id"]) else None,
            metrics=_numbers(fields["metrics"]),
            params=_texts(fields["params"]),
            tags=_texts(tags),
        )
    except KeyError as error:
        raise NotARun(f"it lacks {error}") from error
    except (AttributeError, TypeError) as error:
        raise NotARun("its params, metrics and tags must each be an object") from error


def _texts(values: Mapping[str, Any]) -> Mapping[str, str]:
    """Params and tags as texts; budget: 3 us for twenty, since a store may hold ten thousand times as many."""
    if set(map(type, values.values())) <= _IS_TEXT:
        return values
    return {
        name: value if type(value) is str else str(value) if type(value) in _PLAIN else as_text(value)
        for name, value in values.items()
    }


def _numbers(values: Mapping[str, Any]) -> Mapping[str, float]:
    if set(map(type, values.values())) <= _IS_FLOAT:
        return values
    return {name: _float(name, value) for name, value in values.items() if value is not None}


def typed(text: str) -> Any:
    """What ``text`` says, if it is a number, a truth value or None that is written in exactly these letters."""
    if len(text) > 24 or not (text[:1] in "-0123456789" or text in ("True", "False", "None")):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    is_kept = value is None or (type(value) in (int, float, bool) and abs(value) < 2**53)
    return value if is_kept and str(value) == text else text


def as_text(value: Any) -> str:
    """A value of a param as the text that it was recorded as; of what was not recorded by us, as JSON."""
    if isinstance(value, str):
        return value
    return str(value) if value is None or isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def number_or_text(value: float) -> float | str:
    """``value`` as JSON has it."""
    return value if math.isfinite(value) else str(value)


def timestamp(ms: int) -> str:
    """A time as text, in this machine's zone and with its offset."""
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(timespec="milliseconds")


def to_milliseconds(text: object) -> int:
    """When ``text`` says; without an offset it is meant in this machine's zone."""
    try:
        return _whole(round(datetime.fromisoformat(_text(text)).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise NotARun(f"its timestamp must be a time such as 2026-02-14T09:30:00 (got {text!r:.60})") from error


def _with_nan(line: bytes) -> Any:
    """``line`` read by Python's own reader, which takes the NaN and Infinity that Python's own writer writes."""
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is a text that nothing can write again
    except (ValueError, RecursionError) as error:
        raise NotARun(f"it is not JSON: {error}") from error
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise NotARun(f"its run_id, experiment, run_name, status and timestamp must be texts (got {value!r:.60})")
    return value


def _id(value: object) -> str:
    text = _text(value)
    if not is_id(text):
        raise NotARun(f"its run_id must be one that a file can be named by (got {text!r:.60})")
    return text


def is_id(text: str) -> bool:
    """Whether ``text`` names a file in the folder that it is joined to. Budget: 1 us, for there is one in each line."""
    return _PLAIN_ID.fullmatch(text) is not None or ("/" not in text and is_safe_path(text))


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise NotARun(f"its started_ms and ended_ms must be milliseconds since 1970 (got {value!r:.60})")
    return value


def _float(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise NotARun(f"its metric {name} must be a number (got {value!r:.60})") from error
