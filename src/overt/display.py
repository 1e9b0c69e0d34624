"""How recorded names and values are shown: as they were recorded, and never able to act on what shows them.

They may come from a stranger's store, so HTML is escaped, and characters that would move a cursor are written out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def printable(text: str) -> str:
    """``text`` with everything that does not print written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts as HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(rows: Iterable[Sequence[str]], *, indent: str = "") -> list[str]:
    """The lines of a table of texts, each column as wide as its longest cell."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)
    return [(indent + line).rstrip() for line in padded]
