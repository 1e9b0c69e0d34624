"""The CSV store's table: what others wrote stays, what cannot be read whole is left alone."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest

from overt import clock
from overt.errors import OvertWarning, StoreUnavailable
from overt.records import Metric, Param, RunSpec
from overt.stores.csv import LONGEST_CELL, CsvStore, read_table

NOW_MS = 1_700_000_000_000
THEIRS = 'timestamp,experiment,notes,param_depth,mine\n2026-02-14T09:30:00,rf,"one, two",10,keep\n'


@pytest.fixture
def store(tmp_path: Path) -> CsvStore:
    return CsvStore(tmp_path / "experiments.csv")


def sealed(store: CsvStore, name: str = "run", **params: object) -> str:
    run_id = store.create_run(RunSpec(clock.new_key(), name, "experiment", NOW_MS))
    store.log_batch(run_id, [Param(key, str(value)) for key, value in params.items()])
    store.finish(run_id, "FINISHED", NOW_MS + 1_000)
    store.seal(run_id)
    return run_id


def rows(store: CsvStore) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(store.path.read_text("utf-8-sig"), newline=""), strict=True))


def test_a_sealed_run_is_a_row_in_the_documents_columns(store: CsvStore) -> None:
    run_id = store.create_run(
        RunSpec(clock.new_key(), "rf-v1", "fraud", NOW_MS, tags={"mlflow.note.content": 'first "try",\nsecond line'})
    )
    store.log_batch(run_id, [Param("depth", "10"), Metric("f1_score", 0.25, 0, NOW_MS)])
    store.finish(run_id, "FAILED", NOW_MS)
    store.seal(run_id)
    (row,) = rows(store)
    assert row.pop("timestamp").startswith("2023-11-1")
    assert row == {
        "experiment": "fraud",
        "notes": 'first "try",\nsecond line',
        "run_id": run_id,
        "run_name": "rf-v1",
        "status": "FAILED",
        "param_depth": "10",
        "metric_f1_score": "0.25",
    }


def test_new_columns_come_and_old_rows_stay(store: CsvStore) -> None:
    for number in range(3):
        sealed(store, f"run-{number}", same=number, **{f"only_{number}": "가"})
    assert [row["run_name"] for row in rows(store)] == ["run-0", "run-1", "run-2"]
    assert [row["param_same"] for row in rows(store)] == ["0", "1", "2"]
    assert [row["param_only_1"] for row in rows(store)] == ["", "가", ""]


def test_a_run_sealed_again_has_one_row(store: CsvStore) -> None:
    first, second = sealed(store, "first"), sealed(store, "second")
    store.log_batch(first, [Param("late", "yes")])
    store.seal(first)
    assert {row["run_id"]: row["param_late"] for row in rows(store)} == {first: "yes", second: ""}
    assert len(rows(store)) == 2


def test_a_run_sealed_again_without_a_new_column_has_one_row(store: CsvStore) -> None:
    run_id = sealed(store)
    store.finish(run_id, "FAILED", NOW_MS)
    store.seal(run_id)
    assert [(row["run_id"], row["status"]) for row in rows(store)] == [(run_id, "FAILED")]


def test_a_last_row_without_its_newline_is_not_glued_to_the_next(store: CsvStore) -> None:
    first = sealed(store)
    store.path.write_bytes(store.path.read_bytes().rstrip(b"\n"))
    second = sealed(store)
    assert [row["run_id"] for row in rows(store)] == [first, second]


def test_a_row_is_not_put_behind_one_that_is_torn(store: CsvStore) -> None:
    sealed(store)
    before = store.path.read_bytes() + b'2026-02-14T09:30:00,rf,"torn'
    store.path.write_bytes(before)
    with pytest.raises(StoreUnavailable, match=r"line 3 of .* cannot be read"):
        sealed(store)
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_rows_columns_and_cells_of_others_stay(store: CsvStore, bom: str, end: str) -> None:
    store.path.write_text(bom + THEIRS.rstrip("\n") + end, "utf-8")
    sealed(store, depth=3)
    sealed(store, depth=4)
    assert store.path.read_text("utf-8").startswith(bom + "timestamp,experiment,notes,param_depth,mine,")
    theirs, *ours = rows(store)
    assert (theirs["notes"], theirs["param_depth"], theirs["mine"]) == ("one, two", "10", "keep")
    assert [(row["param_depth"], row["mine"]) for row in ours] == [("3", ""), ("4", "")]
    assert {run.experiment for run in store.iter_runs()} == {"rf", "experiment"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (THEIRS + '2026-02-14T09:30:00,rf,"torn', "line 3 of .*experiments.csv cannot be read"),
        (THEIRS + "2026-02-14T09:30:00,rf,a,b,c,d,e\n", "it has 7 cells, and there are 5 columns"),
        ("name,price\nbread,2\n", "lacks experiment and timestamp: it is another table"),
        (THEIRS.encode().decode("latin-1").replace("keep", "\xe9"), "is no UTF-8 text"),
    ],
    ids=["torn", "too wide", "another table", "latin-1"],
)
def test_a_table_that_cannot_be_read_whole_is_left_alone(store: CsvStore, content: str, reason: str) -> None:
    before = content.encode("latin-1" if "\xe9" in content else "utf-8")
    store.path.write_bytes(before)
    with pytest.raises(StoreUnavailable, match=reason):
        sealed(store)
    with pytest.raises(StoreUnavailable, match=reason):
        list(store.iter_runs())
    assert store.path.read_bytes() == before
    store.path.write_text(THEIRS)  # mended
    (run_id,) = [path.name for path in (store.folder / "open").iterdir()]
    CsvStore(store.path).seal(run_id)
    assert [row["run_id"] for row in rows(store)] == ["", run_id]


@pytest.mark.parametrize(
    ("row", "reason"),
    [("yesterday,rf,,,\n", "timestamp must be a time"), ("2026-02-14T09:30:00,,,,\n", "lacks 'experiment'")],
)
def test_a_row_that_is_no_run_is_left_out_and_named(store: CsvStore, row: str, reason: str) -> None:
    store.path.write_text(THEIRS + row)
    with pytest.warns(OvertWarning, match=f"row 3 of .* is left out, since it is no run: .*{reason}"):
        assert [run.experiment for run in store.iter_runs()] == ["rf"]


@pytest.mark.parametrize("text", ["\r", "a\rb", "\r\n", "\n", '"', ",", ";", "'", "\t", " "])
def test_whatever_a_cell_holds_the_table_reads_back(store: CsvStore, text: str) -> None:
    for number in range(2):
        sealed(store, **{"sep": text, f"with {text}": number})
    (store.folder / "runs.jsonl").unlink()  # so that the table alone is read
    runs = list(store.iter_runs())
    assert len(runs) == 2
    assert {run.params["sep"] for run in runs} == {text}


def test_a_table_behind_a_link_is_the_one_that_is_written(store: CsvStore, tmp_path: Path) -> None:
    sealed(store)
    link = tmp_path / "link" / "runs.csv"
    link.parent.mkdir()
    link.symlink_to(store.path)
    sealed(CsvStore(link))
    assert link.is_symlink()
    assert len(rows(store)) == 2


def test_a_table_with_semicolons_says_so(store: CsvStore) -> None:
    store.path.write_text(THEIRS.replace(",", ";"))
    with pytest.raises(StoreUnavailable, match="semicolons stand between the cells"):
        list(store.iter_runs())


def test_rows_of_others_keep_their_ids_when_pandas_writes_the_table_again(store: CsvStore) -> None:
    store.path.write_text(THEIRS)
    (before,) = store.iter_runs()
    store.path.write_text(THEIRS.replace(",10,", ",10.0,"))
    (after,) = store.iter_runs()
    assert after.id == before.id
    assert after.params != before.params


def test_a_long_cell_is_cut_visibly_and_whole_beside_the_table(store: CsvStore) -> None:
    run_id = sealed(store, layers="x" * 200_000)
    (row,) = rows(store)
    assert row["param_layers"].startswith("x" * LONGEST_CELL + " … (200,000 characters")
    assert store.read_run(run_id).run.params == {"layers": "x" * 200_000}
    (listed,) = store.iter_runs()
    assert listed.params == {"layers": "x" * 200_000}


def test_a_table_that_came_alone_lists_its_runs(store: CsvStore, tmp_path: Path) -> None:
    run_id = sealed(store, depth=3)
    (tmp_path / "elsewhere").mkdir()
    alone = CsvStore(store.path.rename(tmp_path / "elsewhere" / "shared.csv"))
    (run,) = alone.iter_runs()
    assert (run.id, run.params, run.status) == (run_id, {"depth": "3"}, "FINISHED")
    assert alone.read_run(run_id).run == run


def test_rows_without_an_id_keep_theirs_when_columns_are_added(store: CsvStore) -> None:
    store.path.write_text(THEIRS + THEIRS.splitlines()[1] + "\n")  # twice the same row
    before = {run.id for run in store.iter_runs()}
    assert len(before) == 2
    sealed(store, another=1)
    assert before < {run.id for run in store.iter_runs()}


def test_a_run_sealed_again_keeps_its_place_and_what_others_wrote_into_its_row(store: CsvStore) -> None:
    first = sealed(store, "first", depth=3)
    second = sealed(store, "second", depth=4)
    head, row, other = store.path.read_text().splitlines()
    cells = row.split(",")
    cells[2] = "a note by hand"
    store.path.write_text(f"{head},review\n{','.join(cells)},approved\n{other},\n")
    store.log_batch(first, [Param("late", "yes"), Metric("loss", 0.5, 0, NOW_MS)])
    store.seal(first)
    assert [row["run_id"] for row in rows(store)] == [first, second]
    assert [rows(store)[0][name] for name in ("notes", "review", "param_depth", "param_late", "metric_loss")] == [
        "a note by hand",
        "approved",
        "3",
        "yes",
        "0.5",
    ]


CUT = "timestamp,experiment,notes,param_n,metric_loss\n2026-02-14T09:30:00,rf,,2,0.5\n2026-02-14T09:31:00,rf,,"


@pytest.mark.parametrize("cut", [CUT, CUT.removesuffix("09:31:00,rf,,"), CUT + "3"])
def test_a_last_row_that_was_cut_off_is_left_out_and_nothing_is_put_behind_it(store: CsvStore, cut: str) -> None:
    store.path.write_text(cut)
    with pytest.warns(OvertWarning, match=r"line 3 of .* was cut off: it has \d cells, and there are 5 columns"):
        assert [run.metrics for run in store.iter_runs()] == [{"loss": 0.5}]
    with pytest.raises(StoreUnavailable, match=r"line 3 of .* was cut off: .* complete that line, or take it out"):
        sealed(store)
    assert store.path.read_text() == cut


def test_a_row_of_overts_own_that_was_cut_off_makes_no_run(store: CsvStore) -> None:
    run_ids = [sealed(store), sealed(store)]
    store.path.write_bytes(store.path.read_bytes()[:-40])
    with pytest.warns(OvertWarning, match=r"line 3 of .* was cut off"):
        assert {run.id for run in store.iter_runs()} == set(run_ids)
    with pytest.raises(StoreUnavailable, match=r"line 3 of .* was cut off"):
        sealed(store)


def test_a_last_row_without_its_newline_may_be_cut_off_and_counts_with_a_warning(store: CsvStore) -> None:
    store.path.write_text(CUT + "3,9.8")  # of 9.87e-05, or not
    with pytest.warns(OvertWarning, match=r"line 3 of .* has no newline at its end, so its last cell may"):
        assert len(list(store.iter_runs())) == 2
    with pytest.raises(StoreUnavailable, match=r"line 3 of .* Add the newline if the line is whole"):
        list(read_table(store.path.read_bytes(), store.path, is_strict=True))


def test_a_row_that_was_copied_by_hand_is_a_run_of_its_own(store: CsvStore) -> None:
    """Whatever was changed in the copy, its time or not: of two rows with one id the first is the run of that id."""
    run_id = sealed(store, depth=1)
    head, row = store.path.read_text("utf-8").splitlines()
    copied = [row.replace(row.split(",")[0], time).replace(",1", ",2") for time in ("2026-01-02", row.split(",")[0])]
    theirs = "2026-01-0{},theirs,,x,r,FINISHED,{}"
    store.path.write_text("\n".join([head, row, *copied, theirs.format(1, 3), theirs.format(2, 4), ""]))
    found = {run.id: run.params["depth"] for run in store.iter_runs()}
    assert len(found) == 5
    assert (found[run_id], found["x"]) == ("1", "3")
    assert sorted(found.values()) == ["1", "2", "2", "3", "4"]


def test_an_empty_line_stays_one(store: CsvStore) -> None:
    """Of commas it would be a row, of NaN alone, to the document's own class."""
    store.path.write_text(f"{THEIRS}\n{THEIRS.splitlines()[1]}\n\n")
    sealed(store, late="yes")
    lines = store.path.read_text("utf-8").splitlines()
    assert [line == "" for line in lines] == [False, False, True, False, True, False]
    assert [row["experiment"] for row in rows(store)] == ["rf", "rf", "experiment"]


def test_a_table_that_is_marked_read_only_is_left_alone(store: CsvStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(store)
    before = store.path.read_bytes()
    monkeypatch.setattr(os, "access", lambda path, mode: path != store.path)  # root may write anywhere
    with pytest.raises(StoreUnavailable, match=r"is marked read-only and left as it is: chmod u\+w it, or name"):
        sealed(store)
    assert store.path.read_bytes() == before


def test_a_table_keeps_its_mode_whatever_the_umask_and_its_owner_and_group(store: CsvStore) -> None:
    sealed(store)
    store.path.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(store.path, 1234, 1235)
    before = store.path.stat()
    mask = os.umask(0o077)
    try:
        sealed(store, depth=3)
    finally:
        os.umask(mask)
    after = store.path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
