"""The JSONL store as files: what each call leaves in the folder, and what is read from folders in any state."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from overt import clock
from overt.errors import ArtifactNotFound, OvertWarning, RunNotFound, StoreRejected, StoreUnavailable
from overt.records import Metric, Model, Param, RunSpec, Tag
from overt.stores import appending, jsonl
from overt.stores.jsonl import JsonlStore
from overt.stores.runfile import RunFile, RunState
from overt.stores.runline import as_text, typed

NOW_MS = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> JsonlStore:
    return JsonlStore(tmp_path / "experiments")


def created(store: JsonlStore, name: str = "run", **details: Any) -> str:
    return store.create_run(RunSpec(clock.new_key(), name, "experiment", NOW_MS, **details))


def sealed(store: JsonlStore, name: str = "run", **details: Any) -> str:
    run_id = created(store, name, **details)
    store.finish(run_id, "FINISHED", NOW_MS + 1_000)
    store.seal(run_id)
    return run_id


def lines(store: JsonlStore) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.lines.read_text("utf-8").splitlines()]


def test_a_sealed_run_has_one_line_with_the_documents_fields(store: JsonlStore, tmp_path: Path) -> None:
    run_id = created(store, "rf-v1", tags={"developer": "daeyoung"})
    store.log_batch(run_id, [Param("n_estimators", "100"), Param("path", "1e-1"), Metric("accuracy", 0.93, 0, NOW_MS)])
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "report.json").write_text("{}")
    store.log_artifacts(run_id, tmp_path / "files")
    store.finish(run_id, "FINISHED", NOW_MS + 500)
    assert not store.lines.exists()
    store.seal(run_id)
    (line,) = lines(store)
    assert line["timestamp"].startswith("2023-11-1")
    assert line | {"timestamp": ""} == {
        "run_id": run_id,
        "experiment": "experiment",
        "run_name": "rf-v1",
        "timestamp": "",
        "status": "FINISHED",
        "params": {"n_estimators": 100, "path": "1e-1"},
        "metrics": {"accuracy": 0.93},
        "tags": {"developer": "daeyoung"},
        "artifacts": ["report.json"],
        "started_ms": NOW_MS,
        "ended_ms": NOW_MS + 500,
    }


def test_a_run_sealed_again_supersedes_its_line(store: JsonlStore) -> None:
    run_id = sealed(store)
    store.seal(run_id)
    assert len(lines(store)) == 1, "sealing again without news"
    JsonlStore(store.folder).log_batch(run_id, [Metric("f1_score", 0.5, 0, NOW_MS)])
    (listed,) = store.iter_runs()
    assert listed.metrics == {"f1_score": 0.5}, "before it is sealed"
    JsonlStore(store.folder).seal(run_id)
    assert [line["metrics"] for line in lines(store)] == [{}, {"f1_score": 0.5}]
    (listed,) = store.iter_runs()
    assert (listed.metrics, listed.status) == ({"f1_score": 0.5}, "FINISHED")


def test_what_is_said_again_makes_no_second_line(store: JsonlStore) -> None:
    run_id = created(store)
    batch = [Param("lr", "0.1"), Tag("stage", "one")]
    store.log_batch(run_id, batch)
    store.finish(run_id, "FINISHED", NOW_MS)
    store.seal(run_id)
    again = JsonlStore(store.folder)
    again.log_batch(run_id, batch)
    again.finish(run_id, "FINISHED", NOW_MS)
    again.seal(run_id)
    assert len(lines(store)) == 1


def test_a_run_that_goes_on_is_listed_as_it_is_now(store: JsonlStore) -> None:
    run_id = created(store, "training")
    store.log_batch(run_id, [Metric("loss", 0.5, 1, NOW_MS), Metric("loss", 0.25, 2, NOW_MS)])
    (listed,) = JsonlStore(store.folder).iter_runs()
    assert (listed.id, listed.status, listed.metrics) == (run_id, "RUNNING", {"loss": 0.25})


def test_a_store_that_has_read_its_lines_sees_what_others_write_afterwards(store: JsonlStore) -> None:
    line = json.dumps({"run_id": "theirs", "experiment": "e", "run_name": "r", "timestamp": "2026-01-01"})
    line = line[:-1] + ', "params": {}, "metrics": {}, "tags": {}, "artifacts": []}\n'
    store.folder.mkdir()
    store.lines.write_text(line)
    assert store.read_run("theirs").run.name == "r"
    with store.lines.open("a") as file:
        file.write(line.replace("theirs", "others"))
    assert store.read_run("others").run.id == "others"
    assert [run.id for run in store.iter_runs()] == ["theirs", "others"]
    store.lines.unlink()
    assert list(store.iter_runs()) == []


def test_a_line_that_was_cut_off_is_left_out_and_goes_with_the_next(store: JsonlStore) -> None:
    first = sealed(store)
    torn = store.lines.read_bytes()[:-40]
    store.lines.write_bytes(store.lines.read_bytes() + torn)
    with pytest.warns(OvertWarning, match=r"line 2 of .*runs\.jsonl is left out"):
        assert [run.id for run in store.iter_runs()] == [first]
    second = sealed(store)
    assert [line["run_id"] for line in lines(store)] == [first, second]


def test_a_last_line_that_only_lacks_its_newline_stays(store: JsonlStore) -> None:
    first = sealed(store)
    store.lines.write_bytes(store.lines.read_bytes().rstrip(b"\n"))
    second = sealed(store)
    assert [line["run_id"] for line in lines(store)] == [first, second]


HEAD = b'{"run_id": "x", "experiment": "e", "run_name": "r", '


@pytest.mark.parametrize(
    "damage",
    [
        b"not json\n",
        b"[1]\n",
        b'{"run_id": "x"}\n',
        b"\x00\xff\n",
        HEAD + b'"timestamp": "now", "params": {}, "metrics": {}}\n',
        HEAD + b'"started_ms": "now", "params": {}, "metrics": {}}\n',
        HEAD + b'"started_ms": -1, "params": {}, "metrics": {}}\n',
        HEAD + b'"started_ms": 1, "params": [], "metrics": {}}\n',
        HEAD + b'"started_ms": 1, "params": {}, "metrics": {"a": "b"}}\n',
        HEAD + b'"started_ms": 1, "params": {}, "metrics": {"a": []}}\n',
        HEAD + b'"started_ms": 1, "params": {}, "metrics": {}, "status": []}\n',
        HEAD + b'"started_ms": 1, "params": {}, "metrics": {}, "tags": null}\n',
        HEAD + b'"timestamp": "2026-02-14", "params": {}, "metrics": {}, "tags": null}\n',
        HEAD + b'"timestamp": "2026-02-14", "params": {}, "metrics": {}, "tags": [1]}\n',
        HEAD + b'"timestamp": "1914-02-14", "params": {}, "metrics": {}}\n',
        HEAD + b'"started_ms": 1, "params": {"a": "\\ud800"}, "metrics": {}}\n',
        HEAD + b'"started_ms": 1, "params": {}, "metrics": {"a": 1' + b"0" * 400 + b"}}\n",
        HEAD.replace(b'"x"', b'"../x"') + b'"started_ms": 1, "params": {}, "metrics": {}}\n',
    ],
)
def test_damaged_lines_are_left_out_with_one_warning(store: JsonlStore, damage: bytes) -> None:
    first = sealed(store)
    store.lines.write_bytes(damage + store.lines.read_bytes() + damage)
    with pytest.warns(OvertWarning, match=r"line 1 of .* it is no run: .*, and so are 1 more") as warned:
        assert [run.id for run in store.iter_runs()] == [first]
    assert len(warned) == 1


def test_a_disk_that_is_full_leaves_every_file_as_it_was(store: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = sealed(store)
    store.log_batch(run_id, [Tag("stage", "one")])
    before = {path: path.read_bytes() for path in store.folder.rglob("*.jsonl")}
    write = os.write

    def fills_up(descriptor: int, data: memoryview) -> int:
        if len(data) > 20:
            return write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(appending.os, "write", fills_up)
        for call in (lambda: store.log_batch(run_id, [Tag("stage", "two" * 20)]), lambda: store.seal(run_id)):
            with pytest.raises(StoreUnavailable, match="No space left"):
                call()
    assert {path: path.read_bytes() for path in store.folder.rglob("*.jsonl")} == before
    store.log_batch(run_id, [Tag("stage", "two" * 20)])
    store.seal(run_id)
    assert lines(store)[-1]["tags"] == {"stage": "two" * 20}
    assert JsonlStore(store.folder).read_run(run_id).run.tags == {"stage": "two" * 20}, "it is in the records as well"


def test_a_batch_that_stands_twice_in_the_file_is_read_once(store: JsonlStore) -> None:
    run_id = created(store)
    points = [Metric("loss", value, step, NOW_MS) for step, value in enumerate([0.5, math.nan, 0.25])]
    for _ in range(2):
        JsonlStore(store.folder).log_batch(run_id, points)
    assert [point.step for point in store.iter_points(run_id, "loss")] == [0, 1, 2]
    assert store.read_run(run_id).points == {"loss": 3}


def test_values_that_are_no_numbers_are_valid_json_and_read_back(store: JsonlStore) -> None:
    run_id = created(store)
    values = {"nan": math.nan, "inf": math.inf, "minus": -math.inf}
    store.log_batch(run_id, [Metric(name, value, 0, NOW_MS) for name, value in values.items()])
    store.finish(run_id, "FINISHED", NOW_MS)
    store.seal(run_id)
    assert b"NaN" not in store.lines.read_bytes()
    (run,) = store.iter_runs()
    assert {name: repr(value) for name, value in run.metrics.items()} == {n: repr(v) for n, v in values.items()}


def test_a_last_line_that_pythons_own_writer_wrote_stays(store: JsonlStore) -> None:
    store.folder.mkdir()
    line = {"run_id": "a", "experiment": "e", "run_name": "r", "timestamp": "2026-02-14T09:30:00", "params": {}}
    store.lines.write_text(json.dumps(line | {"metrics": {"loss": math.nan, "n": 10**30}}))
    run_id = sealed(store)
    assert {run.id for run in store.iter_runs()} == {"a", run_id}


def test_a_run_that_is_sealed_while_others_are_listed_is_among_them(
    store: JsonlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = created(store)
    read = jsonl.read_lines

    def seals_first(path: Path) -> Any:
        found = list(read(path))
        store.seal(run_id)
        return found

    monkeypatch.setattr(jsonl, "read_lines", seals_first)
    assert [run.id for run in JsonlStore(store.folder).iter_runs()] == [run_id]


def test_what_another_machine_added_is_in_the_line(store: JsonlStore) -> None:
    run_id = created(store)
    store.log_batch(run_id, [Tag("ours", "1")])
    JsonlStore(store.folder).log_batch(run_id, [Tag("theirs", "2")])
    store.seal(run_id)
    assert lines(store)[0]["tags"] == {"ours": "1", "theirs": "2"}


def test_lines_without_their_records_have_no_key_to_go_on_with(store: JsonlStore) -> None:
    run_id = sealed(store)
    (store.folder / "records" / f"{run_id}.jsonl").unlink()
    (run,) = store.iter_runs()
    assert (run.id, run.key) == (run_id, None)


def test_runs_are_made_where_there_are_no_hard_links(store: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **keywords: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    run_id = sealed(store)
    assert [run.key for run in store.iter_runs()] == [run_id]


def test_a_metric_that_is_null_is_one_that_the_run_has_not(store: JsonlStore) -> None:
    """The document's class writes a score that could not be computed, None, so; in a table its cell is empty."""
    store.folder.mkdir()
    store.lines.write_text(
        '{"run_id": "a", "experiment": "e", "run_name": "r", "timestamp": "2026-02-14", "params": {"depth": null}, '
        '"metrics": {"accuracy": 0.9, "roc_auc": null}, "tags": {}, "artifacts": []}\n'
    )
    assert store.read_run("a").run.metrics == {"accuracy": 0.9}
    assert [point.name for point in store.iter_all_points("a")] == ["accuracy"]


