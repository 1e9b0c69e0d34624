"""Records to lines and back, format 1. A line that does not decode to a record in full decodes to nothing at all.

A journal may come from a stranger, so decoding checks every field's type and every path, and builds nothing but the
frozen values of :mod:`overt.records`. Format 1 is one JSON object a line, UTF-8, its kind under ``"t"``. JSON has no
NaN and no infinity: those three metric values are written as the texts ``"nan"``, ``"inf"``, ``"-inf"``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from overt.records import (
    FIRST_ATTEMPT,
    Artifact,
    Attempt,
    Blob,
    Dataset,
    Figure,
    Lost,
    Metric,
    Model,
    Owner,
    Param,
    Record,
    Row,
    RunEnd,
    RunSpec,
    Seal,
    SegmentHead,
    Tag,
)

FORMAT = 1
MOST_WHOLE = 2**63 - 1
"""The largest step: databases hold 64 bits."""
_MOST_MS = 253_402_300_799_999
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{32}")
_END_STATUSES = ("FINISHED", "FAILED", "KILLED")


class BadLine(ValueError):
    """A line is not a record of this format; the message says which field."""


class UnknownFormat(BadLine):
    """A segment was written by another version of overt, whose lines may mean something else."""


def encode_metric(
    name: str, value: float, step: int, time_ms: int, model: str | None = None, dataset: str | None = None
) -> bytes:
    """One metric as a line: the hot path. Budget: 0.7 us."""
    line: dict[str, Any] = {
        "t": "metric",
        "name": name,
        "value": value if value - value == 0.0 else str(value),  # where it is finite
        "step": step,
        "ms": time_ms,
    }
    if model is not None:
        line["model"] = model
    if dataset is not None:
        line["dataset"] = dataset
    return orjson.dumps(line, None, orjson.OPT_APPEND_NEWLINE)


def encode(record: Record | SegmentHead) -> bytes:
    """One record as one line, newline included."""
    return orjson.dumps(_to_line(record), option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Record | SegmentHead:
    """The record that ``line`` holds.

    Raises
    ------
    BadLine
        For anything that is not a whole and valid record.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadLine("not a JSON object")
    kind = fields.get("t")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise BadLine(f"unknown kind {kind!r:.80}")
    try:
        return read(fields)
    except KeyError as error:
        raise BadLine(f"{fields['t']} lacks {error}") from error


def is_key(text: str) -> bool:
    """Whether ``text`` has the form of a run key."""
    return _KEY.fullmatch(text) is not None


def is_safe_path(path: str) -> bool:
    """Whether ``path`` is a relative POSIX path that stays inside the folder it is joined to."""
    parts = path.split("/")
    return (
        0 < len(path.encode("utf-8", "surrogatepass")) <= 1024  # a store puts a folder of its own before it
        and "\\" not in path
        and all(ord(character) >= 32 for character in path)
        and all(part not in ("", ".", "..") for part in parts)
        and all(len(part.encode("utf-8", "surrogatepass")) <= 255 for part in parts)
        and parts[0][1:2] != ":"  # a Windows drive
    )


