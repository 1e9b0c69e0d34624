"""Equal rows have equal digests in whatever container they lie; other rows have others; nothing is copied whole."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from overt.capture.rows import count_shared, row_digests

NUMBERS = np.array([[0, 1, 2], [3, 0, -5], [0, 0, 0], [7, 0, 1], [3, -5, 0]])
DAYS = ["2020-01-01T00:00:00", "1969-12-31T23:59:59", "2262-01-01T12:30:00"]


def digests(X: Any, y: Any = None) -> Any:
    found = row_digests(X, y)
    assert found is not None
    assert found.dtype == np.uint64
    assert found.ndim == 1
    return found


def same(first: Any, second: Any) -> bool:
    return bool(np.array_equal(digests(first), digests(second)))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", ">i4", "i8", "f2", "f4", "f8", ">f8", "g", "c8", "c16", "O"])
def test_the_dtype_of_equal_numbers_does_not_count(dtype: str) -> None:
    assert same(NUMBERS.astype(dtype), NUMBERS)


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8"])
def test_nor_does_that_of_equal_flags(dtype: str) -> None:
    flags = NUMBERS > 0
    assert same(flags.astype(dtype), flags.astype(float))


@pytest.mark.parametrize("dtype", ["f8", "i8", "O"])
def test_memory_order_does_not_count(dtype: str) -> None:
    array = np.arange(3_000).reshape(100, 30).astype(dtype)
    assert same(np.asfortranarray(array), array)
    assert same(np.repeat(np.repeat(array, 2, axis=0), 3, axis=1)[::2, ::3], array)
    assert same(array[::-1], array[::-1].copy())


TABLES = {
    "frame": pd.DataFrame(NUMBERS, columns=list("cab"), index=list("vwxyz")),
    "frame of kinds": pd.DataFrame(NUMBERS).astype({0: "float32", 1: "int8", 2: "object"}),
    "nullable frame": pd.DataFrame(NUMBERS).astype({0: "Int8", 1: "Float64", 2: "int64[pyarrow]"}),
    "categories": pd.DataFrame(NUMBERS).astype("category"),
    "sparse frame": pd.DataFrame(NUMBERS.astype(float)).astype(pd.SparseDtype("float", 0.0)),
    "list": NUMBERS.tolist(),
    "tuples": tuple(map(tuple, NUMBERS.tolist())),
    "list of arrays": list(NUMBERS),
    "list of kinds": [[float(a), b, np.int8(c)] for a, b, c in NUMBERS.tolist()],
    "arrow": pa.table({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1].astype(float), "c": NUMBERS[:, 2]}),
    "matrix": sp.csr_matrix(NUMBERS).todense(),
    "masked": np.ma.array(NUMBERS, mask=False),
    "csr": sp.csr_matrix(NUMBERS),
    "csr array": sp.csr_array(NUMBERS),
    "csc": sp.csc_matrix(NUMBERS),
    "coo": sp.coo_matrix(NUMBERS),
    "lil": sp.lil_matrix(NUMBERS),
    "dok": sp.dok_matrix(NUMBERS.astype("f4")),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_the_container_of_equal_numbers_does_not_count(kind: str) -> None:
    assert same(TABLES[kind], NUMBERS)


def test_a_table_of_polars_has_the_digests_of_its_values() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, None], "b": ["x", None]})
    assert same(frame, pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]}))
    assert same(frame["b"], ["x", None])


def test_stored_zeros_and_repeated_entries_of_a_sparse_matrix_count_as_what_they_add_up_to() -> None:
    matrix = sp.csr_matrix((np.array([0.0, -0.0, 2.0, 3.0]), np.array([0, 1, 1, 1]), np.array([0, 2, 4])), shape=(2, 3))
    assert same(matrix, [[0, 0, 0], [0, 5, 0]])
    assert matrix.nnz == 4


def test_empty_rows_of_a_sparse_matrix_have_digests_like_any_other() -> None:
    dense = np.zeros((70_000, 3))
    dense[::1_000, 1] = 1.0
    assert same(sp.csr_matrix(dense), dense)
    assert same(sp.csr_matrix((5, 10**9)), np.zeros((5, 3)))


MIXED: dict[str, list[Any]] = {
    "number": [1.5, np.nan, 3.0, 1.5],
    "text": ["a", None, "악성", "a"],
    "kind": ["x", "y", None, "x"],
    "when": [pd.Timestamp(DAYS[0]), pd.NaT, pd.Timestamp(DAYS[1]), pd.Timestamp(DAYS[0])],
}


def test_mixed_columns_are_read_by_value() -> None:
    frame = pd.DataFrame(MIXED).astype({"kind": "category"})
    found = digests(frame)
    assert found[0] == found[3]
    assert len(set(found.tolist())) == 3
    others = [
        frame.astype({"kind": "object"}),
        frame.astype({"text": "string", "kind": "string"}),
        frame.astype({"kind": pd.CategoricalDtype(["z", "y", "x"])}),
        frame.astype({"text": "string[pyarrow]", "when": "M8[s]"}),
        frame.assign(when=frame["when"].dt.tz_localize("UTC").dt.tz_convert("Asia/Seoul")),
        frame.set_index("kind", drop=False),
        pa.Table.from_pandas(frame.astype({"kind": "object"})),
    ]
    for other in others:
        assert same(other, frame)


def test_what_is_missing_is_equal_however_it_is_written() -> None:
    payload = np.array([0x7FF8000000000123, 0xFFF8000000000000], dtype=np.uint64).view(np.float64)
    missing = digests([None])[0]
    for values in (
        [None, float("nan")], [np.nan, None], [None, pd.NA], [pd.NaT, "text"][:1], payload, payload.astype("f4"),
        np.array(["NaT"], dtype="M8[D]"), np.array(["NaT"], dtype="m8[ns]"), pd.Series([None], dtype="Int64"),
        pd.Series([None], dtype="string"), pd.Series([None], dtype="category"), np.ma.array([1, 2], mask=True),
        pd.Series([None, None], dtype="boolean"), pd.Series([None], dtype="int64[pyarrow]"),
    ):  # fmt: skip
        assert set(digests(values).tolist()) == {missing}
    assert digests([0.0])[0] != missing


def test_zero_has_no_sign() -> None:
    assert same(np.array([-0.0, 0.0]), [0, 0])


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_the_unit_of_a_time_does_not_count(unit: str) -> None:
    assert same(np.array(DAYS, dtype=f"M8[{unit}]"), np.array(DAYS, dtype="M8[ns]"))
    assert same(
        np.array([1, -90_000], dtype=f"m8[{unit}]"), np.array([1, -90_000], dtype=f"m8[{unit}]").astype("m8[ns]")
    )
    times = np.array(DAYS, dtype=f"M8[{unit}]")
    assert not set(digests(times).tolist()) & set(digests(times + np.timedelta64(1, unit)).tolist())


@pytest.mark.parametrize("dtype", ["i8", "u8", "O"])
def test_large_integers_that_share_a_float_differ(dtype: str) -> None:
    around = [2**53 + i for i in range(-4, 8)] + [2**62 + i for i in range(-4, 4)]
    assert len(set(digests(np.array(around, dtype=dtype)).tolist())) == 20
    assert same(np.array(around, dtype=dtype), around)
    assert same(np.array([2**53, 2**60], dtype=dtype), np.array([2.0**53, 2.0**60]))


def test_the_position_of_a_value_counts() -> None:
    rows = [[1, 2, 3], [2, 1, 3], [3, 2, 1], [1, 3, 2], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert len(set(digests(rows).tolist())) == 7
    assert len(set(digests([["a", "b"], ["b", "a"]]).tolist())) == 2


def test_a_number_is_not_its_text() -> None:
    assert not set(digests([1, 2]).tolist()) & set(digests(["1", "2"]).tolist())
    assert same([[1, "a"], ["1", 2.5]], pd.DataFrame([[1, "a"], ["1", 2.5]]))


def test_a_list_of_texts_is_an_array_of_texts() -> None:
    texts = ["a", "악성", "", "a" * 10_000]
    for other in (np.array(texts), np.array(texts, dtype=object), pd.Series(texts), np.array(texts).reshape(-1, 1)):
        assert same(other, texts)


def test_images_are_rows_of_pixels() -> None:
    images = np.arange(24.0).reshape(2, 3, 4)
    assert same(images, images.reshape(2, 12))
    assert same(images[:, ::-1].transpose(0, 2, 1), images[:, ::-1].transpose(0, 2, 1).reshape(2, 12))


def test_any_other_object_counts_by_its_content() -> None:
    things = [{"a": 1}, [1, 2], [1], (1, 3), Decimal("1.10"), datetime.date(2020, 1, 1), b"x", np.zeros(2), 10**400]
    assert len(set(digests(things).tolist())) == len(things)
    assert same(things, [*things])


def test_the_target_belongs_to_its_row() -> None:
    X = NUMBERS
    plain, labelled = digests(X), digests(X, [0, 1, 0, 1, 0])
    assert not set(plain.tolist()) & set(labelled.tolist())
    assert np.flatnonzero(labelled != digests(X, [0, 1, 1, 1, 0])).tolist() == [2]
    for y in (np.array([0, 1, 0, 1, 0]), np.array([[0.0], [1], [0], [1], [0]]), pd.Series([0, 1, 0, 1, 0], name="y")):
        assert np.array_equal(digests(X, y), labelled)
    assert not np.array_equal(digests(X, NUMBERS[:, :2]), digests(X, NUMBERS[:, 1::-1]))
    assert not set(digests(NUMBERS[:, :1], NUMBERS[:, 1]).tolist()) & set(digests(NUMBERS[:, :2]).tolist())


@pytest.mark.parametrize("X", [None, 3, "text", {"a": [1]}, np.float64(2), iter([1]), object(), np.array(5), b"x"])
def test_what_has_no_rows_has_no_digests(X: Any) -> None:
    assert row_digests(X) is None
    assert row_digests([1], X if X is not None else {}) is None


def test_data_of_two_lengths_have_no_digests() -> None:
    assert row_digests(NUMBERS, [1, 2]) is None


@pytest.mark.parametrize("X", [[], np.zeros((0, 3)), pd.DataFrame(), pd.DataFrame({"a": []}), sp.csr_matrix((0, 3))])
def test_no_rows_are_no_digests(X: Any) -> None:
    assert len(digests(X)) == 0


def test_columns_that_are_none_leave_rows() -> None:
    assert len(digests(np.zeros((3, 0)))) == len(digests(pd.DataFrame(index=range(3)))) == 3


def test_rows_of_other_are_counted_that_training_holds() -> None:
    train, other = digests([[1, 2], [3, 4], [3, 4]]), digests([[3, 4], [5, 6], [3.0, 4.0], [2, 1]])
    assert count_shared(train, other) == 2
    assert count_shared(other, train) == 2
    assert count_shared(train, digests([])) == count_shared(digests([]), train) == 0


def test_a_million_rows_of_small_integers_do_not_collide() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-5, 5, dtype=np.int8)] * 6), axis=-1).reshape(-1, 6)
    assert len(np.unique(digests(grid))) == len(grid) == 1_000_000
    assert len(np.unique(digests(np.arange(1_000_000)))) == 1_000_000
    pair = np.stack([np.repeat(np.arange(1_000), 1_000), np.tile(np.arange(1_000), 1_000)], axis=1)
    assert len(np.unique(digests(pair[:, :1], pair[:, 1]))) == 1_000_000


def test_each_bit_of_a_digest_is_used() -> None:
    bits = np.unpackbits(digests(np.arange(20_000.0)).view(np.uint8).reshape(-1, 8), axis=1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats()), st.data())
def test_rows_are_equal_exactly_if_their_digests_are(array: Any, data: st.DataObject) -> None:
    other = array.copy()
    row, column = data.draw(st.integers(0, len(array) - 1)), data.draw(st.integers(0, array.shape[1] - 1))
    other[row, column] = data.draw(st.floats())
    is_equal = np.array([np.array_equal(a, b, equal_nan=True) for a, b in zip(array, other, strict=True)])
    for container in (lambda a: a, pd.DataFrame, sp.csr_matrix, lambda a: a.tolist(), lambda a: a.astype(object)):
        assert ((digests(container(array)) == digests(other)) == is_equal).all()


def test_a_digest_is_the_same_in_every_process() -> None:
    code = (
        "import pandas as pd; from overt.capture.rows import row_digests;"
        "print(row_digests(pd.DataFrame({'a': [1, 2], 'b': ['x', None], 'c': [(1,), (2,)]}), ['n', 'y']).tolist())"
    )
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert run[0].stdout == run[1].stdout
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [(1,), (2,)]})
    assert run[0].stdout.strip() == str(digests(frame, ["n", "y"]).tolist())


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.asfortranarray(np.ones((400_000, 20))),
        lambda: pd.DataFrame(np.ones((400_000, 20))),
        lambda: sp.csr_matrix((np.ones(4_000_000), np.tile(np.arange(10), 400_000), np.arange(0, 4_000_001, 10))),
    ],
    ids=["array", "frame", "sparse"],
)
def test_nothing_is_copied_whole(make: Any) -> None:
    X = make()
    digests(X[:1_000])  # what the first call allocates for good
    tracemalloc.start()
    digests(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14e6  # of 32 MB or more: the digests are 3.2 MB, a column as much


def test_the_data_are_left_as_they_are() -> None:
    texts = pd.Series(["a", None], dtype="string")
    array = np.array([-0.0, np.nan])
    digests(pd.DataFrame({"a": texts, "b": array}))
    assert texts.isna().tolist() == [False, True]
    assert np.signbit(array[0])
