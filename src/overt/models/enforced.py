"""A signature is given only where ``mlflow.pyfunc`` then predicts as the estimator itself does.

With a signature, pyfunc converts what it is given before the model sees it (``mlflow.models.utils._enforce_schema``,
3.17): a Series or a list becomes a DataFrame, a pandas ``category`` is refused. Without one it hands data on as they
are. So a column that MLflow would refuse or change is typed ``any``, which hands on its values alone, and the model is
asked whether those are enough for it; where nothing helps there is no signature, and a sentence says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from overt.capture.digest import is_sparse
from overt.capture.signature import schema, signature

_TRIAL_ROWS = 100


def enforced_signature(
    X: Any, outputs: Any, *, predict: Callable[[Any], Any] | None
) -> tuple[dict[str, str | None] | None, str]:
    """The signature of a model fitted on ``X``, or None and the reason.

    Parameters
    ----------
    X : array, DataFrame, sparse matrix, …
        What the model was fitted on, as the user passed it.
    outputs : array-like or None
        What it predicts; MLflow enforces nothing about it.
    predict : callable or None
        Called with some rows of a DataFrame that has columns of type ``any``; what it raises, this raises.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        return _of_frame(X, outputs, predict)
    reason = _reason_against(X)
    found = None if reason else signature(X, outputs)
    return found, reason or ("" if found is not None else "MLflow has no form for such data")


def _reason_against(X: Any) -> str:
    numpy, kind = sys.modules.get("numpy"), type(X).__name__
    if is_sparse(X):
        sparse = sys.modules["scipy.sparse"]
        if isinstance(X, (sparse.csr_matrix, sparse.csc_matrix)):
            return ""
        return f"MLflow knows csr_matrix and csc_matrix, and the data are a {kind}"
    if numpy is None or not isinstance(X, numpy.ndarray):
        return f"with one, mlflow.pyfunc would refuse a {kind} or make a DataFrame of it"
    if not X.dtype.isnative:  # MLflow writes float64 and then finds that >f8 is something else
        return "MLflow refuses arrays in foreign byte order"
    return "" if X.ndim else "MLflow has no form for such data"


def _of_frame(X: Any, outputs: Any, predict: Callable[[Any], Any] | None) -> tuple[dict[str, str | None] | None, str]:
    if not all(isinstance(name, str | int | float) for name in X.columns) or not X.columns.is_unique:
        return None, "MLflow has no form for columns whose names are no single texts or numbers"
    specs, as_values = [], []
    for name in X.columns:
        column = X[name]
        spec = next(iter(schema(column) or ()), None)
        if spec is None or not _is_handed_on(column.dtype, spec):
            spec = {"type": "any", "name": name, "required": bool(column.notna().all())}
            as_values.append(name)
        specs.append(spec)
    try:
        inputs = json.dumps(specs)
    except TypeError:
        return None, "MLflow has no form for columns whose names are no JSON"
    if as_values and predict is not None and not _suffice(X, as_values, predict):
        shown = ", ".join(repr(name) for name in as_values[:5])
        return (
            None,
            f"mlflow.pyfunc would hand on the bare values of columns such as {shown}, too few for it",
        )
    return {"inputs": inputs, "outputs": _outputs(outputs), "params": None}, ""


def _is_handed_on(dtype: Any, spec: dict[str, Any]) -> bool:
    """Whether MLflow takes a column of its own type, and changes at most the width of its numbers."""
    numpy, pandas = sys.modules["numpy"], sys.modules["pandas"]
    if isinstance(dtype, numpy.dtype):  # datetimes of other units become nanoseconds
        return dtype.kind in "biuf" or dtype == "datetime64[ns]" or (dtype.kind == "O" and spec["type"] == "string")
    if hasattr(dtype, "numpy_dtype") and dtype.kind in "biuf":  # Int64 and its like; a gap is no int64
        return bool(spec["required"] or dtype.kind == "f")
    return isinstance(dtype, pandas.StringDtype)


def _suffice(X: Any, as_values: list[Any], predict: Callable[[Any], Any]) -> bool:
    """Whether the model predicts the same from ``X`` as pyfunc hands it on; an error then is a no."""
    pandas, rows = sys.modules["pandas"], _rows_to_try(X, as_values)
    head = X.iloc[rows]
    expected = predict(head)
    handed_on = {
        name: pandas.Series(head[name].to_list(), index=head.index, name=name) if name in as_values else head[name]
        for name in X.columns
    }
    try:
        return _are_equal(expected, predict(pandas.DataFrame(handed_on)))
    except Exception:  # noqa: BLE001 - a user's estimator may raise anything
        return False


def _rows_to_try(X: Any, as_values: list[Any]) -> list[int]:
    """Rows from all over ``X``, and for each column one in which it has a gap."""
    count = min(len(X), _TRIAL_ROWS)
    rows = {index * len(X) // count for index in range(count)}
    return sorted(rows | {int(X[name].isna().to_numpy().argmax()) for name in as_values})


def _are_equal(one: Any, other: Any) -> bool:
    numpy = sys.modules["numpy"]
    one, other = (numpy.asarray(value.toarray() if is_sparse(value) else value) for value in (one, other))
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def _outputs(outputs: Any) -> str | None:
    found = None if outputs is None else signature(outputs)
    return found["inputs"] if found is not None else None