def test_the_nan_of_pythons_own_writer_is_read(store: JsonlStore) -> None:
    store.folder.mkdir()
    line = {"run_id": "a", "experiment": "e", "run_name": "r", "timestamp": "2026-02-14T09:30:00", "params": {}}
    store.lines.write_text(json.dumps(line | {"metrics": {"loss": math.nan, "gain": math.inf, "n": 3}}) + "\n")
    (run,) = store.iter_runs()
    assert repr(dict(run.metrics)) == "{'loss': nan, 'gain': inf, 'n': 3.0}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("100", 100), ("0.1", 0.1), ("-3", -3), ("True", True), ("None", None), ("1e-05", 1e-05)),
        *((text, text) for text in ("1e-5", "1.0e-3", "01", "1_000", "+1", "nan", "inf", "true", "", "a", "(1,)")),
        *((text, text) for text in ("99999999999999999999", "0x10", "1.10", "1 ", "-", "'a'", "1j")),
    ],
)
def test_a_param_is_a_value_only_where_it_reads_back_as_the_same_text(text: str, value: object) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)
    assert as_text(json.loads(json.dumps(typed(text)))) == text


@pytest.mark.parametrize("run_id", ["../../etc", "a/b", "..", "", "a\\b", "x" * 300])
def test_an_id_never_leads_out_of_the_folder(store: JsonlStore, run_id: str) -> None:
    sealed(store)
    for call in (
        store.read_run,
        lambda given: store.read_file(given, "a.txt"),
        lambda given: list(store.iter_points(given, "x")),
    ):
        with pytest.raises(RunNotFound):
            call(run_id)
    with pytest.raises((RunNotFound, StoreRejected)):
        store.log_batch(run_id, [Tag("a", "b")])


