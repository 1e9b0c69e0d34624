"""Opens a fetched model only after each of its files is the one that was recorded, and runs nothing of it unasked.

What a folder says of itself is a claim: the digests come from outside it, the types that a skops file may name from
:mod:`overt.models.admitted`, and the way to load it from the flavor that is among the checked files. A file that was
not recorded is refused like a changed one, since a loader may import it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from overt.errors import ModelRefused
from overt.models.admitted import RAW_MEMORY, judged_names
from overt.optional import require

DESCRIPTION_FILE = "MLmodel"
_GENERIC = "python_function"
_PICKLED = ("sklearn", "pytorch")
_LISTED = 5
_MALFORMED = (BadZipFile, ValueError, KeyError, TypeError, RecursionError, NotImplementedError, OSError)
"""What reading a file that is no skops file raises."""


@dataclass(frozen=True, slots=True)
class Described:
    """What an MLmodel file says: the flavor to load by, and the skops file if the model is one."""

    flavor: str
    serialization: str
    skops_file: Path | None


def check_files(folder: Path, digests: Mapping[str, str] | None) -> None:
    """Refuse a folder that holds anything but plain files, or others than those that were recorded.

    Parameters
    ----------
    folder : Path
        The fetched model.
    digests : mapping or None
        SHA-256 by path; None where none were recorded: then only the kinds of the files are looked at.

    Raises
    ------
    ModelRefused
        Naming the files that are changed, missing, added, or no plain files.
    """
    found = dict(_iter_files(folder))
    if digests is None:
        return
    changed = [path for path in found if path in digests and _sha256(found[path]) != digests[path]]
    for files, what in (
        (changed, "changed since the model was recorded"),
        (sorted(digests.keys() - found.keys()), "recorded with the model and missing now"),
        (sorted(found.keys() - digests.keys()), "beside the model that were not recorded with it"),
    ):
        if files:
            raise ModelRefused(
                f"the model is not what was recorded, and was not opened: there are files {what} ({_shown(files)}). "
                "Record and register it anew, or take back the files from a copy"
            )


def describe(folder: Path) -> Described:
    """Read the MLmodel file.

    Raises
    ------
    ModelRefused
        When there is none, or it is malformed, or names what is no file within the folder.
    """
    try:
        flavors = _parsed((folder / DESCRIPTION_FILE).read_text("utf-8"))["flavors"]
        own = [name for name in flavors if name != _GENERIC]
        flavor = own[0] if own else _GENERIC
        fields = flavors[flavor]
        serialization = str(fields.get("serialization_format", "")) if flavor == "sklearn" else ""
        file = folder / fields["pickled_model"] if flavor == "sklearn" else None
        is_inside = file is None or file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"the model has no readable {DESCRIPTION_FILE} file ({type(error).__name__})") from error
    if not is_inside:
        raise ModelRefused(f"the {DESCRIPTION_FILE} file names a file outside the model ({fields['pickled_model']})")
    if file is not None and not file.is_file():
        raise ModelRefused(
            f"the {DESCRIPTION_FILE} file names {fields['pickled_model']!r}, and the model has no such file"
        )
    return Described(str(flavor), serialization, file if serialization == "skops" else None)


def _parsed(text: str) -> Any:
    """An MLmodel file's content: overt's own plain stores write it as JSON, MLflow in YAML's other forms."""
    try:
        return json.loads(text)
    except ValueError:
        yaml = require("yaml", extra="mlflow")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def load_code(folder: Path, flavor: str) -> Any:
    """Load what runs code when it is loaded, from a checked folder that overt has written, without MLflow.

    Raises
    ------
    ModelRefused
        For a flavor that only MLflow knows how to load.
    """
    fields = _parsed((folder / DESCRIPTION_FILE).read_text("utf-8"))["flavors"][flavor]
    if flavor == "sklearn":
        return pickle.loads((folder / fields["pickled_model"]).read_bytes())  # noqa: S301 - whoever calls has allowed it
    if flavor == "pytorch":
        torch = require("torch", extra="torch")
        return torch.load(folder / fields["model_data"] / "model.pth", map_location="cpu", weights_only=False)
    raise ModelRefused(
        f"a model of flavor {flavor} is loaded by MLflow alone: mlflow.pyfunc.load_model takes its folder in the store"
    )


def check_needs_no_pickle(described: Described, name: str) -> None:
    """Refuse what runs code when it is loaded.

    Raises
    ------
    ModelRefused
        With both ways out.
    """
    if described.skops_file is None:
        kind = described.serialization or ("pickle" if described.flavor in _PICKLED else "Python code")
        raise ModelRefused(
            f"{name} is stored as {kind} (flavor {described.flavor}), which runs code when it is loaded. If you trust "
            'whoever made it: allow_pickle=True. Without such trust: record it with model_format="skops" '
            "(scikit-learn estimators)"
        )


def load_skops(file: Path, *, is_recorded: bool, trusted_types: Sequence[str | type] = ()) -> Any:
    """The estimator in a skops file that names nothing but admitted types.

    Parameters
    ----------
    file : Path
        Within a checked folder.
    is_recorded : bool
        Whether its SHA-256 is the recorded one.
    trusted_types : sequence of str or type
        The user's own word for more.

    Raises
    ------
    ModelRefused
        Naming the types that are not admitted; or when it is no skops file.
    """
    skops = require("skops.io", extra="sklearn")
    content = file.read_bytes()
    try:
        with ZipFile(BytesIO(content)) as archive:
            schema = json.loads(archive.read("schema.json"))
    except _MALFORMED as error:
        raise ModelRefused(f"{file.name} is no skops file ({type(error).__name__}: {error})") from error
    trusted = [t if isinstance(t, str) else f"{t.__module__}.{t.__qualname__}" for t in trusted_types]
    refused, admitted = judged_names(schema, trusted=trusted, is_recorded=is_recorded)
    if refused:
        raise ModelRefused(_refusal(file.name, refused))
    try:
        return skops.loads(content, trusted=admitted)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ModelRefused(f"skops does not load {file.name} ({reason})") from error


def _refusal(file: str, refused: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in refused)
    raw = [name for name in refused if name in RAW_MEMORY]
    why = (
        f" ({', '.join(raw)} would be read into memory unchecked, and no SHA-256 was recorded that says whose they are)"
        if raw
        else ""
    )
    comma = "," if len(refused) == 1 else ""
    return (
        f"{file} names types that overt does not load by itself: {shown}{why}. If you know them and trust whoever made "
        f"the file: trusted_types=({shown}{comma})"
    )


def _iter_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.rglob("*")):
        kind, path = entry.lstat().st_mode, entry.relative_to(folder).as_posix()
        if stat.S_ISREG(kind):
            yield path, entry
        elif not stat.S_ISDIR(kind):
            raise ModelRefused(f"the model was not opened: {path!r} is a link or no plain file")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _shown(files: Sequence[str]) -> str:
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return ", ".join(repr(file) for file in files[:_LISTED]) + more