def _to_line(record: Record | SegmentHead) -> dict[str, Any]:
    match record:
        case Metric():
            value = record.value if math.isfinite(record.value) else str(record.value)
            line = {"t": "metric", "name": record.name, "value": value, "step": record.step, "ms": record.time_ms}
            return line | {k: v for k, v in (("model", record.model), ("dataset", record.dataset)) if v is not None}
        case Param():
            return {"t": "param", "name": record.name, "value": record.value}
        case Tag():
            return {"t": "tag", "name": record.name, "value": record.value}
        case Dataset():
            return {
                "t": "dataset",
                "name": record.name,
                "digest": record.digest,
                "context": record.context,
                "source_type": record.source_type,
                "source": record.source,
                "schema": record.schema,
                "profile": record.profile,
            }
        case Artifact():
            return {"t": "artifact", **_from_artifact(record)}
        case Figure():
            return {"t": "figure", "path": record.path, "kind": record.kind, **_from_blob(record.blob)}
        case Row():
            cells = {
                name: str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell
                for name, cell in record.cells.items()
            }
            return {"t": "row", "path": record.path, "cells": cells, "ms": record.time_ms}
        case Model():
            return {
                "t": "model",
                "name": record.name,
                "flavor": record.flavor,
                "files": [_from_artifact(file) for file in record.files],
                "flavor_fields": record.flavor_fields,
                "pyfunc_fields": record.pyfunc_fields,
                "signature": record.signature,
                "example": record.example,
                "requirements": record.requirements,
                "python_version": record.python_version,
                "created_ms": record.created_ms,
                "model_type": record.model_type,
                "params": record.params,
                "register_as": record.register_as,
            }
        case Lost():
            return {"t": "lost", "count": record.count, "reason": record.reason}
        case RunEnd():
            return {"t": "end", "status": record.status, "ms": record.ended_ms}
        case Seal():
            return {"t": "seal"}
        case SegmentHead():
            spec, owner, attempt = record.spec, record.owner, record.attempt
            further = {"attempt": {"number": attempt.number, "ms": attempt.started_ms}} if attempt.number > 1 else {}
            return {
                "t": "segment",
                "format": record.format,
                **further,
                "owner": {"pid": owner.pid, "started": owner.started, "host": owner.host, "boot": owner.boot},
                "run": {
                    "key": spec.key,
                    "name": spec.name,
                    "experiment": spec.experiment,
                    "started_ms": spec.started_ms,
                    "store": spec.store,
                    "parent_key": spec.parent_key,
                    "joined_run_id": spec.joined_run_id,
                    **({} if spec.experiment_id is None else {"experiment_id": spec.experiment_id}),
                    "tags": spec.tags,
                },
            }


def _from_blob(blob: Blob) -> dict[str, Any]:
    return {"sha256": blob.sha256, "size": blob.size}


def _from_artifact(artifact: Artifact) -> dict[str, Any]:
    return {"path": artifact.path, **_from_blob(artifact.blob)}


# -- reading: each helper takes one field and insists on its type ------------------------------------------------------


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise BadLine(f"{name} must be text (got {type(value).__name__})")
    return value