@pytest.mark.parametrize("path", ["../../../runs.jsonl", "/etc/passwd", "absent.txt", "link", ""])
def test_a_file_is_read_only_if_it_is_the_runs_own(store: JsonlStore, tmp_path: Path, path: str) -> None:
    run_id = sealed(store)
    (store.folder / "artifacts" / run_id).mkdir()
    (store.folder / "artifacts" / run_id / "link").symlink_to(store.lines)
    with pytest.raises(ArtifactNotFound):
        store.read_file(run_id, path)


def test_a_file_where_a_folder_must_be_is_that_records_fault(store: JsonlStore, tmp_path: Path) -> None:
    run_id = created(store)
    for folder, name in (("one", "a"), ("two", "a/b")):
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_text("x")
    store.log_artifacts(run_id, tmp_path / "one")
    with pytest.raises(StoreRejected):
        store.log_artifacts(run_id, tmp_path / "two")


def test_an_unknown_experiment_names_those_that_there_are(store: JsonlStore) -> None:
    sealed(store)
    with pytest.raises(RunNotFound, match=r"there is no experiment 'fraud' in .* there is experiment"):
        list(store.iter_runs(experiment="fraud"))


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_run_whose_line_is_lost_is_listed_from_its_records(store: JsonlStore, is_deleted: bool) -> None:
    first, second = sealed(store, "first"), sealed(store, "second")
    kept = store.lines.read_bytes().splitlines(keepends=True)[0]
    store.lines.write_bytes(kept)
    if is_deleted:
        store.lines.unlink()
    before = {run.id: (run.name, run.key, run.status) for run in store.iter_runs()}
    assert before == {first: ("first", first, "FINISHED"), second: ("second", second, "FINISHED")}
    store.log_batch(second, [Tag("stage", "one")])
    store.seal(second)
    assert lines(store)[-1]["run_id"] == second


