"""Runs as one wide table, in the columns of the source document's own tracker, and everything else beside it.

::

    experiments.csv      timestamp experiment notes run_id run_name status param_* metric_*: a row for each sealed run
    experiments.runs/    the same runs whole, as a JSONL store

The table is replaced, never written into, so a reader sees each row whole. Rows, columns and cells that others wrote
stay as they are and where they are; a table that cannot be read whole is left alone, and what was to be added waits.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from overt.errors import StoreUnavailable
from overt.journal.codec import is_key
from overt.records import NOTES_TAG, RunSummary
from overt.say import warn
from overt.stores.appending import lock, replace
from overt.stores.jsonl import JsonlStore
from overt.stores.protocols import ModelStore, QueryStore, ResumableStore, SealableStore, Store
from overt.stores.runfile import RunState
from overt.stores.runline import NotARun, is_id, timestamp, to_milliseconds
from overt.stores.uri import folder_beside

LONGEST_CELL = 10_000
"""Characters of a cell; a longer param is whole in the folder beside the table. Python's own reader takes 131,072."""

_COLUMNS = ("timestamp", "experiment", "notes", "run_id", "run_name", "status")
_BOM = b"\xef\xbb\xbf"
_ENDS = (b"\n", b"\r")


class CsvStore(JsonlStore):
    """The runs of one table.

    Parameters
    ----------
    path : Path
        The table, which is made with the first run. The folder beside it has its name and ends in ``.runs``.
    """

    def __init__(self, path: Path) -> None:
        path = Path(os.path.realpath(path))  # a link is not to be replaced by a table of its own
        super().__init__(folder_beside(path))
        self.path = path

    def _seal(self, state: RunState, *, is_news: bool) -> None:
        with lock(self.folder / ".table"):
            self._check_writable()
            replace(self.path, with_row(_content(self.path), _row(state), self.path))
        super()._seal(state, is_news=is_news)  # last: a run that has its line is not sealed again

    def _check_writable(self) -> None:
        """Raise if the table is marked as one that is not to be changed: replacing it would not ask."""
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise StoreUnavailable(
                f"{self.path} is marked read-only and left as it is: chmod u+w it, or name another file for the runs"
            )

    def _runs(self) -> dict[str, RunSummary]:
        """The runs beside the table, and those that the table alone has: the document's, or all if it came alone."""
        beside = super()._runs()  # every run that has records, so nothing can go on with the others
        alone = (run for run in self._rows().values() if run.id not in beside)
        return {run.id: dataclasses.replace(run, key=None) for run in alone} | beside

    def _rows(self) -> Mapping[str, RunSummary]:
        return self._once(self.path, lambda: {run.id: run for run, _ in read_table(_content(self.path), self.path)})

    def _line_alone(self, run_id: str) -> RunSummary | None:
        return super()._line_alone(run_id) or self._rows().get(run_id)


def with_row(content: bytes, row: Mapping[str, str], path: Path) -> bytes:
    """The table with one more row, or with new cells in that of the same run, which keeps its place and others' cells.

    Parameters
    ----------
    content : bytes
        The table as it is; empty if there is none.
    row : mapping
        Cells by column; columns that the table lacks are added at its right. An empty one empties no cell.
    path : Path
        Where it is, for messages.
    """
    if not content.strip():
        return _line(row) + _line(row.values())
    columns = _columns(content, path)
    is_simple = content.endswith(b"\n") and content.count(b'"') % 2 == 0
    if is_simple and row["run_id"].encode() not in content and row.keys() <= set(columns):
        return content + _line(row.get(name, "") for name in columns)  # the common case: not every cell is read
    rows = _rows(content, path)
    if problem := _cut_off(content, rows, path):
        raise StoreUnavailable(problem)
    columns += [name for name in row if name not in columns]
    wide = [cells + [""] * (len(columns) - len(cells)) if cells else [] for cells in rows[1:]]
    at = columns.index("run_id")
    place = next((number for number, cells in enumerate(wide) if cells and cells[at] == row["run_id"]), len(wide))
    there = wide[place] if place < len(wide) else [""] * len(columns)
    wide[place : place + 1] = [[row.get(name) or cell for name, cell in zip(columns, there, strict=True)]]
    bom = _BOM if content.startswith(_BOM) else b""
    return bom + b"".join(map(_line, [columns, *wide]))


def read_table(
    content: bytes, path: Path, *, is_strict: bool = False
) -> Iterator[tuple[RunSummary, Mapping[str, str]]]:
    """The runs of a table with the cells of each; a row without an id is given one that is made from its cells.

    Parameters
    ----------
    content : bytes
        Of the table.
    path : Path
        Where it is, for messages.
    is_strict : bool
        Whether a row that is no run, or may have been cut off, raises StoreUnavailable. A row that is no run, or that
        was cut off, is left out with a warning otherwise.
    """
    if not content.strip():
        return
    columns = _columns(content, path)
    rows = _whole_rows(content, path, is_strict=is_strict)
    seen: Counter[tuple[str, ...]] = Counter()
    ids: set[str] = set()
    bad: list[tuple[int, str]] = []
    for number, cells in enumerate(rows[1:], start=2):
        row = {name: cell for name, cell in zip(columns, cells, strict=False) if cell != ""}
        if not row:
            continue
        try:
            identity = (row.get("run_id", ""), row["timestamp"], row["experiment"])
            seen[identity] += 1
            is_first = bool(identity[0]) and identity[0] not in ids  # else it is a copy that somebody made
            ids.add(identity[0])
            yield _summary(identity[0] if is_first else _made_id(identity, seen[identity]), row), row
        except (KeyError, NotARun) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            if is_strict:
                message = f"row {number} of {path} is no run: {reason}. Mend that row, or take it out"
                raise StoreUnavailable(message) from error
            bad.append((number, reason))
    if bad:
        number, reason = bad[0]
        others = f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
        warn(f"row {number} of {path} is left out, since it is no run: {reason}{others}. It is yours to mend or remove")


