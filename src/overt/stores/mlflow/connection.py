"""Opening MLflow, and telling its failures apart: what may work later, and what never will.

Eight processes that open the same new sqlite file at once all fail in its schema migration, so the first opening of a
file is done under a lock on its folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from overt.errors import OvertError, StoreRejected, StoreUnavailable
from overt.stores.uri import public_name

_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNIMPLEMENTED",
}


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server or database at ``uri``, whose schema is ready to use."""
    with translated_errors(uri), _alone_if_sqlite(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri if uri.partition(":")[0] != "databricks" else None)
        if _sqlite_file(uri) is not None:
            client.get_experiment("0")  # opens the database, and with it creates or migrates the schema
        return client


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Let only ``StoreUnavailable`` and ``StoreRejected`` out of the block.

    An error of unknown kind counts as unavailable: the records stay in the journal, and nothing is lost.
    """
    try:
        yield
    except OvertError:
        raise
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise StoreRejected(_first_line(error)) from error
        raise StoreUnavailable(f"{public_name(uri)}: {_first_line(error)}") from error
    except Exception as error:
        raise StoreUnavailable(f"{public_name(uri)}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]


def _sqlite_file(uri: str) -> Path | None:
    scheme, separator, path = uri.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    return Path(path.partition("?")[0])


@contextmanager
def _alone_if_sqlite(uri: str) -> Iterator[None]:
    database = _sqlite_file(uri)
    if database is None or str(database) in ("", ":memory:"):
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks: as safe as MLflow alone
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
