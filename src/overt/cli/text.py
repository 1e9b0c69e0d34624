"""How values are written for people and for programs: nothing that was recorded can move a cursor or break a line.

Names and texts may come from a stranger's journal or a shared server, so control characters are shown, never sent.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

_PREFERRED_METRICS = "f1_score accuracy roc_auc r2 rmse val_loss val_accuracy loss train_loss silhouette".split()
_ASIDE = ("training_", "cv_std_", "overt.", "system/")


def plain(text: str) -> str:
    """``text`` with everything that does not print written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """``text`` on one line."""
    return plain(" ".join(text.split()))


def moment(ms: int) -> str:
    """A time, in this machine's own zone."""
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(started_ms: int, ended_ms: int | None) -> str:
    """How long something took, in two units at most; empty while it goes on."""
    if ended_ms is None:
        return ""
    seconds = max(0, ended_ms - started_ms) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(number_of_bytes: int | None) -> str:
    """A size in the unit that suits it."""
    if number_of_bytes is None:
        return ""
    amount = float(number_of_bytes)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"


def installed_version(distribution: str) -> str:
    """Its version as it was installed; ``unknown`` for what runs from a checkout, or came under another name."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def few_metrics(metrics: Mapping[str, float], most: int = 3) -> str:
    """The metrics that say most about a run: known scores first, those of the training set last."""

    def rank(name: str) -> tuple[int, int, str]:
        known = _PREFERRED_METRICS.index(name) if name in _PREFERRED_METRICS else len(_PREFERRED_METRICS)
        return (known, int(name.startswith(_ASIDE)), name)

    return ", ".join(f"{plain(name)} {metrics[name]:.4g}" for name in sorted(metrics, key=rank)[:most])


# -- for people --------------------------------------------------------------------------------------------------------


def table(*columns: str) -> Table:
    """An empty table; without columns' names, of two nameless ones. :func:`add_row` fills it."""
    from rich.table import Table

    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(columns), header_style="dim")
    for column in columns or ("", ""):
        made.add_column(column, overflow="fold")
    return made


def add_row(to: Table, *cells: str) -> None:
    """One more row, whose cells are shown as they are: no markup, no control characters."""
    from rich.text import Text

    to.add_row(*(Text(plain(cell)) for cell in cells))


def print_table(made: Table, *, title: str) -> None:
    """Print a table under its title: as wide as the terminal, or as it needs to be where the output is no terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(Text(plain(title), style="bold"))
        console.print(made)
        return
    wide = Console(highlight=False, width=10_000)
    with wide.capture() as captured:
        wide.print(made)
    click.echo("\n".join([plain(title), *(line.rstrip() for line in captured.get().splitlines())]))


def say(text: str) -> None:
    """One line on stdout."""
    click.echo(plain(text))


def complain(text: str) -> None:
    """One line on stderr."""
    click.echo(f"overt: {one_line(text)}", err=True)


@contextmanager
def doubts_as_lines() -> Iterator[None]:
    """Have what overt warns of during the block said as lines on stderr, each once, however the block ends."""
    from overt.errors import OvertWarning

    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", OvertWarning)
            yield
    finally:
        for text in dict.fromkeys(str(doubt.message) for doubt in caught if issubclass(doubt.category, OvertWarning)):
            complain(text)
        for other in caught:
            if not issubclass(other.category, OvertWarning):
                warnings.showwarning(other.message, other.category, other.filename, other.lineno)


# -- for programs ------------------------------------------------------------------------------------------------------


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object. JSON has no NaN and no infinity: they are the texts ``"nan"``, ``"inf"``, ``"-inf"``."""
    click.echo(json.dumps(_finite(content), indent=2, ensure_ascii=True, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
