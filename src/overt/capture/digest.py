"""Equal content has an equal digest, in any process, on any machine, in any memory layout; and no data is copied.

Python's ``hash`` is salted per process, ``repr`` cuts arrays, and MLflow's own digest reads 10,000 rows. Here every
byte counts, together with dtype, shape and column names. What is contiguous is hashed where it lies; the rest passes
through a block of at most a few megabytes. Sparse matrices are never densified. A pandas index is not content: no
estimator sees it.

SHA-256, because processors have an instruction for it: 100 MB take 56 ms here, BLAKE2b 112 ms.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from overt.capture.reprs import stable_repr

_BLOCK_BYTES = 4 << 20
_BLOCK_ROWS = 1 << 16
_MAX_DEPTH = 32


def digest(*values: object) -> str:
    """Content hash of one or more array-likes: 32 hexadecimal digits (MLflow takes up to 36).

    Parameters
    ----------
    *values : array, DataFrame, Series, sparse matrix, list, dict, scalar or any object
        Their number and order count. An object of unknown kind counts by its repr without memory addresses.
    """
    hasher = _Hasher()
    for value in values:
        hasher.feed(value)
    return hasher.hexdigest()


class _Hasher:
    """SHA-256 over framed pieces: each value writes what it is before what it holds, so no two kinds can meet."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(usedforsecurity=False)
        self._depth = 0

    def hexdigest(self) -> str:
        return self._sha.hexdigest()[:32]

    def feed(self, value: Any) -> None:
        if self._depth >= _MAX_DEPTH:  # also what stops a list that holds itself
            self._frame("deep", type(value).__name__)
            return
        self._depth += 1
        try:
            self._feeder(value)(value)
        finally:
            self._depth -= 1

    def _feeder(self, value: Any) -> Callable[[Any], None]:
        numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
        if numpy is not None and isinstance(value, numpy.ndarray):
            return self._masked if isinstance(value, numpy.ma.MaskedArray) else self._array
        if pandas is not None:
            if isinstance(value, pandas.DataFrame):
                return self._table
            if isinstance(value, pandas.Series):
                return self._series
            if isinstance(value, pandas.Index):
                return lambda index: self._series(index.to_series())
        if is_sparse(value):
            return self._sparse
        if isinstance(value, (list, tuple)):
            return self._sequence
        if isinstance(value, Mapping):
            return self._mapping
        return self._arrow if is_arrow_table(value) else self._scalar

    # --- writing ---

    def _frame(self, *words: object) -> None:
        head = "\x1f".join(map(str, words)).encode("utf-8", "surrogatepass")
        self._sha.update(b"%d:" % len(head))
        self._sha.update(head)

    def _numbers(self, kind: str, numbers: Sequence[float] | Iterator[int]) -> None:
        packed = array(kind, numbers)
        if sys.byteorder == "big":
            packed.byteswap()
        self._sha.update(packed)

    # --- arrays ---

    def _array(self, value: Any) -> None:
        numpy = sys.modules["numpy"]
        value = value.view(numpy.ndarray)
        self._frame("array", _dtype_name(value.dtype), value.shape)
        if value.size == 0 or value.dtype.itemsize == 0:
            return
        if value.dtype.hasobject:
            for block in _row_blocks(value.reshape(-1) if value.flags.c_contiguous else value, rows=_BLOCK_ROWS):
                self._items(block.reshape(-1).tolist())
        elif value.dtype.kind in "fc" and value.dtype.char in "gG":
            for block in _row_blocks(value):
                self._long_doubles(block)
        elif value.flags.c_contiguous and value.dtype.newbyteorder("<") == value.dtype:
            self._sha.update(value.reshape(-1).view(numpy.uint8))
        else:
            for block in _row_blocks(value):
                packed = numpy.ascontiguousarray(block, dtype=value.dtype.newbyteorder("<"))
                self._sha.update(packed.reshape(-1).view(numpy.uint8))

    def _long_doubles(self, block: Any) -> None:
        # Their padding bytes are not content: the nearest double and what it misses are.
        numpy = sys.modules["numpy"]
        near = block.astype("<c16" if block.dtype.kind == "c" else "<f8")
        with numpy.errstate(invalid="ignore"):
            rest = (block - near).astype(near.dtype)
        for part in (near, rest):
            self._sha.update(numpy.ascontiguousarray(part).reshape(-1).view(numpy.uint8))

    def _masked(self, value: Any) -> None:
        numpy = sys.modules["numpy"]
        self._frame("masked")
        for block in _row_blocks(value):
            self._array(numpy.ma.getmaskarray(block))
            self._array(block.filled(numpy.zeros((), block.dtype)[()]))

    def _sparse(self, value: Any) -> None:
        self._frame("sparse", value.format, value.shape)
        if value.format == "dok":
            value = value.tocoo()
        for name in ("data", "indices", "indptr", "row", "col", "rows", "offsets"):
            part = getattr(value, name, None)
            if part is not None and hasattr(part, "dtype"):
                self._frame(name)
                self._array(part)

    # --- tables ---

    def _table(self, frame: Any) -> None:
        self._frame("table", frame.shape, len(frame.columns.names))
        self._items(list(frame.columns))
        for position in range(frame.shape[1]):
            self._column(frame.iloc[:, position])

    def _series(self, series: Any) -> None:
        self._frame("column")
        self._scalar(series.name)
        self._column(series)

    def _column(self, column: Any) -> None:
        numpy, pandas = sys.modules["numpy"], sys.modules["pandas"]
        dtype: Any = column.dtype
        if isinstance(dtype, numpy.dtype):
            self._array(column.to_numpy())
        elif isinstance(dtype, pandas.CategoricalDtype):
            self._frame("category", dtype.ordered)
            self._array(column.cat.codes.to_numpy())
            self._column(dtype.categories.to_series())
        elif isinstance(dtype, pandas.DatetimeTZDtype):
            self._frame("datetime", dtype)
            self._array(column.array.asi8)
        else:
            self._extension(column)

    def _extension(self, column: Any) -> None:
        numpy, pandas = sys.modules["numpy"], sys.modules["pandas"]
        dtype: Any = column.dtype
        is_text = isinstance(dtype, pandas.StringDtype)  # one name for all ways to store text
        numpy_dtype: Any = getattr(dtype, "numpy_dtype", None)
        is_masked = isinstance(numpy_dtype, numpy.dtype) and numpy_dtype.kind in "biuf"
        self._frame("column", "string" if is_text else dtype, len(column))
        for start in range(0, len(column), _BLOCK_ROWS):
            block = column.iloc[start : start + _BLOCK_ROWS]
            if is_masked:
                self._array(block.isna().to_numpy())
                self._array(block.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0)))
            elif is_text:
                self._items(block.to_numpy(dtype=object, na_value=None).tolist())
            else:
                self._items(block.astype(object).tolist())

    def _arrow(self, table: Any) -> None:
        names: Any = getattr(table, "column_names", None) or list(table.columns)
        self._frame("arrow", table.shape)
        self._items(list(names))
        for column in (table[name] for name in names):
            self._frame("column", getattr(column, "dtype", None) or getattr(column, "type", None))
            for start in range(0, table.shape[0], _BLOCK_ROWS):
                block = column.slice(start, _BLOCK_ROWS)
                self._items(block.to_pylist() if hasattr(block, "to_pylist") else block.to_list())

    # --- Python objects ---

    def _sequence(self, value: Sequence[Any]) -> None:
        self._frame("sequence", len(value))
        for start in range(0, len(value), _BLOCK_ROWS):
            self._items(value[start : start + _BLOCK_ROWS])

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self._frame("mapping", len(value))
        for key, item in value.items():
            self._scalar(key)
            self.feed(item)

    def _items(self, items: Sequence[Any]) -> None:
        """Items of one kind are packed together: 0.05 us a number, 0.1 us a string, against 1 us one by one."""
        kinds = set(map(type, items))
        if kinds == {float}:
            self._frame("floats", len(items))
            self._numbers("d", items)
        elif kinds and kinds <= {str, type(None)}:
            self._frame("texts", len(items))
            self._numbers("q", (-1 if text is None else len(text) for text in items))
            self._sha.update("".join(filter(None, items)).encode("utf-8", "surrogatepass"))
        elif kinds == {int} and min(items) >= -(1 << 63) and max(items) < 1 << 63:
            self._frame("integers", len(items))
            self._numbers("q", items)
        else:
            self._frame("items", len(items))
            for item in items:
                self.feed(item)

    def _scalar(self, value: Any) -> None:
        if isinstance(value, bytes):
            self._frame("bytes", len(value))
            self._sha.update(value)
        elif isinstance(value, str):
            self._frame("str", value)
        else:
            numpy = sys.modules.get("numpy")
            if numpy is not None and isinstance(value, numpy.generic):
                self._array(numpy.asarray(value)) if not value.dtype.hasobject else self._frame(stable_repr(value))
                return
            self._frame(type(value).__qualname__, stable_repr(value))


def is_sparse(value: object) -> bool:
    """Whether ``value`` is a scipy sparse matrix or array, told without importing scipy."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(value))


def is_arrow_table(value: object) -> bool:
    """Tables of pyarrow and polars, told by what they can do: neither is worth an import."""
    is_table = hasattr(value, "column_names") or hasattr(value, "columns")
    return is_table and hasattr(value, "shape") and callable(getattr(value, "slice", None))


def _dtype_name(dtype: Any) -> str:
    return str(dtype.newbyteorder("<").descr) if dtype.names else str(dtype.newbyteorder("<").str)


def _row_blocks(value: Any, *, rows: int | None = None) -> Iterator[Any]:
    if value.ndim == 0:
        yield value.reshape(1)
        return
    row_bytes = max(1, value.nbytes // max(1, value.shape[0]))
    step = rows or max(1, _BLOCK_BYTES // row_bytes)
    yield from (value[start : start + step] for start in range(0, value.shape[0], step))
