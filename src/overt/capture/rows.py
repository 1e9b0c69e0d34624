"""Two rows have one digest exactly if they hold equal values at equal positions, whatever container they lie in.

That is what tells whether evaluation data hold rows of the training data. 1 and 1.0, -0.0 and 0.0, NaN and None, a
sparse row and the same row dense are equal; row and column labels do not count. Digests are the same in every process.
Two different rows share one by a chance of 2**-64: a million rows against a million, once in 20 million comparisons.

The digest of a row is a sum over its columns, each value scattered over 64 bits and multiplied by an odd number of
its column. A sum needs no order and gives zeros no weight, so tables pass column by column, arrays block by block,
and sparse matrices by their stored values; nothing is densified or copied whole.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overt.capture.digest import digest, is_arrow_table, is_sparse

Digests = NDArray[np.uint64]

_BLOCK = 1 << 15  # values at a time: small enough for a processor's cache, large enough for numpy
_FIRST_TARGET = 1 << 40  # columns of y are numbered from here, beyond any column of X
_EXACT = 2.0**53  # integers from here on may have no float of their own
_KINDS = "biufcmM"  # of arrays whose values have bits of their own
_NUMBERS = {bool, int, float, type(None)}
_MISSING_TYPES = {"NoneType", "NAType", "NaTType"}  # None, and those of pandas
_MISSING = np.array(np.nan).view(np.uint64)[()]

_MIX = np.array([0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD], dtype=np.uint64)
_SHIFT = np.array([32, 29], dtype=np.uint64)


def row_digests(X: object, y: object = None) -> Digests | None:
    """Return one digest per row of ``X``, taken together with its row of ``y`` where that is given.

    Parameters
    ----------
    X : array, DataFrame, Series, sparse matrix, table of polars or pyarrow, list of rows or of values
        Rows are what its first axis counts.
    y : same, optional

    Returns
    -------
    array of uint64, shape (n_rows,), or None
        None for data without rows (a mapping, a generator, a scalar), and where ``X`` and ``y`` differ in length.

    Examples
    --------
    >>> train, test = row_digests([[1, 2], [3, 4]]), row_digests([[3.0, 4.0], [4.0, 3.0]])
    >>> count_shared(train, test)
    1
    """
    sums = _sums(X, first=0)
    if sums is None or y is None:
        return sums
    targets = _sums(y, first=_FIRST_TARGET)
    if targets is None or len(targets) != len(sums):
        return None
    return sums + targets + np.uint64(1)  # a target of zero is more than none


def joined(known: Digests | None, more: Digests | None) -> Digests | None:
    """Return the digests of both, each once; of two that are there."""
    if known is None or more is None:
        return more if known is None else known
    return np.union1d(known, more)


def count_shared(train: Digests, other: Digests) -> int:
    """Return how many rows of ``other`` are among those of ``train``; a row that ``other`` holds twice counts twice."""
    return int(np.count_nonzero(np.isin(other, train)))


# --- sums of rows, by kind of data ------------------------------------------------------------------------------------


def _sums(value: Any, *, first: int) -> Digests | None:
    """Sum up each row, its columns numbered from ``first``; None for data without rows."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        columns = (_pandas_values(value.iloc[:, position]) for position in range(value.shape[1]))
        return _sums_of_columns(columns, len(value), first)
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index)):
        return _sums_of_columns([_pandas_values(value)], len(value), first)
    if is_sparse(value):
        return _sums_of_sparse(value, first) if value.ndim == 2 else None
    if isinstance(value, (list, tuple)):
        return _sums_of_list(value, first)
    if is_arrow_table(value):
        names: Any = getattr(value, "column_names", None) or list(value.columns)
        return _sums_of_columns((_arrow_values(value[name]) for name in names), value.shape[0], first)
    array = value if isinstance(value, np.ma.MaskedArray) else _as_array(value)
    return None if array is None or array.ndim == 0 else _sums_of_array(array, first)


def _as_array(value: Any) -> NDArray[Any] | None:
    """Tensors and other libraries' columns are arrays where they lie; what must not become one is no data for us."""
    try:
        return np.asarray(value) if hasattr(value, "__array__") else None
    except Exception:  # noqa: BLE001 - such as a tensor that needs its gradient
        return None


def _sums_of_columns(columns: Iterable[Any], n_rows: int, first: int) -> Digests:
    sums = np.zeros(n_rows, dtype=np.uint64)
    for index, column in enumerate(columns, start=first):
        key = _keys(np.array([index], dtype=np.uint64))
        for rows in _blocks(n_rows, _BLOCK):
            sums[rows] += _scattered(_bits(column[rows])) * key
    return sums