@pytest.mark.parametrize("text", [b"# my notes", b'{"theirs": ', b"{'run_id"])
def test_a_last_line_of_others_without_its_newline_stays(store: JsonlStore, text: bytes) -> None:
    first = sealed(store)
    store.lines.write_bytes(store.lines.read_bytes() + text)
    second = sealed(store)
    assert store.lines.read_bytes().splitlines()[1] == text
    with pytest.warns(OvertWarning, match="line 2 of"):
        assert {run.id for run in store.iter_runs()} == {first, second}


@pytest.mark.parametrize("half", [b"{", b'{"run', b'{"run_id":"ab', b'{"run_id": "ab'])
def test_half_a_line_is_cut_however_little_there_is_of_it(store: JsonlStore, half: bytes) -> None:
    first = sealed(store)
    store.lines.write_bytes(store.lines.read_bytes() + half)
    second = sealed(store)
    assert [line["run_id"] for line in lines(store)] == [first, second]


@pytest.mark.parametrize("what", ["artifacts", "run"])
def test_no_file_of_a_run_lies_behind_a_link(store: JsonlStore, tmp_path: Path, what: str) -> None:
    run_id = created(store)
    model = Model("model", "sklearn", (), {}, {}, None, None, (), "3.12", NOW_MS)
    RunFile(store.folder / "records" / f"{run_id}.jsonl").add([model])
    private = tmp_path / "private"
    (private / run_id / "model").mkdir(parents=True)
    (private / run_id / "model" / "id_rsa").write_text("mine")
    if what == "artifacts":
        (store.folder / "artifacts").rmdir()
        (store.folder / "artifacts").symlink_to(private)
    else:
        (store.folder / "artifacts" / run_id).symlink_to(private / run_id)
    assert list(store.iter_paths(run_id)) == []
    assert store.read_run(run_id).files == ()
    with pytest.raises(ArtifactNotFound):
        store.read_file(run_id, "model/id_rsa")
    store.fetch_model(f"runs:/{run_id}/model", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_folder_behind_a_link_takes_no_run(store: JsonlStore, tmp_path: Path) -> None:
    store.folder.mkdir()
    (store.folder / "artifacts").symlink_to(tmp_path)
    with pytest.raises(StoreUnavailable, match=r"artifacts is a link, and none is followed below .* put the folder"):
        created(store)


def test_what_another_process_adds_while_a_run_is_sealed_is_listed(
    store: JsonlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = created(store)
    other = JsonlStore(store.folder)
    adds = threading.Thread(target=other.log_batch, args=(run_id, [Tag("theirs", "late")]))
    seal, records = store._seal, store.folder / "records" / f"{run_id}.jsonl"

    def seals_from_what_it_read(state: RunState, *, is_news: bool) -> None:
        adds.start()
        while b"theirs" not in records.read_bytes():
            time.sleep(0.001)
        seal(state, is_news=is_news)

    monkeypatch.setattr(store, "_seal", seals_from_what_it_read)
    store.seal(run_id)
    adds.join()
    assert [run.tags for run in JsonlStore(store.folder).iter_runs()] == [{"theirs": "late"}]
    other.seal(run_id)
    assert [line["tags"] for line in lines(store)] == [{}, {"theirs": "late"}]


def test_a_line_is_added_without_reading_those_that_are_there(
    store: JsonlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(line: bytes, path: Path) -> bool:
        raise AssertionError(f"{path} was read to add a line to it")

    monkeypatch.setattr(jsonl, "_is_last_line", reads)
    run_id = sealed(store, "first")
    store.log_batch(run_id, [Tag("a", "b")])
    store.seal(run_id)
    assert [line["tags"] for line in lines(store)] == [{}, {"a": "b"}]


def test_a_record_that_was_cut_off_is_said(store: JsonlStore) -> None:
    run_id = created(store)
    store.log_batch(run_id, [Tag("first", "1"), Tag("last", "2")])
    store.finish(run_id, "FINISHED", NOW_MS + 1_000)
    store.seal(run_id)
    assert store.read_run(run_id).run.tags == {"first": "1", "last": "2"}
    records = store.folder / "records" / f"{run_id}.jsonl"
    records.write_bytes(records.read_bytes()[:-60])
    with pytest.warns(OvertWarning, match=r"1 line\(s\) of .* cannot be read, so something .* is missing"):
        assert store.read_run(run_id).run.tags == {"first": "1"}


@pytest.mark.parametrize("left", [b"", b'{"t":"segm', b"no record\n"])
def test_of_records_that_lost_their_beginning_the_line_is_left(store: JsonlStore, left: bytes) -> None:
    run_id = created(store)
    store.log_batch(run_id, [Metric("loss", 0.5, 0, NOW_MS)])
    store.finish(run_id, "FINISHED", NOW_MS + 1_000)
    store.seal(run_id)
    (store.folder / "records" / f"{run_id}.jsonl").write_bytes(left)
    with pytest.warns(OvertWarning, match=r"\.jsonl does not begin as .*, so of this run there is"):
        details = store.read_run(run_id)
    assert (details.run.metrics, details.run.status) == ({"loss": 0.5}, "FINISHED")
    with pytest.raises(StoreUnavailable, match=r"\.jsonl: it does not begin as .*\. Bring it back"):
        store.log_batch(run_id, [Metric("loss", 0.4, 1, NOW_MS)])
    store.lines.unlink()
    with pytest.warns(OvertWarning, match=r"\.jsonl does not begin as the records of a run do, so its run is left out"):
        assert list(store.iter_runs()) == []


def test_a_run_that_is_delivered_again_has_no_second_line(store: JsonlStore, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "report.json").write_text("{}")
    run_id = store.create_run(RunSpec(clock.new_key(), "run", "experiment", NOW_MS))
    for again in (store, JsonlStore(store.folder)):
        again.log_batch(run_id, [Metric("loss", 0.5, 0, NOW_MS), Tag("stage", "one")])
        again.log_artifacts(run_id, tmp_path / "files")
        again.finish(run_id, "FINISHED", NOW_MS)
        again.seal(run_id)
        assert list(again.iter_open()) == []
    assert len(lines(store)) == 1
    assert (store.folder / "records" / f"{run_id}.jsonl").read_bytes().count(b"loss") == 1
