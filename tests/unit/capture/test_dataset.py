"""Equal data, equal digest; other data, other digest; never a copy, a dense matrix or an exception."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tracemalloc
import warnings
from typing import Any

import mlflow.data
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from overt.capture.dataset import dataset
from overt.capture.digest import digest

DISTINCT: list[Any] = [
    *(
        np.arange(6).astype(dtype)
        for dtype in ("i4", "i8", "f4", "f8", "u8", "c16", "g", "S1", "U1", "O", "M8[s]", "M8[ns]")
    ),
    *(np.arange(6.0).reshape(shape) for shape in ((2, 3), (3, 2), (1, 6), (6, 1))),
    *(np.zeros(shape) for shape in ((0, 2), (2, 0), ())),
    np.array(["a", "b"]),
    np.array(["ab", ""]),
    np.array(["a", "b"], dtype=object),
    np.array(["ab", ""], dtype=object),
    np.array([1, "1", None], dtype=object),
    np.array(["1", 1, None], dtype=object),
    np.ma.array([1.0, 2.0], mask=[0, 1]),
    np.ma.array([1.0, 2.0], mask=[1, 0]),
    sp.csr_matrix(np.eye(3)),
    sp.csc_matrix(np.eye(3)),
    sp.csr_matrix(np.eye(3)[:, ::-1]),
    sp.csr_matrix((3, 3)),
    sp.csr_matrix((3, 4)),
    sp.dok_matrix(np.eye(3)),
    sp.lil_matrix(np.eye(3)),
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
    pd.DataFrame({"b": [1, 2], "a": [3, 4]}),
    pd.DataFrame({"a": [1, 2], "b": [3, 5]}),
    pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}),
    pd.DataFrame({"a": pd.Series(["x", None], dtype="string")}),
    pd.DataFrame({"a": pd.Series([None, "x"], dtype="string")}),
    pd.DataFrame({"a": pd.Series(["x", None], dtype=object)}),
    pd.DataFrame({"a": pd.Categorical(["x", "y"])}),
    pd.DataFrame({"a": pd.Categorical(["y", "x"])}),
    pd.DataFrame({"a": pd.Categorical(["x", "y"], categories=["y", "x"])}),
    pd.DataFrame({"a": pd.Categorical(["x", "y"], ordered=True)}),
    pd.DataFrame({"a": pd.array([1, None], "Int64")}),
    pd.DataFrame({"a": pd.array([0, None], "Int64")}),
    pd.DataFrame({"a": pd.array([True, None], "boolean")}),
    pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}),
    pd.DataFrame({"a": pd.to_datetime(["2020-01-01"]).tz_localize("UTC")}),
    pd.DataFrame({"a": pd.to_datetime(["2020-01-01"]).tz_localize("Asia/Seoul")}),
    pd.DataFrame({"a": pd.period_range("2020", periods=2)}),
    pd.Series([1, 2], name="a"),
    pd.Series([1, 2], name="b"),
    pa.table({"a": [1, 2]}),
    pa.table({"a": [1, 3]}),
    [1, 2],
    [2, 1],
    [1.0, 2.0],
    ["1", "2"],
    [[1], [2]],
    [[1, 2]],
    [1, None],
    [1, True],
    {"a": np.zeros(2)},
    {"b": np.zeros(2)},
    b"ab",
    "ab",
    datetime.date(2020, 1, 1),
    1 << 80,
    (1 << 80) + 1,
]


def test_different_data_have_different_digests() -> None:
    digests = [digest(value) for value in DISTINCT]
    same = [(i, j) for i in range(len(digests)) for j in range(i) if digests[i] == digests[j]]
    assert same == []
    assert all(len(d) == 32 and int(d, 16) >= 0 for d in digests)


_any_array = arrays.arrays(
    dtype=arrays.scalar_dtypes() | arrays.unicode_string_dtypes(max_len=4),
    shape=arrays.array_shapes(max_dims=3, max_side=7),
)


@given(_any_array)
def test_memory_layout_is_not_content(array: Any) -> None:
    expected = digest(array)
    wide = np.empty((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
    wide[..., ::2] = array
    for same in (np.asfortranarray(array), wide[..., ::2], array.astype(array.dtype.newbyteorder()), array[::-1][::-1]):
        assert digest(same) == expected


@given(_any_array, st.data())
def test_every_element_counts(array: Any, data: Any) -> None:
    if array.dtype.kind not in "iu":
        array = np.arange(array.size, dtype="i8").reshape(array.shape)
    other = array.copy()
    other.flat[data.draw(st.integers(0, array.size - 1))] ^= other.dtype.type(1)
    assert digest(other) != digest(array)


def test_the_last_element_beyond_every_block_counts() -> None:
    for make in (np.zeros, lambda n: np.zeros((n, 2)).T, lambda n: np.full(n, "a", dtype=object)):
        one, other = make(1_200_000), make(1_200_000)
        other[-1, ...] = "b" if other.dtype == object else 1.0
        assert digest(one) != digest(other)
    frames = [pd.DataFrame({"a": pd.array([1] * 70_000 + [last], "Int64")}) for last in (1, 2)]
    assert digest(frames[0]) != digest(frames[1])


def test_a_pandas_index_is_not_content() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 8])
    assert digest(frame) == digest(frame.reset_index(drop=True))


def test_a_digest_is_the_same_in_every_process() -> None:
    program = (
        "import sys, numpy as np, pandas as pd; from overt.capture.digest import digest\n"
        "frame = pd.DataFrame({'a': ['x', None], 'c': pd.Categorical(['u', 'v']), 'o': [(1, 'a'), {'k': 2.5}]})\n"
        "print(digest(frame, np.arange(9)[::2], ['s', None, 3]), flush=True)"
    )
    digests = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
        digests.add(done.stdout)
    assert len(digests) == 1


def test_these_digests_never_change() -> None:
    """A new version that computed others would make every recorded dataset a stranger."""
    assert digest(np.arange(6.0).reshape(2, 3)) == "1057c447ba79b7c3001996236ab4bacf"
    assert digest(["a", None]) == "978b4afcf23b73669ed0cdef74f6470e"
    assert digest(sp.csr_matrix(np.eye(3))) == "dff75e0d3f9096fd24e082e4b0e11671"


@pytest.mark.parametrize("layout", ["C", "F", "strided", "frame", "sparse"])
def test_no_data_is_copied(layout: str) -> None:
    if layout == "sparse":
        value: Any = sp.eye(500_000, format="csr")
    else:
        value = np.zeros((40_000, 100), order="F" if layout == "F" else "C")  # 32 MB
        value = value[:, ::2] if layout == "strided" else value
        value = pd.DataFrame(value) if layout == "frame" else value
    tracemalloc.start()
    digest(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


class Refusing:
    def __repr__(self) -> str:
        raise ValueError

    def __len__(self) -> int:
        raise RuntimeError

    @property
    def shape(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("value", [Refusing(), [Refusing()], None, 3, "x", [[1], [2, 3]], iter([1]), [], {}, {1, 2}])
def test_any_data_has_a_description(value: Any) -> None:
    found = dataset(value, name="d")
    assert len(found.digest) == 32
    json.dumps([found.schema, found.profile])


def test_a_list_that_holds_itself_has_a_digest() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert len(dataset(loop, name="d").digest) == 32


def test_the_target_counts() -> None:
    X, y = np.eye(3), np.array([0, 1, 0])
    digests = {dataset(X, t, name="d").digest for t in (None, y, 1 - y, y.astype(float), pd.Series(y), y.tolist())}
    assert len(digests) == 6


def mlflow_dict(data: Any) -> tuple[Any, Any]:
    found = data.to_dict()
    return json.loads(found["schema"]), json.loads(found["profile"])


@pytest.mark.parametrize("y", [None, np.array([0, 1]), np.array(["a", "b"])])
def test_an_array_has_mlflows_schema_and_profile(y: Any) -> None:
    X = np.zeros((2, 3), dtype="f4")
    found = dataset(X, y, name="train")
    assert (found.rows, found.columns, found.kind, found.name) == (2, 3, "numpy", "train")
    expected = mlflow_dict(mlflow.data.from_numpy(X, targets=y))
    assert json.loads(json.dumps([found.schema, found.profile])) == list(expected)


def test_a_frame_has_mlflows_schema_and_profile() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "y": [0.5, 1.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema, _ = mlflow_dict(mlflow.data.from_pandas(frame))
        _, profile = mlflow_dict(mlflow.data.from_pandas(frame[["a", "b"]]))
    found = dataset(frame[["a", "b"]], frame["y"], name="train")
    assert (found.schema, found.profile, found.kind) == (schema, profile, "pandas")


def test_sparse_data_has_a_tensors_schema_in_every_format() -> None:
    for make in (sp.csr_matrix, sp.coo_matrix, sp.csr_array):
        found = dataset(make(np.eye(3)), name="d")
        assert found.schema is not None
        features = json.loads(found.schema["mlflow_tensorspec"]["features"])
        assert features == [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]
        assert found.profile == {"features_shape": [3, 3], "features_nonzero": 3}
