"""The signature and input example of a model, letter for letter as MLflow would infer them, without MLflow.

Importing MLflow takes a second that the training process has no reason to spend, and a signature is only JSON: types by
column or a tensor's dtype and shape. What MLflow itself cannot type it calls ``any``, and so does this module. The
rules, odd corners included, are those of ``mlflow.types.utils`` 3.17; the tests compare the two case by case.

Missing values are looked for in whole columns at once where pandas can say: a column of a million floats takes a
millisecond that way, and a second item by item.
"""

from __future__ import annotations

import base64
import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from overt.capture.digest import is_sparse

Type = dict[str, Any]
"""A type in MLflow's JSON: ``{"type": "double"}``, ``{"type": "array", "items": …}``, ``{"type": "object", …}``."""

_ANY: Type = {"type": "any"}
_UNTYPED: list[dict[str, Any]] = [{"type": "any", "required": True}]
_MAX_EXAMPLE_CELLS = 100_000


class _UntypableError(Exception):
    """MLflow has no type for this value."""


def signature(inputs: object, outputs: object = None) -> dict[str, str | None] | None:
    """What ``mlflow.models.infer_signature(inputs, outputs).to_dict()`` gives.

    Parameters
    ----------
    inputs, outputs : array, DataFrame, Series, sparse matrix, list, dict or scalar
        What the model was fitted on and what it predicts.

    Returns
    -------
    dict or None
        ``inputs`` and ``outputs`` as JSON text or None, ``params`` None. None as a whole where both are None, and for
        what MLflow refuses to write (column names that are no JSON) or reads by rules of their own (dataclasses).
    """
    if inputs is None and outputs is None:
        return None
    try:
        return {"inputs": _schema_json(inputs), "outputs": _schema_json(outputs), "params": None}
    except Exception:  # noqa: BLE001 - MLflow says `any` to whatever fails
        return None


def schema(value: object) -> list[dict[str, Any]] | None:
    """The columns (``colspec``) or the tensor (``tensor-spec``) of ``value`` in MLflow's JSON; None without a type."""
    try:
        specs = _infer(value)
        json.dumps(specs)
    except Exception:  # noqa: BLE001 - MLflow says `any` to whatever fails
        return None
    return specs


def _schema_json(value: Any) -> str | None:
    if value is None:
        return None
    if hasattr(type(value), "__dataclass_fields__") or hasattr(type(value), "model_fields"):
        raise _UntypableError(type(value))
    try:
        specs = _infer(value)
    except Exception:  # noqa: BLE001 - MLflow says `any` to whatever fails
        specs = _UNTYPED
    return json.dumps(specs)


# --- containers -------------------------------------------------------------------------------------------------------


def _infer(value: Any) -> list[dict[str, Any]]:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if isinstance(value, list):
        specs = _infer_list(value)
    elif isinstance(value, dict):
        specs = _infer_dict(value)
    elif pandas is not None and isinstance(value, pandas.Series):
        specs = [_column(value.name, _pandas_type(value), _is_complete(value))]
    elif pandas is not None and isinstance(value, pandas.DataFrame):
        specs = [_column(name, _pandas_type(value[name]), _is_complete(value[name])) for name in value.columns]
    elif numpy is not None and isinstance(value, numpy.ndarray):
        specs = [_tensor(value.dtype, value.shape)]
    elif is_sparse(value):
        specs = [_tensor(_compressed(value).data.dtype, value.shape)]
    else:
        specs = [_column(None, _determined(_value_type(value)), True)]
    return _checked(specs)


