"""A report is finished when it exists: frozen, made of plain Python values, readable without any library.

Whoever computes a report imports numpy and scikit-learn; whoever stores, sends or shows one needs the
standard library alone. What could not be computed stays visible, as NaN and as a sentence in ``notes``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from overt.errors import OvertError

if TYPE_CHECKING:
    from rich.console import Group

Kind = Literal[
    "binary", "multiclass", "multilabel", "multiclass-multioutput", "regression", "multioutput", "clustering"
]

# A confusion matrix beyond this is neither kept nor drawn: at 1,000 classes its JSON already weighs megabytes.
MAX_MATRIX_CLASSES = 1_000

# Where each curve is drawn, in the order in which the figures are listed.
_CURVE_FIGURES = {
    "roc": "roc_curve",
    "precision_recall": "precision_recall_curve",
    "calibration": "calibration_curve",
    "residuals": "residuals",
    "predicted_vs_actual": "predicted_vs_actual",
}

# A terminal shows this many metrics; all of them stay in ``Report.metrics``.
_MAX_SHOWN = 40


class MetricNotFound(OvertError, KeyError):
    """A report holds no metric of that name; the message lists those it holds."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr of its message


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """A figure described, not drawn: drawing is somebody else's work, in another process.

    Attributes
    ----------
    path : str
        File name of the image, such as ``"confusion_matrix.png"``.
    kind : str
        A kind that :func:`overt.figures.draw` knows, such as ``"confusion_matrix"``.
    data : Mapping[str, Any]
        Everything needed to draw it, in values that JSON can hold.
    """

    path: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """How well one set of predictions fits one set of data.

    ``report["f1_score"]`` reads a metric. In a terminal and in a notebook the report shows itself as a table.

    Attributes
    ----------
    kind : {"binary", "multiclass", "multilabel", "multiclass-multioutput", "regression", "multioutput", "clustering"}
        What was evaluated; in scikit-learn's words, several outputs of classes are ``multiclass-multioutput``.
    n_samples : int
        Number of rows that the metrics were computed from.
    metrics : Mapping[str, float]
        By name; NaN where a metric is undefined for this data.
    tables : Mapping[str, Any]
        Confusion matrix, classification report and the like, in values that JSON can hold.
    curves : Mapping[str, Any]
        Points of the ROC, precision-recall, calibration and residual curves, likewise. They may be
        thinned; metrics never are.
    notes : tuple of str
        One sentence for each thing that could not be computed, was left out or was thinned.
    """

    kind: Kind
    n_samples: int
    metrics: Mapping[str, float]
    tables: Mapping[str, Any]
    curves: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> float:
        """Value of one metric.

        Raises
        ------
        MetricNotFound
            A KeyError: the report holds no such metric.
        """
        try:
            return self.metrics[metric]
        except KeyError:
            known = ", ".join(self.metrics) or "none"
            raise MetricNotFound(f"no metric {metric!r} in this {self.kind} report; it holds: {known}") from None

    def __contains__(self, metric: object) -> bool:
        return metric in self.metrics

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __str__(self) -> str:
        rows = self._shown()
        wide = max((len(name) for name, _ in rows), default=0)
        long = max((len(value) for _, value in rows), default=0)
        lines = [self._headline(), *(f"  {name:<{wide}}  {value:>{long}}" for name, value in rows)]
        return "\n".join(lines + [f"  - {note}" for note in self._remarks()])

    __repr__ = __str__

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in self._shown():
            table.add_row(Text(name), Text(value))  # Text, since a plain string would be read as markup
        return Group(
            Text(self._headline(), style="bold"), table, *(Text(f"- {note}", style="dim") for note in self._remarks())
        )

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(self._headline())}</b></p>", _html_table(("metric", "value"), self._shown())]
        if "classification_report" in self.tables:
            header, *rows = _report_rows(self.tables["classification_report"])
            parts.append(_html_table(header, [[_cell(value) for value in row] for row in rows]))
        if remarks := self._remarks():
            parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in remarks) + "</ul>")
        return "<div>" + "".join(parts) + "</div>"

    def iter_files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the tables as files.

        Yields
        ------
        tuple of (str, bytes)
            File name and content: strict JSON (NaN and infinity are ``null``) of every table, and the
            classification report as CSV beside it. All text is UTF-8.
        """
        for name, table in self.tables.items():
            yield f"{name}.json", to_json(table)
            if _suffix(name, "classification_report") is not None:
                yield f"{name}.csv", to_csv(_report_rows(table))

    def iter_figures(self) -> Iterator[FigureSpec]:
        """Yield a description of every figure that this report has the data for.

        Yields
        ------
        FigureSpec
            For :func:`overt.figures.draw`.
        """
        for table, suffix in _of_outputs("confusion_matrix", self.tables):
            matrix = _confusion_data(table)
            for path, normalized in (("confusion_matrix", False), ("confusion_matrix_normalized", True)):
                yield FigureSpec(f"{path}{suffix}.png", "confusion_matrix", {**matrix, "normalized": normalized})
        for curve, kind in _CURVE_FIGURES.items():
            for points, suffix in _of_outputs(curve, self.curves):
                yield FigureSpec(f"{kind}{suffix}.png", kind, points)
        if "cluster_sizes" in self.tables:
            yield FigureSpec("cluster_sizes.png", "cluster_sizes", self.tables["cluster_sizes"])

    def _headline(self) -> str:
        return f"{self.kind} report on {self.n_samples:,} {'sample' if self.n_samples == 1 else 'samples'}"

    def _shown(self) -> list[tuple[str, str]]:
        return [(name, _shown_value(name, value)) for name, value in list(self.metrics.items())[:_MAX_SHOWN]]

    def _remarks(self) -> tuple[str, ...]:
        hidden = len(self.metrics) - _MAX_SHOWN
        return ((f"{hidden:,} more metrics in report.metrics",) if hidden > 0 else ()) + self.notes


def to_json(value: Any) -> bytes:
    """Encode as strict, readable JSON in UTF-8.

    NaN and infinity, which JSON lacks, become ``null``; numpy's scalars and arrays become plain numbers and
    lists; keys become strings.
    """
    return json.dumps(_plain(value), ensure_ascii=False, indent=2, allow_nan=False).encode()


def to_csv(rows: Any) -> bytes:
    """Encode rows as CSV in UTF-8 with Unix line ends; None and NaN become empty cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_plain(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy array or scalar, recognised without importing numpy
        return _plain(value.tolist())
    return value


def _suffix(name: str, of: str) -> str | None:
    """What follows ``of`` in the name of a table or curve: nothing, or ``_`` and an output; None for another one."""
    return name.removeprefix(of) if name == of or name.startswith(f"{of}_") else None


def _of_outputs(name: str, parts: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Yield each part of that name, with what follows the name."""
    for found, part in parts.items():
        suffix = _suffix(found, name)
        if suffix is not None:
            yield part, suffix


def _report_rows(report: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield header and rows; accuracy stands under f1-score, as in scikit-learn's own text report."""
    yield ["label", "precision", "recall", "f1-score", "support"]
    for label, row in report.items():
        if isinstance(row, Mapping):
            yield [label, row["precision"], row["recall"], row["f1-score"], row["support"]]
        else:
            yield [label, None, None, row, report["macro avg"]["support"]]


def _confusion_data(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return one matrix to draw: that of a multilabel problem has a row for each label, a column for each outcome."""
    if "matrix" in table:
        return {"labels": table["labels"], "matrix": table["matrix"]}
    outcomes = [[cell for row in matrix for cell in row] for matrix in table["matrices"]]
    return {
        "labels": table["labels"],
        "columns": ["true negative", "false positive", "false negative", "true positive"],
        "matrix": outcomes,
    }


def _shown_value(name: str, value: float) -> str:
    if math.isnan(value):
        return "nan"
    if name.startswith("n_"):
        return f"{value:,.0f}"
    return f"{value:,.4f}" if value == 0 or 1e-3 <= abs(value) < 1e9 else f"{value:.3e}"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _html_table(header: Any, rows: Any) -> str:
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
