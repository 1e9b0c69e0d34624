from __future__ import annotations

import os
from pathlib import Path

import pytest

from overt.errors import JournalError
from overt.journal import reader
from overt.journal.codec import encode, encode_metric
from overt.journal.folder import MAIN_SEGMENT, create_run_folder, iter_run_folders, run_folder, segment_paths
from overt.journal.owner import this_process
from overt.journal.reader import iter_heads, iter_records, open_regular, read_batch, read_blob, read_head
from overt.journal.writer import JournalWriter
from overt.records import Blob, Metric, Param, RunSpec, SegmentHead

SPEC = RunSpec("ab" * 16, "a run", "Default", 1_700_000_000_000)
HEAD = encode(SegmentHead(SPEC, this_process()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / ".overt", SPEC.key)
    create_run_folder(folder)
    return folder


def metric(number: int) -> bytes:
    return encode_metric("x", float(number), number, 1, None, None)


def read_all(path: Path, **most: int) -> tuple[list[float], int]:
    found: list[float] = []
    offset = bad = 0
    while (batch := read_batch(path, offset, **most)).end > offset:
        found += [record.value for record in batch.records if isinstance(record, Metric)]
        offset, bad = batch.end, bad + batch.bad_lines
    return found, bad


def test_an_unfinished_line_is_left_for_later_and_never_written_to(folder: Path) -> None:
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + metric(0) + metric(1)[:-1])
    before = path.read_bytes()
    batch = read_batch(path, 0)
    assert batch.end == len(HEAD + metric(0))
    assert path.read_bytes() == before
    with open(path, "ab") as file:
        file.write(b"\n")
    assert [record.step for record in read_batch(path, batch.end).records if isinstance(record, Metric)] == [1]


def test_a_line_longer_than_is_ever_read_is_skipped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(reader, "LONGEST_LINE_BYTES", 8192)
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + metric(0) + b"x" * 50_000 + b"\n" + metric(1) + b"y" * 8192 + b"\n" + metric(2))
    assert read_all(path) == ([0.0, 1.0, 2.0], 2)


@pytest.mark.parametrize("size", [100, 1000, 4095, 4096, 4097, 8000])
def test_a_line_longer_than_a_chunk_is_still_read(folder: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(reader, "LONGEST_LINE_BYTES", 16_384)
    param = Param("long", "v" * size)
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + metric(0) + encode(param) + metric(1))
    assert param in list(iter_records(folder))
    assert read_all(path) == ([0.0, 1.0], 0)


def test_a_param_of_many_megabytes_survives_the_journal(folder: Path) -> None:
    param = Param("config", "v" * 9_000_000)
    JournalWriter(folder, SPEC).append(encode(param))
    assert list(iter_records(folder)) == [param]


@pytest.mark.parametrize("most", [1, 2, 3, 1000])
def test_batches_of_any_size_give_every_record_once(folder: Path, most: int) -> None:
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + b"".join(map(metric, range(7))))
    assert read_all(path, most_records=most) == (list(map(float, range(7))), 0)


def test_a_chunk_that_ends_within_a_line_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + b"".join(map(metric, range(200))))
    for size in range(len(HEAD), len(HEAD) + 70):
        monkeypatch.setattr(reader, "CHUNK_BYTES", size)
        assert read_all(path) == (list(map(float, range(200))), 0)


def test_a_bad_line_is_skipped_counted_and_glued_to_nothing(folder: Path) -> None:
    path = folder / MAIN_SEGMENT
    path.write_bytes(HEAD + metric(0) + metric(1)[:-9] + b"\n" + metric(2) + b"\x00" * 50 + b"\n" + metric(3))
    assert read_all(path) == ([0.0, 2.0, 3.0], 2)


def test_a_format_that_is_not_known_here_is_no_head(folder: Path) -> None:
    (folder / MAIN_SEGMENT).write_bytes(HEAD.replace(b'"format":1', b'"format":2'))
    assert read_head(folder / MAIN_SEGMENT) is None
    assert list(iter_heads(folder)) == []


def test_the_first_processes_segment_comes_first(folder: Path) -> None:
    for name in ("journal.9-aa.jsonl", MAIN_SEGMENT, "journal.10-bb.jsonl", "delivered.json", "journal.x.txt"):
        (folder / name).write_bytes(HEAD)
    assert [path.name for path in segment_paths(folder)] == [MAIN_SEGMENT, "journal.10-bb.jsonl", "journal.9-aa.jsonl"]
    assert segment_paths(folder / "nowhere") == []


def test_run_folders_of_an_absent_base_are_none(tmp_path: Path) -> None:
    assert list(iter_run_folders(tmp_path / "nowhere")) == []


def test_a_segment_that_is_no_regular_file_is_not_opened(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(HEAD + metric(1))
    (folder / MAIN_SEGMENT).symlink_to(secret)
    os.mkfifo(folder / "journal.pipe.jsonl")
    (folder / "journal.folder.jsonl").mkdir()
    for path in segment_paths(folder):
        with pytest.raises(JournalError):
            open_regular(path)
    assert list(iter_heads(folder)) == []
    assert list(iter_records(folder)) == []


def test_spooled_bytes_that_are_not_those_recorded_are_refused(folder: Path, tmp_path: Path) -> None:
    blob = JournalWriter(folder, SPEC).store_bytes(b"as recorded")
    assert read_blob(folder, blob) == b"as recorded"
    path = folder / "files" / blob.sha256
    with pytest.raises(JournalError, match="does not hold what was recorded"):
        read_blob(folder, Blob(blob.sha256, blob.size + 1))
    with pytest.raises(JournalError, match="too large"):
        read_blob(folder, blob, most_bytes=3)
    path.write_bytes(b"exchanged!!")
    with pytest.raises(JournalError, match="does not hold what was recorded"):
        read_blob(folder, blob)
    path.unlink()
    with pytest.raises(JournalError, match="missing"):
        read_blob(folder, blob)
    outside = tmp_path / "outside"
    outside.write_bytes(b"as recorded")
    path.symlink_to(outside)
    with pytest.raises(JournalError):
        read_blob(folder, blob)