def _row(state: RunState) -> dict[str, str]:
    spec = state.spec
    fixed = (
        timestamp(spec.started_ms),
        spec.experiment,
        state.tags.get(NOTES_TAG, ""),
        spec.key,
        spec.name,
        state.status,
    )
    return (
        {name: _cell(text) for name, text in zip(_COLUMNS, fixed, strict=True)}
        | {f"param_{name}": _cell(text) for name, text in state.params.items()}
        | {f"metric_{name}": repr(point.value) for name, point in state.last.items()}
    )


def _summary(run_id: str, row: Mapping[str, str]) -> RunSummary:
    if not is_id(run_id):
        raise NotARun(f"its run_id must be one that a file can be named by (got {run_id!r:.60})")
    return RunSummary(
        id=run_id,
        name=row.get("run_name") or row["experiment"],
        experiment=row["experiment"],
        status=row.get("status", "FINISHED"),
        started_ms=to_milliseconds(row["timestamp"]),
        key=run_id if is_key(run_id) else None,
        metrics={name.removeprefix("metric_"): _number(name, row[name]) for name in row if name.startswith("metric_")},
        params={name.removeprefix("param_"): row[name] for name in row if name.startswith("param_")},
        tags={NOTES_TAG: row["notes"]} if "notes" in row else {},
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _columns(content: bytes, path: Path) -> list[str]:
    columns = next(csv.reader(io.StringIO(_text(content, path), newline=""), strict=True), [])
    missing = {"timestamp", "experiment"} - set(columns)
    if missing and len(columns) == 1 and ";" in columns[0]:
        raise StoreUnavailable(f"semicolons stand between the cells of {path}: save it again, with commas")
    if missing:
        raise StoreUnavailable(
            f"the first row of {path} must name the columns of runs, and lacks {' and '.join(sorted(missing))}: it is "
            "another table. Name another file for the runs"
        )
    return columns


def _rows(content: bytes, path: Path) -> list[list[str]]:
    """All rows, that of the columns first.

    Raises
    ------
    StoreUnavailable
        When one has more cells than there are columns, or the table ends inside of one: it is not to be written again.
    """
    reader = csv.reader(io.StringIO(_text(content, path), newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if rows and len(cells) > len(rows[0]):
                raise csv.Error(f"it has {len(cells)} cells, and there are {len(rows[0])} columns")
            rows.append(cells)
    except csv.Error as error:
        raise StoreUnavailable(
            f"line {reader.line_num} of {path} cannot be read: {error}. The table is left as it is; mend that line, or "
            "take it out"
        ) from error
    return rows


def _whole_rows(content: bytes, path: Path, *, is_strict: bool) -> list[list[str]]:
    """The rows, without a last one that was cut off; see :func:`read_table`."""
    rows = _rows(content, path)
    cut_off = _cut_off(content, rows, path)
    problem = cut_off or _perhaps_cut_off(content, path)
    if problem and is_strict:
        raise StoreUnavailable(problem)
    if problem:
        warn(problem)
    return rows[:-1] if cut_off else rows


def _cut_off(content: bytes, rows: Sequence[Sequence[str]], path: Path) -> str:
    """What to say of a last row that lacks cells and its newline; empty if there is none.

    A number that was cut off is another number, and the start of an id is an id as well.
    """
    if content.endswith(_ENDS) or not 0 < len(rows[-1]) < len(rows[0]):
        return ""
    return (
        f"line {_lines_in(content)} of {path} was cut off: it has {len(rows[-1])} cells, and there are {len(rows[0])} "
        "columns. The table is left as it is; complete that line, or take it out"
    )


def _perhaps_cut_off(content: bytes, path: Path) -> str:
    if content.endswith(_ENDS):
        return ""
    return (
        f"line {_lines_in(content)} of {path} has no newline at its end, so its last cell may have been cut off. Add "
        "the newline if the line is whole, or take it out"
    )


def _lines_in(content: bytes) -> int:
    return len(content.splitlines())


def _text(content: bytes, path: Path) -> str:
    try:
        return content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreUnavailable(f"{path} is no UTF-8 text ({error}). Save it as CSV in UTF-8") from error


def _line(cells: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # type: ignore[arg-type]  # quotes cells with either in them
    return text.getvalue().removesuffix("\r\n").encode("utf-8") + b"\n"


def _cell(text: str) -> str:
    if len(text) <= LONGEST_CELL:
        return text
    return f"{text[:LONGEST_CELL]} … ({len(text):,} characters; whole in the folder beside this table)"


def _number(name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise NotARun(f"its {name} must be a number (got {cell!r:.60})") from None


def _made_id(identity: Sequence[str], number: int) -> str:
    """12 hexadecimal digits, as the document's other tracker gives: of cells that no rewriting of the table changes."""
    return hashlib.sha256("\0".join([*identity, str(number)]).encode()).hexdigest()[:12]


def _conforms(store: CsvStore) -> tuple[Store, ModelStore, ResumableStore, SealableStore, QueryStore]:
    return store, store, store, store, store