def _checked(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    are_named = [spec.get("name") is not None for spec in specs]
    if not specs or any(are_named) != all(are_named):
        raise _UntypableError("no columns, or only some of them named")
    if not any(are_named) and any(spec.get("required") is False for spec in specs):
        raise _UntypableError("unnamed optional columns")
    return specs


def _column(name: object, kind: Type, is_required: bool) -> dict[str, Any]:
    return {**kind, **({} if name is None else {"name": name}), "required": is_required}


def _tensor(dtype: Any, shape: Sequence[int], name: object = None) -> dict[str, Any]:
    if not shape:
        raise _UntypableError("no dimension that could vary")
    type_name = {"U": "str", "S": "bytes"}.get(dtype.char, dtype.name)
    tensor = {"type": "tensor", "tensor-spec": {"dtype": type_name, "shape": [-1, *shape[1:]]}}
    return tensor if name is None else {"name": name, **tensor}


def _compressed(matrix: Any) -> Any:
    sparse = sys.modules["scipy.sparse"]
    if not isinstance(matrix, (sparse.csr_matrix, sparse.csc_matrix)):  # MLflow knows no other, nor their array twins
        raise _UntypableError(type(matrix))
    return matrix


def _infer_list(value: list[Any]) -> list[dict[str, Any]]:
    if not value:
        return [_column(None, {"type": "string"}, True)]
    if not all(isinstance(item, dict) for item in value):
        return [_column(None, _item_type(value), True)]
    columns: dict[Any, list[Any]] = {}
    for row in value:
        for name, item in row.items():
            columns.setdefault(name, []).append(item)
    return [
        _column(name, _item_type(items), all(row.get(name) is not None for row in value))
        for name, items in columns.items()
    ]


def _infer_dict(value: dict[Any, Any]) -> list[dict[str, Any]]:
    numpy = sys.modules.get("numpy")
    if numpy is not None and all(isinstance(item, numpy.ndarray) for item in value.values()):
        return [_tensor(item.dtype, item.shape, name) for name, item in value.items()]
    if not all(isinstance(name, str) for name in value):
        raise _UntypableError("keys that are not text")
    return [_column(name, _determined(_value_type(item)), _has_all(item)) for name, item in value.items()]


def _has_all(item: Any) -> bool:
    if isinstance(item, list):
        return not any(map(_is_missing, item))
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(item, pandas.Series):
        return _is_complete(item)
    return not _is_missing(item)


# --- pandas -----------------------------------------------------------------------------------------------------------


def _pandas_type(column: Any) -> Type:
    pandas = sys.modules["pandas"]
    if not isinstance(column, pandas.Series):  # two columns of one name
        raise _UntypableError(type(column))
    if column.dtype.kind == "O":
        column = column.infer_objects()
    if column.dtype.kind != "O":
        return _dtype_type(column.dtype)
    try:
        return _item_type(column.to_list())
    except _UntypableError:
        if pandas.api.types.is_string_dtype(column):
            return {"type": "string"}
        raise


def _dtype_type(dtype: Any) -> Type:
    kind, size = dtype.kind, dtype.itemsize
    if kind in "iu" and (size < 4 or (kind == "i" and size == 4)):
        return {"type": "integer"}
    if kind in "iu" and (size < 8 or kind == "i"):
        return {"type": "long"}
    if kind == "f" and size <= 8:
        return {"type": "float" if size <= 4 else "double"}
    if kind in "bUSM":
        return {"type": {"b": "boolean", "U": "string", "S": "binary", "M": "datetime"}[kind]}
    raise _UntypableError(dtype)


def _is_complete(column: Any) -> bool:
    pandas, dtype = sys.modules["pandas"], column.dtype
    # pandas counts more as missing than MLflow does among Python objects (Decimal("NaN")), and less in Float64 (NaN).
    is_plain = dtype.kind in "biufcM" and not hasattr(dtype, "numpy_dtype")
    if is_plain or isinstance(dtype, (pandas.StringDtype, pandas.CategoricalDtype)):
        return not bool(column.isna().any())
    return not any(map(_is_missing, column))


# --- values -----------------------------------------------------------------------------------------------------------


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    pandas = sys.modules.get("pandas")
    return value is None or (pandas is not None and (value is pandas.NA or value is pandas.NaT))


def _determined(kind: Type | None) -> Type:
    if kind is None:
        raise _UntypableError("an empty array has no type")
    return kind


def _item_type(items: Iterable[Any]) -> Type:
    """The one type that all items share."""
    array = _determined(_array_type(items))
    item: Type = array["items"]
    return item


def _value_type(value: Any) -> Type | None:
    numpy = sys.modules.get("numpy")
    if _is_missing(value) or (isinstance(value, (list, dict)) and not value):
        return _ANY
    if isinstance(value, dict):
        return _object_type(value)
    if isinstance(value, list) or (numpy is not None and isinstance(value, numpy.ndarray)):
        return _array_type(value)
    return _scalar_type(type(value))


def _scalar_type(kind: type) -> Type:
    name = _scalar_types().get(kind)
    if name is None:
        raise _UntypableError(kind)
    return {"type": name}


def _scalar_types() -> dict[type, str]:
    types: dict[type, str] = {bool: "boolean", int: "long", float: "double", str: "string", object: "string"}
    types |= {bytes: "binary", bytearray: "binary", datetime.date: "datetime", datetime.datetime: "datetime"}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        types |= {numpy.bool_: "boolean", numpy.int64: "long", numpy.int32: "integer", numpy.float64: "double"}
        types |= {numpy.float32: "float", numpy.str_: "string", numpy.bytes_: "binary", numpy.datetime64: "datetime"}
    return types


def _object_type(value: dict[Any, Any]) -> Type:
    properties = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise _UntypableError("keys that are not text")
        kind = _determined(_value_type(item))
        properties[name] = {**kind, "required": kind != _ANY}
    return {"type": "object", "properties": dict(sorted(properties.items()))}


def _array_type(items: Any) -> Type | None:
    numpy = sys.modules.get("numpy")
    if isinstance(items, list):
        kinds = set(map(type, items))
        if len(kinds) == 1 and kinds <= {bool, int, str, bytes}:  # no need to look at each: none of them is missing
            return {"type": "array", "items": _scalar_type(kinds.pop())}
    elif numpy is not None and isinstance(items, numpy.ndarray) and items.size and items.dtype.kind in "biufUS":
        return _plain_array_type(items)
    result: Type | None = None
    for item in items:
        kind = _value_type(item)
        if kind is None:
            continue
        if result is None:
            result = kind
        elif result["type"] in ("array", "object", "any"):
            result = _merged(result, kind)
        elif kind not in (result, _ANY):
            raise _UntypableError("items of several types")
    return None if result is None else {"type": "array", "items": result}


def _plain_array_type(items: Any) -> Type:
    is_all_missing = items.dtype == "float64" and bool((items != items).all())
    if not is_all_missing and items.ndim > 1 and items.dtype == "float64":
        return _nested([_determined(_array_type(row)) for row in items])
    kind: Type = _ANY if is_all_missing else _scalar_type(items.dtype.type)
    for _ in range(items.ndim):
        kind = {"type": "array", "items": kind}
    return kind


def _nested(kinds: list[Type]) -> Type:
    result = kinds[0]
    for kind in kinds[1:]:
        result = _merged(result, kind)
    return {"type": "array", "items": result}


def _merged(one: Type, other: Type) -> Type:
    """The type that holds values of both; an ``any`` gives way and makes properties optional."""
    if one == _ANY and other != _ANY:
        one, other = other, one
    if other == _ANY and one["type"] == "object":
        return _merged_objects(one["properties"], {})
    if other == _ANY or one == other:
        return one
    if one["type"] != other["type"]:
        raise _UntypableError(f"{one['type']} and {other['type']}")
    if one["type"] == "array":
        return {"type": "array", "items": _merged(one["items"], other["items"])}
    if one["type"] == "object":
        return _merged_objects(one["properties"], other["properties"])
    raise _UntypableError(one["type"])


def _merged_objects(one: dict[str, Type], other: dict[str, Type]) -> Type:
    properties = {}
    for name in sorted({*one, *other}):
        if name in one and name in other:
            kinds = [{key: part for key, part in side[name].items() if key != "required"} for side in (one, other)]
            is_required = one[name]["required"] and other[name]["required"]
            properties[name] = {**_merged(*kinds), "required": is_required}
        else:
            properties[name] = {**(one.get(name) or other[name]), "required": False}
    return {"type": "object", "properties": properties}


# --- the input example ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InputExample:
    """The first rows of the training data in the files that MLflow lays beside a model.

    Attributes
    ----------
    data : bytes
        Content of ``input_example.json``.
    serving : bytes
        Content of ``serving_input_example.json``.
    info : dict
        The field ``saved_input_example_info`` of the MLmodel.
    """

    data: bytes
    serving: bytes
    info: dict[str, str]


def input_example(value: Any, rows: int = 5) -> InputExample | None:
    """The first ``rows`` rows of ``value``; fewer where they would be more than 100,000 numbers.

    Parameters
    ----------
    value : ndarray, DataFrame, csr_matrix, csc_matrix or list
        Only these rows are ever copied; those of a sparse matrix become dense in ``serving``, as in MLflow.
    rows : int

    Returns
    -------
    InputExample or None
        None for other kinds, for values that are no JSON, and where a single row is too wide.
    """
    try:
        return _input_example(value, rows)
    except Exception:  # noqa: BLE001 - MLflow says `any` to whatever fails
        return None


def _input_example(value: Any, rows: int) -> InputExample | None:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    width = 1
    for size in getattr(value, "shape", ())[1:]:
        width *= size
    rows = min(rows, _MAX_EXAMPLE_CELLS // max(1, width))
    if rows == 0:
        return None
    info: dict[str, str] = {"artifact_path": "input_example.json"}
    data: Any
    if pandas is not None and isinstance(value, pandas.DataFrame):
        data = _split(value.iloc[:rows])
        info |= {"type": "dataframe", "pandas_orient": "split" if "columns" in data else "values"}
        serving: dict[str, Any] = {"dataframe_split": data}
    elif numpy is not None and isinstance(value, numpy.ndarray):
        data = _without_nan(value[:rows]).tolist()
        info["type"] = "ndarray"
        serving = {"inputs": data}
    elif is_sparse(value):
        head = _compressed(value)[:rows]
        info["type"] = f"sparse_matrix_{head.format}"
        data = {
            "data": _without_nan(head.data).tolist(),
            "indices": head.indices.tolist(),
            "indptr": head.indptr.tolist(),
            "shape": list(head.shape),
        }
        serving = {"inputs": head.toarray()}
    elif isinstance(value, list):
        data = value[:rows]
        if _holds_array(data):
            return None
        info["type"] = "json_object"
        serving = {"inputs": data}
    else:
        return None
    info["serving_input_path"] = "serving_input_example.json"
    return InputExample(
        json.dumps(data, default=_to_json).encode(), json.dumps(serving, default=_to_json, indent=2).encode(), info
    )


def _split(frame: Any) -> dict[str, Any]:
    split: dict[str, Any] = frame.where(frame.notnull(), None).to_dict(orient="split")
    del split["index"]
    if list(frame.columns) == list(range(len(frame.columns))):
        del split["columns"]
    return split


def _without_nan(value: Any) -> Any:
    numpy = sys.modules["numpy"]
    return numpy.where(numpy.isnan(value), None, value) if numpy.issubdtype(value.dtype, numpy.number) else value


def _holds_array(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_holds_array, value.values() if isinstance(value, dict) else value))
    return isinstance(value, sys.modules["numpy"].ndarray) if "numpy" in sys.modules else False


def _to_json(value: Any) -> Any:
    """What JSON does not know, as MLflow's ``NumpyEncoder`` writes it."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist() if isinstance(value, numpy.ndarray) else value.item()
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
