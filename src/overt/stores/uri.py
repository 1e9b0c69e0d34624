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
        raise ConfigurationError(
            f"MLflow no longer takes plain folders as a store (got {uri!r}). Use a database file, such as "
            f"store='{MLFLOW_DEFAULT}', or a server, such as store='http://localhost:5000'."
        )
    if scheme.partition("+")[0] == "sqlite" and uri.startswith(f"{scheme}:///"):
        path, _, query = uri.removeprefix(f"{scheme}:///").partition("?")
        absolute = os.path.abspath(directory / path)
        return f"{scheme}:///{absolute}" + (f"?{query}" if query else "")
    if not is_mlflow(uri) and scheme not in _plugins():
        known = ", ".join(["http", "https", *_DATABASES, "databricks", *sorted(_plugins())])
        raise ConfigurationError(f"`store` must be a URI of a known kind ({known}) or a Store (got {uri!r}).")
    return uri


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
            f"delivering to {public_name(uri)} needs MLflow: pip install 'overt[mlflow]'. To record here and deliver "
            "from another machine, set delivery='manual' and run `overt sync` there."
        )


def public_name(uri: str) -> str:
    """``uri`` without user, password and query: what may be shown and written down."""
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
    from overt.stores.mlflow.store import MlflowStore

    return MlflowStore.open(uri)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="overt.stores")}
