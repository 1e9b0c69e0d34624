"""What differs between runs: their settings and scores, and what surrounded them, code, data and packages.

Only what differs is kept. What a run does not hold is None there. Packages that a run did not record are no difference:
a note says so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from overt.display import html_table, printable, text_table
from overt.errors import ConfigurationError
from overt.optional import require
from overt.query.diffs import UNTRACKED
from overt.query.finding import open_configured, run_id_of
from overt.records import RunDetails, RunSummary
from overt.run import Run
from overt.stores.protocols import QueryStore, Store

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")

_DIFF = "overt/uncommitted.diff"
_PACKAGES = "overt/packages.json"
_ENVIRONMENT = "overt/environment.json"
_CODE_TAGS = {"commit": "overt.git.commit", "branch": "overt.git.branch", "dirty": "overt.git.dirty"}
_FALLBACK_TAGS = {"commit": "mlflow.source.git.commit", "branch": "mlflow.source.git.branch"}
_ID_DIGITS = 8
_ABSENT = "-"


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """What differs between two or more runs; printing it, or showing it in a notebook, gives a table.

    Attributes
    ----------
    runs : tuple of RunSummary
        In the order in which they were given.
    params, code, data, packages : mapping of str to tuple of (str or None)
        One value for each run under each name whose values differ; None where a run has none. ``code`` has commit,
        branch, dirty and a digest of the uncommitted diff, ``data`` digests by name and context, and
        ``packages`` has python too.
    metrics : mapping of str to tuple of (float or None)
        The same for the last values of metrics.
    notes : tuple of str
        What could not be compared, and why.
    """

    runs: tuple[RunSummary, ...]
    params: Mapping[str, tuple[str | None, ...]]
    metrics: Mapping[str, tuple[float | None, ...]]
    code: Mapping[str, tuple[str | None, ...]]
    data: Mapping[str, tuple[str | None, ...]]
    packages: Mapping[str, tuple[str | None, ...]]
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing that could be compared differs."""
        return not any(section for _, section in self._sections())

    def to_frame(self) -> DataFrame:
        """One row for each name that differs, with its section, and a column for each run.

        Of two runs ``difference`` is the second's metric minus the first's.
        """
        pandas = require("pandas", extra="pandas")
        labels = self._labels()
        rows = [
            {"section": title, "name": name}
            | dict(zip(labels, values, strict=True))
            | ({"difference": _difference(values)} if len(values) == 2 else {})
            for title, section in self._sections()
            for name, values in section.items()
        ]
        columns = ["section", "name", *labels, *(["difference"] if len(labels) == 2 else [])]
        return pandas.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        lines = [f"Comparison of {', '.join(map(printable, self._labels()))}"]
        for title, header, rows in self._tables():
            lines += ["", title, *text_table([header, *rows], indent="  ")]
        if self.is_empty:
            lines += ["", "Nothing differs."]
        lines += [f"Note: {printable(note)}" for note in self.notes]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [f"<p><b>Comparison of {escape(', '.join(self._labels()))}</b></p>"]
        parts += [f"<p>{title}</p>{html_table(header, rows)}" for title, header, rows in self._tables()]
        if self.is_empty:
            parts.append("<p>Nothing differs.</p>")
        parts += [f"<p>Note: {escape(note)}</p>" for note in self.notes]
        return "".join(parts)

    def _sections(self) -> Iterator[tuple[str, Mapping[str, tuple[Any, ...]]]]:
        for title in ("params", "metrics", "code", "data", "packages"):
            yield title, getattr(self, title)

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each section in which something differs."""
        labels = self._labels()
        for title, section in self._sections():
            has_difference = title == "metrics" and len(labels) == 2
            rows = [
                [name, *map(_shown, values), *([_shown_difference(values)] if has_difference else [])]
                for name, values in section.items()
            ]
            if rows:
                yield title.capitalize(), ["", *labels, *(["difference"] if has_difference else [])], rows

    def _labels(self) -> list[str]:
        """The runs' names, each with as much of its id as tells it from the others."""
        return [f"{run.name} ({run.id[: _digits(self.runs)]})" for run in self.runs]


def compare(
    a: Run | RunSummary | str,
    b: Run | RunSummary | str,
    *more: Run | RunSummary | str,
    store: str | Store | None = None,
) -> Comparison:
    """What differs between runs: params, metrics, code, data and packages.

    Parameters
    ----------
    a, b, *more : Run, RunSummary or str
        A text is an id or its beginning, a name, ``model@alias`` or ``last``.
    store : str or Store, optional
        Store to read instead of the configured one.

    Raises
    ------
    RunNotFound
        When a run is not there.
    ConfigurationError
        When the store cannot be read, or fewer than two different runs are named.
    StoreUnavailable
        When the store does not answer, or has not taken yet what this process recorded.

    Examples
    --------
    >>> overt.compare("forest-3f2a", "forest-91bc")  # doctest: +SKIP
    """
    return compare_runs(open_configured(store), (a, b, *more))


