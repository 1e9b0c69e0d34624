"""What users hand over as mappings, tables, figures and images, as the bytes of a file: values in, bytes out.

No library is imported for it that the value itself has not brought along, except Pillow for an array that is a picture.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from overt.capture.params import describe
from overt.capture.secrets import is_secret_name, redact, redact_value
from overt.errors import RecordError
from overt.optional import require


def json_bytes(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """``content`` as JSON without secrets; what JSON cannot say is described in words."""
    text = json.dumps(_without_secrets(content), indent=2, ensure_ascii=False, default=to_plain)
    return text.encode("utf-8", "replace")


def table_bytes(data: Any, path: str) -> bytes:
    """Columns of equal length, or rows by column, as CSV or JSON, as the ending of ``path`` says.

    Raises
    ------
    RecordError
        For what is no table, columns of different lengths, and another ending.
    """
    pairs = _columns(data)
    names = [str(name) for name, _ in pairs]
    try:
        columns = [[_without_secrets(cell, str(name)) for cell in cells] for name, cells in pairs]
    except TypeError as error:
        raise RecordError(f"log_table: each column of `data` must be a sequence of cells ({error})") from error
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{name}: {len(column)}" for name, column in zip(names, columns, strict=True))
        raise RecordError(f"log_table: the columns of `data` must be of equal length (got {lengths})")
    rows = [list(row) for row in zip(*columns, strict=True)]
    if path.endswith(".csv"):
        import csv

        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([names, *rows])
        text = buffer.getvalue()
    elif path.endswith(".json"):
        text = json.dumps({"columns": names, "data": rows}, ensure_ascii=False, default=to_plain)
    else:
        raise RecordError(f"log_table: `path` must end in .csv or .json (got {path!r})")
    return text.encode("utf-8", "replace")


def figure_bytes(figure: Any, path: str) -> bytes:
    """A matplotlib figure in the format that ``path`` ends in, or a plotly figure as HTML."""
    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=_ending(path))
        return buffer.getvalue()
    if hasattr(figure, "write_html"):
        return bytes(figure.to_html(include_plotlyjs="cdn").encode())
    raise RecordError(f"log_figure: expected a matplotlib or plotly figure (got {type(figure).__name__})")


def image_bytes(image: Any, path: str) -> bytes:
    """A PIL image, or an array of shape (height, width[, 1, 3 or 4]), in the format that ``path`` ends in."""
    picture = image if hasattr(image, "save") else _picture(image)
    buffer = io.BytesIO()
    picture.save(buffer, format=_ending(path).replace("jpg", "jpeg"))
    return buffer.getvalue()


def to_plain(value: Any) -> Any:
    """A number of numpy's as Python's own; anything else in words."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else describe(value)


def _columns(data: Any) -> list[tuple[Any, Any]]:
    """Name and cells of each column, of which a DataFrame may have two of one name; None where a row has no cell."""
    if hasattr(data, "items") and hasattr(data, "keys"):
        return list(data.items())
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(chain.from_iterable(data))
        return [(name, [row.get(name) for row in data]) for name in names]
    raise RecordError(
        "log_table: `data` must be a DataFrame, a mapping of columns or a list of rows that are mappings "
        f"(got {type(data).__name__})"
    )


def _picture(image: Any) -> Any:
    array = require("numpy", extra="sklearn").asarray(image)
    is_picture = array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,), (4,))
    if array.dtype.kind not in "buif" or not is_picture:
        raise RecordError(
            "log_image: expected a PIL image or an array of numbers of shape (height, width[, 1, 3 or 4]) "
            f"(got {type(image).__name__} of {array.dtype} and shape {array.shape})"
        )
    scale = 255 if array.dtype.kind in "bf" else 1
    array = ((array * scale).clip(0, 255)).round().astype("uint8")
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return require("PIL.Image", extra="plots").fromarray(squeezed)


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix[1:] or "png"


def _without_secrets(value: Any, name: str = "") -> Any:
    """``value`` with secrets replaced, texts by their shape and everything under a name that says secret."""
    if isinstance(value, Mapping):
        inner = name if is_secret_name(name) else None
        return {_key(key): _without_secrets(item, inner or str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item, name) for item in value]
    if isinstance(value, str):
        return redact_value(name, value)
    if value is None or isinstance(value, bool) or not is_secret_name(name):
        return value
    return redact_value(name, describe(value))


def _key(key: Any) -> Any:
    """A key as JSON takes it, which knows neither numpy's numbers nor tuples."""
    return key if isinstance(key, int | float | None) else redact(describe(key))
