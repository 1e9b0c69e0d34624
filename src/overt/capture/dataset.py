"""The data of a run as MLflow shows it: name, digest, schema and profile; never the data itself.

Two runs saw the same data exactly if their digests are equal: every value, dtype, shape and column name counts, and so
does the target. The digest comes from :mod:`overt.capture.digest`, so nothing is copied, densified or pickled, and
describing 100 MB takes less than a tenth of a second. Schema and profile have the form of MLflow's own dataset classes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from overt.capture.digest import digest, is_sparse
from overt.capture.reprs import stable_repr
from overt.capture.signature import schema


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a run was trained or evaluated on.

    Attributes
    ----------
    name : str
        Such as ``"train"`` or ``"test"``.
    digest : str
        Content hash of features and targets, 32 hexadecimal digits.
    rows, columns : int or None
        Of the features; columns is None unless they have two dimensions.
    kind : str
        ``"pandas"``, ``"numpy"``, ``"sparse"``, ``"list"``, or the class name of another kind of data.
    schema : dict or None
        ``{"mlflow_colspec": […]}`` of a table (a target with a name of its own is its last column), or
        ``{"mlflow_tensorspec": {"features": …, "targets": …}}`` with JSON texts. None where MLflow has no type for it.
    profile : dict
        ``num_rows`` and ``num_elements`` of a table; shapes, sizes and bytes of arrays.
    """

    name: str
    digest: str
    rows: int | None
    columns: int | None
    kind: str
    schema: dict[str, Any] | None
    profile: dict[str, Any]


def dataset(X: object, y: object = None, *, name: str) -> Dataset:
    """Describe features and, where given, targets. Never raises; what cannot be read is None.

    Parameters
    ----------
    X : array, DataFrame, sparse matrix, list or any other data
    y : same, optional
    name : str

    Examples
    --------
    >>> dataset([[1, 2], [3, 4]], [0, 1], name="train").rows
    2
    """
    shape = _shape(X)
    return Dataset(
        name=name,
        digest=_digest(X, y),
        rows=shape[0] if shape else None,
        columns=shape[1] if len(shape) == 2 else None,
        kind=_kind(X),
        schema=_schema(X, y),
        profile=_profile(X, y),
    )


def _digest(X: object, y: object) -> str:
    try:
        return digest(X) if y is None else digest(X, "targets", y)
    except Exception:  # noqa: BLE001 - data that changes or refuses while it is read: its repr is the best there is
        return digest(type(X).__qualname__, stable_repr(X), stable_repr(y))


def _kind(X: object) -> str:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if pandas is not None and isinstance(X, (pandas.DataFrame, pandas.Series)):
        return "pandas"
    if numpy is not None and isinstance(X, numpy.ndarray):
        return "numpy"
    if is_sparse(X):
        return "sparse"
    return "list" if isinstance(X, (list, tuple)) else type(X).__name__


def _shape(X: Any) -> tuple[int, ...]:
    try:
        shape = getattr(X, "shape", None)
        if shape is not None:
            return tuple(int(size) for size in shape)
        if not isinstance(X, (list, tuple)):
            return ()
        widths = {len(row) if isinstance(row, (list, tuple)) else None for row in X}
        return (len(X), *(width for width in widths if len(widths) == 1 and width is not None))
    except Exception:  # noqa: BLE001 - data may be of any class
        return ()


def _schema(X: Any, y: Any) -> dict[str, Any] | None:
    features = schema(X)
    if features is None and is_sparse(X):
        features = _tensor_schema(X)
    if features is None:
        return None
    targets = None if y is None else schema(y)
    if features[0]["type"] == "tensor":
        texts = {"features": json.dumps(features), "targets": json.dumps(targets) if targets else None}
        return {"mlflow_tensorspec": texts}
    names = {spec.get("name") for spec in features}
    named = [spec for spec in targets or () if spec.get("name") is not None and spec["name"] not in names]
    return {"mlflow_colspec": features + (named if None not in names else [])}


def _tensor_schema(X: Any) -> list[dict[str, Any]] | None:
    """The tensor of a sparse format that MLflow does not know, in the words that it has for those it does."""
    try:
        shape = [-1, *(int(size) for size in X.shape[1:])]
        return [{"type": "tensor", "tensor-spec": {"dtype": X.dtype.name, "shape": shape}}]
    except Exception:  # noqa: BLE001 - data may be of any class
        return None


def _profile(X: Any, y: Any) -> dict[str, Any]:
    try:
        if _kind(X) == "pandas":
            return {"num_rows": len(X), "num_elements": int(X.size)}
        return _array_profile("features", X) | ({} if y is None else _array_profile("targets", y))
    except Exception:  # noqa: BLE001 - data may be of any class
        return {}


def _array_profile(part: str, value: Any) -> dict[str, Any]:
    shape = _shape(value)
    profile: dict[str, Any] = {f"{part}_shape": list(shape)} if shape else {}
    if is_sparse(value):
        return profile | {f"{part}_nonzero": int(value.nnz)}
    for attribute in ("size", "nbytes"):
        size = getattr(value, attribute, None)
        if isinstance(size, int):
            profile[f"{part}_{attribute}"] = size
    return profile
