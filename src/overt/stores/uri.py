"""A store's URI: resolved once, shown without its credentials, and opened only where delivery happens.

``resolve`` decides in the user's process, without importing any store's library; ``open_store`` is called by whoever
delivers. Credentials are in the URI that is passed on in memory, never in the name that goes into a journal.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from overt.errors import ConfigurationError
from overt.optional import is_installed
from overt.stores.protocols import Store

MLFLOW_DEFAULT = "sqlite:///mlflow.db"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_LIGHT = ("jsonl", "csv")
_BARE = ("databricks", "databricks-uc")  # whole URIs, in MLflow's own spelling
_USERINFO = re.compile(r"://[^/@]*(?::.*)?@")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.+-]*):")


def resolve(uri: str, *, directory: Path) -> str:
    """``uri`` as it is to be opened from anywhere: paths made absolute, spelling checked.

    Parameters
    ----------
    uri : str
        What the user gave.
    directory : Path
        What relative paths are relative to.

    Raises
    ------
    ConfigurationError
        For a scheme that no store answers to, and for MLflow's retired file store.
    """
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else ""
    if uri in _BARE:
        return uri
    if not scheme or scheme == "file":
        plain_files = f"csv:{uri}" if not scheme and uri.endswith(".csv") else "jsonl:experiments"
        raise ConfigurationError(
            f"MLflow no longer takes plain folders as a store (got {uri!r}). Use a database file, such as "
            f"store='{MLFLOW_DEFAULT}', a server, such as store='http://localhost:5000', or overt's own plain files: "
            f"store={plain_files!r}."
        )
    if scheme in _LIGHT:
        return _resolve_light(scheme, uri.partition(":")[2], directory)
    if scheme.partition("+")[0] == "sqlite":
        return _resolve_sqlite(scheme, uri.partition(":")[2], directory)
    if scheme in ("http", "https") and not urlsplit(uri).hostname:
        raise ConfigurationError(f"`store` must be a server's address, such as 'http://localhost:5000' (got {uri!r}).")
    if not is_mlflow(uri) and scheme not in _plugins():
        known = ", ".join(["http", "https", *_DATABASES, "databricks", *_LIGHT, *sorted(_plugins())])
        raise ConfigurationError(f"`store` must be a URI of a known kind ({known}) or a Store (got {uri!r}).")
    return uri


def light_path(uri: str) -> Path | None:
    """What a resolved ``uri`` of a light store names, a folder or a CSV file; None for any other store."""
    scheme, _, path = uri.partition(":")
    return Path(path) if scheme in _LIGHT else None


def folder_beside(path: Path) -> Path:
    """Where the runs of a light store are whole: beside its table, or the folder itself."""
    return path.with_suffix(".runs") if path.suffix == ".csv" else path


def is_mlflow(uri: str) -> bool:
    """Whether MLflow's client takes this URI."""
    scheme = uri.partition(":")[0].lower()
    return scheme in ("http", "https", "databricks", "databricks-uc") or is_database(uri)


def is_database(uri: str) -> bool:
    """Whether MLflow opens this URI with SQLAlchemy, without a tracking server between."""
    return uri.partition(":")[0].partition("+")[0].lower() in _DATABASES


def check_installed(uri: str) -> None:
    """Raise at once if delivering to ``uri`` will need a library that is not there.

    Raises
    ------
    ConfigurationError
        Naming the extra, and how to record without it.
    """
    if is_mlflow(uri) and not is_installed("mlflow"):
        raise ConfigurationError(
            f"delivering to {public_name(uri)} needs MLflow: pip install 'overt[mlflow]'. To do without, record into "
            "plain files with store='jsonl:experiments', or set delivery='manual' and run `overt sync` elsewhere."
        )


def check_writable(uri: str) -> None:
    """Raise at once if a light store's place cannot be written to.

    Raises
    ------
    ConfigurationError
        Naming what is in the way.
    """
    path = light_path(uri)
    if path is None:
        return
    above = next(place for place in (path.parent if path.suffix == ".csv" else path, *path.parents) if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise ConfigurationError(
            f"`store` must be a place that can be written to, and {above} is not: make it writable, or choose another "
            f"(got {uri!r})."
        )


def public_name(uri: str) -> str:
    """``uri`` without user, password and query: what may be shown and written down."""
    if light_path(uri):  # a path may have "?" and "#" in it, and holds no credentials
        return uri
    if is_database(uri):  # SQLAlchemy takes passwords as they are, with "/", "?" and "#" in them
        uri = _USERINFO.sub("://", uri)
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_store(uri: str) -> Store:
    """The store at a resolved ``uri``, ready for delivery.

    Raises
    ------
    ConfigurationError, MissingExtra
        When there is none.
    StoreUnavailable
        When it does not answer.
    """
    scheme = uri.partition(":")[0].lower()
    if scheme in (plugins := _plugins()):
        store = plugins[scheme].load()(uri)
        if not isinstance(store, Store):
            raise ConfigurationError(f"the overt.stores entry point {scheme!r} must give a Store (got {type(store)}).")
        return store
    if (path := light_path(uri)) is not None:
        return _open_light(scheme, path)
    from overt.stores.mlflow.store import MlflowStore

    return MlflowStore.open(uri)


def _open_light(scheme: str, path: Path) -> Store:
    from overt.stores.csv import CsvStore
    from overt.stores.jsonl import JsonlStore

    return JsonlStore(path) if scheme == "jsonl" else CsvStore(path)


def _resolve_sqlite(scheme: str, rest: str, directory: Path) -> str:
    """URI of a database file with an absolute path; one in memory would be gone with whoever delivers to it."""
    path, mark, query = rest.removeprefix("///").partition("?")
    if not rest.startswith("///") or path in ("", ":memory:"):
        raise ConfigurationError(
            f"`store` must name a database file behind sqlite:///, such as '{MLFLOW_DEFAULT}' (got '{scheme}:{rest}')."
        )
    return f"{scheme}:///{os.path.abspath(directory / path)}{mark}{query}"


def _resolve_light(scheme: str, path: str, directory: Path) -> str:
    """URI of a light store whose path is absolute and names what it should: a folder, or a CSV file."""
    example = "jsonl:experiments" if scheme == "jsonl" else "csv:experiments.csv"
    wanted = "a folder" if scheme == "jsonl" else "a file whose name ends in .csv"
    if path.startswith("//") and not path.startswith("///"):
        raise ConfigurationError(f"`store` must be {scheme}: and a path, such as {example!r} (got {scheme}:{path!r}).")
    place = Path(os.path.abspath(directory / Path("/" + path.lstrip("/") if path[:1] == "/" else path).expanduser()))
    is_right = place.suffix == ".csv" if scheme == "csv" else place.suffix not in (".csv", ".jsonl")
    if not path or not is_right or (place.exists() and place.is_dir() != (scheme == "jsonl")):
        raise ConfigurationError(f"`store` must name {wanted} behind {scheme}:, such as {example!r} (got {path!r}).")
    return f"{scheme}:{place}"


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="overt.stores")}