def _text_or_none(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


def _whole(fields: Mapping[str, Any], name: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadLine(f"{name} must be a whole number (got {type(value).__name__})")
    if not -MOST_WHOLE <= value <= MOST_WHOLE:
        raise BadLine(f"{name} must have 64 bits (got {value})")
    return value


def _time(fields: Mapping[str, Any], name: str) -> int:
    value = _whole(fields, name)
    if not 0 <= value <= _MOST_MS:
        raise BadLine(f"{name} must be milliseconds since 1970, before the year 10000 (got {value})")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields[name]
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadLine(f"{name} must be a number (got {value!r})")
    return float(value)


def _path(fields: Mapping[str, Any], name: str) -> str:
    value = _text(fields, name)
    if not is_safe_path(value):
        raise BadLine(f"{name} must stay inside the run's folder (got {value!r})")
    return value


def _mapping(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields[name]
    if not isinstance(value, dict):
        raise BadLine(f"{name} must be an object (got {type(value).__name__})")
    return value


def _tree(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object with anything in it, though nothing so deep that it cannot be written down again."""
    value = _mapping(fields, name)
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadLine(f"{name} is nested too deeply") from error
    return value


def _tree_or_none(fields: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return None if fields.get(name) is None else _tree(fields, name)


def _texts(fields: Mapping[str, Any], name: str) -> dict[str, str]:
    mapping = _mapping(fields, name)
    return {key: _text(mapping, key) for key in mapping}


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list):
        raise BadLine(f"{name} must be a list (got {type(value).__name__})")
    return value


def _blob(fields: Mapping[str, Any]) -> Blob:
    sha256 = _text(fields, "sha256")
    if not _SHA256.fullmatch(sha256):
        raise BadLine("sha256 must be 64 hexadecimal digits")
    return Blob(sha256, _whole(fields, "size"))


def _artifact(fields: Any) -> Artifact:
    if not isinstance(fields, dict):
        raise BadLine("a file must be an object")
    return Artifact(_path(fields, "path"), _blob(fields))


def _metric(fields: Mapping[str, Any]) -> Metric:
    return Metric(
        _text(fields, "name"),
        _number(fields, "value"),
        _whole(fields, "step"),
        _time(fields, "ms"),
        _text_or_none(fields, "model"),
        _text_or_none(fields, "dataset"),
    )


def _dataset(fields: Mapping[str, Any]) -> Dataset:
    names = ("name", "digest", "context", "source_type", "source", "schema", "profile")
    return Dataset(*(_text(fields, name) for name in names))


def _row(fields: Mapping[str, Any]) -> Row:
    path, cells = _path(fields, "path"), _mapping(fields, "cells")
    if not path.endswith(".csv"):
        raise BadLine(f"the path of a table must end in .csv (got {path!r})")
    for name, cell in cells.items():
        if not isinstance(cell, str | int | float | None):
            raise BadLine(f"cell {name!r} must be a number, a text or nothing (got {type(cell).__name__})")
    return Row(path, cells, _time(fields, "ms"))


def _model(fields: Mapping[str, Any]) -> Model:
    requirements = _list(fields, "requirements")
    if not all(isinstance(line, str) for line in requirements):
        raise BadLine("requirements must be texts")
    return Model(
        name=_path(fields, "name"),
        flavor=_text(fields, "flavor"),
        files=tuple(_artifact(file) for file in _list(fields, "files")),
        flavor_fields=_tree(fields, "flavor_fields"),
        pyfunc_fields=_tree(fields, "pyfunc_fields"),
        signature=_tree_or_none(fields, "signature"),
        example=_tree_or_none(fields, "example"),
        requirements=tuple(requirements),
        python_version=_text(fields, "python_version"),
        created_ms=_time(fields, "created_ms"),
        model_type=_text(fields, "model_type"),
        params=_texts(fields, "params"),
        register_as=_text_or_none(fields, "register_as"),
    )


def _end(fields: Mapping[str, Any]) -> RunEnd:
    status = _text(fields, "status")
    if status not in _END_STATUSES:
        raise BadLine(f"status must be one of {', '.join(_END_STATUSES)} (got {status!r})")
    return RunEnd(status, _time(fields, "ms"))  # type: ignore[arg-type]


def _segment(fields: Mapping[str, Any]) -> SegmentHead:
    if _whole(fields, "format") != FORMAT:
        raise UnknownFormat(f"format {fields['format']} is not known to this version of overt, which reads {FORMAT}")
    run, owner = _mapping(fields, "run"), _mapping(fields, "owner")
    key = _text(run, "key")
    if not is_key(key):
        raise BadLine("key must be 32 hexadecimal digits")
    parent_key = _text_or_none(run, "parent_key")
    if parent_key is not None and not is_key(parent_key):
        raise BadLine("parent_key must be 32 hexadecimal digits")
    spec = RunSpec(
        key=key,
        name=_text(run, "name"),
        experiment=_text(run, "experiment"),
        started_ms=_time(run, "started_ms"),
        store=_text(run, "store"),
        parent_key=parent_key,
        joined_run_id=_text_or_none(run, "joined_run_id"),
        experiment_id=_text_or_none(run, "experiment_id"),
        tags=_texts(run, "tags"),
    )
    return SegmentHead(
        spec,
        Owner(_whole(owner, "pid"), *(_text(owner, name) for name in ("started", "host", "boot"))),
        attempt=_attempt(_mapping(fields, "attempt")) if "attempt" in fields else FIRST_ATTEMPT,
    )


def _attempt(fields: Mapping[str, Any]) -> Attempt:
    number = _whole(fields, "number")
    if number < 2:
        raise BadLine("only an attempt from the second on is written down")
    return Attempt(number, _time(fields, "ms"))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Record | SegmentHead]] = {
    "metric": _metric,
    "param": lambda fields: Param(_text(fields, "name"), _text(fields, "value")),
    "tag": lambda fields: Tag(_text(fields, "name"), _text(fields, "value")),
    "dataset": _dataset,
    "artifact": _artifact,
    "figure": lambda fields: Figure(_path(fields, "path"), _text(fields, "kind"), _blob(fields)),
    "row": _row,
    "model": _model,
    "lost": lambda fields: Lost(_whole(fields, "count"), _text(fields, "reason")),
    "end": _end,
    "seal": lambda fields: Seal(),
    "segment": _segment,
}