def _sums_of_array(array: NDArray[Any], first: int) -> Digests:
    n_rows, width = array.shape[0], int(np.prod(array.shape[1:], dtype=np.int64))
    keys = _keys(np.arange(first, first + width, dtype=np.uint64))
    sums = np.zeros(n_rows, dtype=np.uint64)
    for rows in _blocks(n_rows, max(1, _BLOCK // max(1, width))):
        block = array[rows]
        sums[rows] = _scattered(_bits(block.reshape(len(block), width))) @ keys
    return sums


def _sums_of_sparse(matrix: Any, first: int) -> Digests:
    matrix = matrix.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    n_rows, bounds = matrix.shape[0], matrix.indptr
    sums = np.zeros(n_rows, dtype=np.uint64)
    for rows in _blocks(n_rows, max(1, _BLOCK * n_rows // max(1, matrix.nnz))):
        edges = bounds[rows.start : rows.stop + 1]
        stored = slice(edges[0], edges[-1])
        keys = _keys(matrix.indices[stored].astype(np.uint64) + np.uint64(first))
        running = np.zeros(edges[-1] - edges[0] + 1, dtype=np.uint64)
        np.cumsum(_scattered(_bits(matrix.data[stored])) * keys, out=running[1:])  # wraps around, and so do differences
        sums[rows] = np.diff(running[edges - edges[0]])
    return sums


def _sums_of_list(rows: Sequence[Any], first: int) -> Digests:
    """Rows of one length are a table; anything else is one column of values."""
    width = _common_width(rows)
    keys = _keys(np.arange(first, first + (1 if width is None else width), dtype=np.uint64))
    sums = np.zeros(len(rows), dtype=np.uint64)
    for part in _blocks(len(rows), max(1, _BLOCK // max(1, len(keys)))):
        items = rows[part] if width is None else list(chain.from_iterable(rows[part]))
        sums[part] = _scattered(_bits_of_items(items)).reshape(part.stop - part.start, len(keys)) @ keys
    return sums


def _common_width(rows: Sequence[Any]) -> int | None:
    if not all(isinstance(row, (list, tuple)) or (isinstance(row, np.ndarray) and row.ndim) for row in rows):
        return None
    widths = set(map(len, rows))
    return widths.pop() if len(widths) == 1 else None


def _pandas_values(column: Any) -> Any:
    """What to slice for the values of a Series or an Index, in a form that :func:`_bits` reads."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if isinstance(column.dtype, sys.modules["pandas"].DatetimeTZDtype):
        return column.array.tz_convert(None).to_numpy()
    return column.array  # converted block by block


def _arrow_values(column: Any) -> Any:
    try:
        return np.asarray(column.to_numpy())
    except Exception:  # noqa: BLE001 - pyarrow has types that numpy has not, and an error of its own for each
        return column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()


# --- values as 64 bits: equal values, equal bits; zero has none -------------------------------------------------------


def _bits(values: Any) -> Digests:
    """Return a new array of the shape of ``values``, which may be an array, one of pandas' or a list."""
    if not isinstance(values, np.ndarray):
        return _bits_of_extension(values) if hasattr(values, "dtype") else _bits_of_items(values)
    if isinstance(values, np.ma.MaskedArray):
        bits = _bits(values.data)
        bits[np.ma.getmaskarray(values)] = _MISSING
        return bits
    kind = values.dtype.kind
    if kind in "biuf":
        return _bits_of_reals(values)
    if kind == "c":
        bits = _bits_of_reals(values.real)
        bits += _scattered(_bits_of_reals(values.imag)) * _MIX[0]
        return bits
    if kind in "mM":
        return _bits_of_times(values)
    return _bits_of_items(values.reshape(-1).tolist()).reshape(values.shape)


def _bits_of_reals(values: NDArray[Any]) -> Digests:
    reals = np.add(values, 0.0, dtype=np.float64, casting="unsafe")  # a copy, in which -0.0 is 0.0
    bits: Digests = reals.view(np.uint64)
    if values.dtype.kind == "f":
        missing = np.isnan(reals)
        if missing.any():
            bits[missing] = _MISSING  # there are many NaNs
    elif values.dtype.itemsize == 8 and (is_large := np.abs(reals) >= _EXACT).any():
        bits[is_large] += _scattered(_rounded_off(values[is_large], reals[is_large])) * _MIX[0]
    return bits


def _rounded_off(integers: NDArray[Any], reals: NDArray[np.float64]) -> Digests:
    """What large integers lost when they became floats: identifiers are such numbers, and may differ by one."""
    with np.errstate(invalid="ignore"):  # the greatest integers round to a float that is none
        lost: Digests = integers.astype(np.uint64) - reals.astype(integers.dtype).astype(np.uint64)
    return lost


def _bits_of_times(values: NDArray[Any]) -> Digests:
    """Whole days, and nanoseconds of the day: so the unit does not count, and none overflows."""
    days = values.astype(f"{values.dtype.kind}8[D]")
    rest = (values - days.astype(values.dtype)).astype("m8[ns]")
    bits = _bits_of_reals(days.astype(np.int64))
    bits += _scattered(_bits_of_reals(rest.astype(np.int64))) * _MIX[0]
    bits[np.isnat(values)] = _MISSING
    return bits


def _bits_of_extension(array: Any) -> Digests:
    pandas, dtype = sys.modules["pandas"], array.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        return _bits_of_categories(array)
    missing = np.asarray(pandas.isna(array))
    numpy_dtype: Any = getattr(dtype, "numpy_dtype", None)
    if isinstance(numpy_dtype, np.dtype) and numpy_dtype.kind in "biuf":
        bits = _bits_of_reals(array.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0)))
    elif (dense := np.asarray(array)).dtype.kind in _KINDS:
        bits = _bits(dense)
    else:
        bits = _bits_of_items(dense.tolist())
    bits[missing] = _MISSING
    return bits


def _bits_of_categories(array: Any) -> Digests:
    used, where = np.unique(array.codes, return_inverse=True)
    missing = np.full(np.count_nonzero(used < 0), _MISSING)  # its code is -1, so it comes first
    values = _bits(_pandas_values(array.categories[used[used >= 0]]))
    return np.append(missing, values)[where]


def _bits_of_items(items: Sequence[Any]) -> Digests:
    """Python objects: numbers as arrays of numbers have them; texts and all else one by one, equal ones once."""
    kinds = set(map(type, items))
    if kinds <= _NUMBERS:
        bits = _bits_of_numbers(items, kinds)
        return bits if bits is not None else _bits_one_by_one(items)
    if kinds & _NUMBERS:
        is_number = np.fromiter((type(item) in _NUMBERS for item in items), dtype=bool, count=len(items))
        bits = np.empty(len(items), dtype=np.uint64)
        bits[is_number] = _bits_of_items(list(compress(items, is_number)))
        bits[~is_number] = _bits_of_items(list(compress(items, ~is_number)))
        return bits
    if (
        len(kinds) == 1
        and issubclass(next(iter(kinds)), np.generic)
        and (array := np.array(items)).dtype.kind in _KINDS
    ):
        return _bits(array)
    return _bits_one_by_one(items)


def _bits_of_numbers(items: Sequence[Any], kinds: set[type]) -> Digests | None:
    """Python's numbers, and None for a missing one; None if an array would round one of them."""
    try:
        array = np.array(items, dtype=None if kinds <= {int, bool} else np.float64)
    except OverflowError:
        return None
    is_exact = array.dtype.kind in "biu" or kinds <= {float, type(None)} or not (np.abs(array) >= _EXACT).any()
    return _bits_of_reals(array) if is_exact else None


def _bits_one_by_one(items: Sequence[Any]) -> Digests:
    try:
        known = {item: _bits_of_item(item) for item in dict.fromkeys(items)}
        return np.fromiter(map(known.__getitem__, items), dtype=np.uint64, count=len(items))
    except TypeError:  # lists, dictionaries and arrays cannot be keys
        return np.fromiter(map(_bits_of_item, items), dtype=np.uint64, count=len(items))


def _bits_of_item(item: Any) -> int:
    if isinstance(item, str):
        text = item.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, usedforsecurity=False).digest(), "little")
    if type(item).__name__ in _MISSING_TYPES:
        return int(_MISSING)
    array = np.asarray(item) if isinstance(item, (bool, int, float, np.generic)) else None
    if array is not None and array.dtype.kind in _KINDS:
        return int(_bits(array.reshape(1))[0])
    return int(digest(item)[:16], 16)


# --- mixing -----------------------------------------------------------------------------------------------------------


def _scattered(bits: Digests) -> Digests:
    """Spread the bits of each value over all 64, in place. Small floats differ in their upper twelve only."""
    bits ^= bits >> _SHIFT[0]
    bits *= _MIX[1]
    bits ^= bits >> _SHIFT[1]
    return bits


def _keys(columns: Digests) -> Digests:
    """One odd number for each column, by SplitMix64."""
    keys: Digests = (columns + np.uint64(1)) * _MIX[0]
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    keys = keys ^ (keys >> np.uint64(31))
    return keys | np.uint64(1)


def _blocks(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