def compare_runs(store: QueryStore, runs: Sequence[Run | RunSummary | str]) -> Comparison:
    """What differs between ``runs``, each given as for :func:`compare`.

    Raises
    ------
    ConfigurationError
        When they are fewer than two different ones.
    """
    ids = [run_id_of(store, run) for run in runs]
    twice = next((run_id for position, run_id in enumerate(ids) if run_id in ids[:position]), None)
    if twice is not None:
        raise ConfigurationError(f"to compare takes different runs, and run {twice} was named twice: leave one out.")
    if len(ids) < 2:
        raise ConfigurationError(f"to compare takes two runs or more (got {', '.join(ids) or 'none'}).")
    found = [store.read_run(run_id) for run_id in ids]
    notes: list[str] = []
    return Comparison(
        runs=tuple(details.run for details in found),
        params=_differing([details.run.params for details in found]),
        metrics=_differing([details.run.metrics for details in found]),
        code=_differing([_code(store, details) for details in found]),
        data=_differing([_data(details) for details in found]),
        packages=_differing(_packages(store, found, notes)),
        notes=tuple(notes),
    )


def _differing(of_each: Sequence[Mapping[str, T]]) -> dict[str, tuple[T | None, ...]]:
    """Values by name, of the names under which not all are equal; NaN equals NaN."""
    names = dict.fromkeys(name for values in of_each for name in values)
    rows = {name: tuple(values.get(name) for values in of_each) for name in names}
    return {name: row for name, row in rows.items() if not all(_is_equal(row[0], value) for value in row[1:])}


def _is_equal(one: object, other: object) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return both_nan or one == other


def _code(store: QueryStore, details: RunDetails) -> dict[str, str]:
    """Commit, branch, whether there were changes, and a digest of these."""
    tags = details.run.tags
    found = {name: tags.get(tag) or tags.get(_FALLBACK_TAGS.get(name, "")) for name, tag in _CODE_TAGS.items()}
    diff = _file(store, details, _DIFF)
    found["uncommitted diff"] = _digest(diff) if diff is not None else None
    return {name: value for name, value in found.items() if value}


def _digest(diff: bytes) -> str | None:
    """Of what differs from the commit; names of files that git does not know are no code that is recorded."""
    code = b"".join(line for line in diff.splitlines(keepends=True) if not line.startswith(UNTRACKED))
    return f"sha256 {hashlib.sha256(code).hexdigest()[:12]}" if code else None


def _data(details: RunDetails) -> dict[str, str]:
    """Digests by name and context; several under one name stand together."""
    digests: dict[str, set[str]] = {}
    for dataset in details.datasets:
        name = f"{dataset.name} ({dataset.context})" if dataset.context else dataset.name
        digests.setdefault(name, set()).add(dataset.digest)
    return {name: ", ".join(sorted(held)) for name, held in digests.items()}


def _packages(store: QueryStore, found: Sequence[RunDetails], notes: list[str]) -> list[dict[str, str]]:
    """Versions by package, python among them; of no run if one recorded none, which a note then says."""
    versions: list[dict[str, str]] = []
    silent: list[str] = []
    for details in found:
        packages = _json_object(store, details, _PACKAGES)
        python = _json_object(store, details, _ENVIRONMENT).get("python")
        version = python.get("version") if isinstance(python, Mapping) else None
        versions.append({name: str(held) for name, held in packages.items()})
        if version:
            versions[-1]["python"] = str(version)
        if not packages:
            silent.append(details.run.name)
    if silent:
        notes.append(f"packages are not compared: {', '.join(silent)} recorded no list of them in {_PACKAGES}.")
        return [{"python": held["python"]} if "python" in held else {} for held in versions]
    return versions


def _json_object(store: QueryStore, details: RunDetails, path: str) -> Mapping[str, Any]:
    """A JSON file of the run; empty if it has none, or none that can be read."""
    content = _file(store, details, path)
    try:
        parsed = json.loads(content) if content is not None else {}
    except ValueError:
        parsed = {}
    return parsed if isinstance(parsed, Mapping) else {}


def _file(store: QueryStore, details: RunDetails, path: str) -> bytes | None:
    return store.read_file(details.run.id, path) if any(file.path == path for file in details.files) else None


# -- shown -------------------------------------------------------------------------------------------------------------


def _digits(runs: Iterable[RunSummary]) -> int:
    ids = [run.id for run in runs]
    longest = max(map(len, ids))
    return next((n for n in range(_ID_DIGITS, longest) if len({run_id[:n] for run_id in ids}) == len(ids)), longest)


def _shown(value: object) -> str:
    return _ABSENT if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _difference(values: Sequence[Any]) -> float | None:
    """The second less the first, if both are numbers."""
    first, second = values
    return second - first if isinstance(first, float) and isinstance(second, float) else None


def _shown_difference(values: Sequence[Any]) -> str:
    difference = _difference(values)
    return "" if difference is None else f"{difference:+.6g}"
