"""Any record, as Hypothesis draws it: text without lone surrogates, as :class:`overt.run.Run` writes it."""

from __future__ import annotations

from hypothesis import strategies as st

from overt.records import (
    Artifact,
    Blob,
    Dataset,
    Figure,
    Lost,
    Metric,
    Model,
    Owner,
    Param,
    Row,
    RunEnd,
    RunSpec,
    Seal,
    SegmentHead,
    Tag,
)

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)
MS = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999
COUNT = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PART = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\:"), min_size=1, max_size=12)
PATH = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
OPTIONAL = st.none() | TEXT
BLOB = st.builds(Blob, st.text("0123456789abcdef", min_size=64, max_size=64), COUNT)
ARTIFACT = st.builds(Artifact, PATH, BLOB)
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)
CELL = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT
METRIC = st.builds(Metric, TEXT, st.floats(), INT64, MS, OPTIONAL, OPTIONAL)
SPEC = st.builds(
    RunSpec, HEX, TEXT, TEXT, MS, TEXT, st.none() | HEX, OPTIONAL, st.dictionaries(TEXT, TEXT, max_size=4), OPTIONAL
)
HEAD = st.builds(SegmentHead, SPEC, st.builds(Owner, COUNT, TEXT, TEXT, TEXT))
RECORD = st.one_of(
    METRIC,
    st.builds(Param, TEXT, TEXT),
    st.builds(Tag, TEXT, TEXT),
    st.builds(Dataset, *[TEXT] * 7),
    ARTIFACT,
    st.builds(Figure, PATH, TEXT, BLOB),
    st.builds(Row, PATH.map(lambda path: f"{path}.csv"), st.dictionaries(TEXT, CELL, max_size=4), MS),
    st.builds(
        Model,
        name=PATH,
        flavor=TEXT,
        files=st.lists(ARTIFACT, max_size=3).map(tuple),
        flavor_fields=OBJECT,
        pyfunc_fields=OBJECT,
        signature=st.none() | OBJECT,
        example=st.none() | OBJECT,
        requirements=st.lists(TEXT, max_size=3).map(tuple),
        python_version=TEXT,
        created_ms=MS,
        model_type=TEXT,
        params=st.dictionaries(TEXT, TEXT, max_size=3),
        register_as=OPTIONAL,
    ),
    st.builds(Lost, COUNT, TEXT),
    st.builds(RunEnd, st.sampled_from(["FINISHED", "FAILED", "KILLED"]), MS),
    st.just(Seal()),
)
