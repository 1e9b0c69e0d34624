from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.properties.strategies import HEAD, METRIC, MS, PATH, RECORD, TEXT

from overt.journal.codec import BadLine, decode, encode, encode_metric, is_safe_path
from overt.journal.reader import read_batch
from overt.records import Metric, Model, Record, SegmentHead


def plain(value: object) -> str:
    return repr(value)  # NaN equals NaN


@given(RECORD | HEAD)
def test_a_record_is_read_as_it_was_written(record: Record | SegmentHead) -> None:
    line = encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert plain(decode(line)) == plain(record)


@given(METRIC)
def test_the_hot_path_writes_what_the_codec_writes(metric: Metric) -> None:
    line = encode_metric(metric.name, metric.value, metric.step, metric.time_ms, metric.model, metric.dataset)
    assert line == encode(metric)


@given(st.lists(RECORD, max_size=8), st.data())
def test_any_prefix_of_a_journal_gives_a_prefix_of_its_records(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "prefix.jsonl"
    whole = b"".join(map(encode, records))
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    batch = read_batch(path, 0)
    assert batch.bad_lines == 0
    assert batch.end == whole[:cut].rfind(b"\n") + 1
    assert plain(batch.records) == plain(tuple(records[: whole[:cut].count(b"\n")]))


@given(st.lists(RECORD, max_size=6), st.data())
def test_a_bad_line_is_counted_and_takes_no_other_with_it(
    tmp_path: Path, records: list[Record], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(records)))
    bad = data.draw(
        st.sampled_from([b"", b"{", b"\x00\xff", b"[]", b'{"t":"metric"}', b'{"t":"seal"} {"t":"seal"}', b'{"t":[]}'])
    )
    lines = [encode(record) for record in records]
    lines.insert(place, bad + b"\n")
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(lines))
    batch = read_batch(path, 0)
    assert (batch.bad_lines, batch.end) == (1, path.stat().st_size)
    assert plain(batch.records) == plain(tuple(records))


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(RECORD | HEAD, st.data())
def test_a_line_with_any_field_replaced_is_a_record_or_a_bad_line_and_nothing_else(
    record: Record | SegmentHead, data: st.DataObject
) -> None:
    fields: dict[str, Any] = orjson.loads(encode(record))
    places = [(fields, name) for name in fields]
    places += [(inner, name) for inner in fields.values() if isinstance(inner, dict) for name in inner]
    container, name = data.draw(st.sampled_from(places))
    container[name] = data.draw(JSON_VALUE)
    line = json.dumps(fields).encode()
    try:
        decoded = decode(line)
    except BadLine:
        return
    assert plain(decode(encode(decoded))) == plain(decoded)  # what is accepted can be written down again


@given(st.binary(max_size=60))
@example(b'{"t":{}}')
@example(b'{"t":[]}')
@example(b"[" * 5000)
@example(b'{"t":"metric","name":"x","value":1e999,"step":0,"ms":0}')
@example(b'{"t":"metric","name":"x","value":[],"step":0,"ms":0}')
@example(b'{"t":"metric","name":"x","value":1,"step":9223372036854775808,"ms":0}')
@example(b'{"t":"metric","name":"\\ud800","value":1,"step":0,"ms":0}')
def test_no_bytes_do_anything_but_decode_or_be_a_bad_line(line: bytes) -> None:
    with suppress(BadLine):
        decode(line)


def test_what_no_store_could_hold_is_a_bad_line() -> None:
    def metric(step: int = 0, ms: int = 0) -> bytes:
        return orjson.dumps({"t": "metric", "name": "x", "value": 1.0, "step": step, "ms": ms})

    assert decode(metric(2**63 - 1, 253_402_300_799_999))
    for line in (metric(step=2**63), metric(ms=2**62), metric(ms=-1)):
        with pytest.raises(BadLine):
            decode(line)


@pytest.mark.parametrize(
    ("path", "cells"), [("rows.json", {}), ("../rows.csv", {}), ("rows.csv", {"a": [1]}), ("rows.csv", [1]), (1, {})]
)
def test_a_row_that_is_none_is_a_bad_line(path: Any, cells: Any) -> None:
    with pytest.raises(BadLine):
        decode(orjson.dumps({"t": "row", "path": path, "cells": cells, "ms": 1}))


@given(st.builds(Model, *[PATH, TEXT], st.just(()), *[st.just({})] * 2, *[st.none()] * 2, st.just(()), TEXT, MS))
def test_a_model_nested_too_deeply_to_be_written_down_is_a_bad_line(model: Model) -> None:
    fields = orjson.loads(encode(model))
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    line = orjson.dumps(fields).replace(b'"flavor_fields":{}', b'"flavor_fields":' + deep)
    assert deep in line
    with pytest.raises(BadLine):
        decode(line)


@given(st.text(max_size=30))
@example("..")
@example("a/../b")
@example("/etc/passwd")
@example("C:/x")
@example("a\\b")
@example("a//b")
@example("a\x00b")
@example("a/")
def test_a_safe_path_stays_inside(path: str) -> None:
    inside = Path("/base/run")
    if is_safe_path(path):
        joined = inside.joinpath(*path.split("/"))
        assert joined.is_relative_to(inside)
        assert joined != inside
        assert ".." not in joined.parts
    else:
        assert path in ("",) or any(mark in path for mark in (".", "/", "\\", ":")) or min(map(ord, path)) < 32
