"""Opening MLflow, and telling its failures apart: what may work later, and what never will.

Eight processes that open the same new database at once fail in its schema migration, so the first opening is done under
a lock: on the folder of an sqlite file, in a PostgreSQL server itself. A database server that does not answer is found
out here, in seconds: MLflow would try it again and again for an hour.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests.exceptions import RetryError

from overt.errors import OvertError, StoreRejected, StoreUnavailable
from overt.stores.uri import is_database, public_name

_REFUSALS = {
    # not BAD_REQUEST: MLflow calls every trouble of a database so that SQLAlchemy does not call operational, a lost
    # connection and a damaged file among them
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNIMPLEMENTED",
}


CONNECT_TIMEOUT_S = 10
_MIGRATION_TIMEOUT_S = 120
_MIGRATION_LOCK = 0x6F76657274  # "overt"


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server or database at ``uri``, whose schema is ready to use.

    Raises
    ------
    StoreUnavailable
        When a database does not let itself be opened within ``CONNECT_TIMEOUT_S``. A tracking server is not asked.
    """
    with translated_errors(uri), _alone(uri):
        timely = _with_connect_timeout(uri)
        registry = timely if uri.partition(":")[0] != "databricks" else None
        client = MlflowClient(tracking_uri=timely, registry_uri=registry)
        if is_database(uri):
            client.get_experiment("0")  # opens the database, and with it creates or migrates the schema
        return client


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Let only ``StoreUnavailable`` and ``StoreRejected`` out of the block.

    An error of unknown kind counts as unavailable: the records stay in the journal, and nothing is lost. Whether it is
    one record's fault, delivery finds out (:mod:`overt.delivery.suspicion`).
    """
    try:
        yield
    except OvertError:
        raise
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise StoreRejected(_said(error, uri)) from error
        if (reason := _silence(error)) is not None:
            raise StoreUnavailable(f"{public_name(uri)} does not answer ({reason})") from error
        raise StoreUnavailable(f"{public_name(uri)}: {_said(error, uri)}") from error
    except Exception as error:
        raise StoreUnavailable(f"{public_name(uri)}: {type(error).__name__}: {_said(error, uri)}") from error


def _silence(error: BaseException) -> str | None:
    """Why a server gives no answer, in the words of whoever noticed; None if that is not what is wrong."""
    is_silent = False
    while (cause := error.__cause__ or error.__context__) is not None:
        is_silent = is_silent or isinstance(cause, requests.ConnectionError | requests.Timeout | RetryError)
        error = cause
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return reason if is_silent else None


def _said(error: Exception, uri: str) -> str:
    """First line of an error, and the next if that only announces it; without credentials should it repeat the URI.

    MLflow announces failed downloads so, with a heading such as ``##### File artifacts #####`` between (3.17).
    """
    written = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in written if line and not line.startswith("#####")] or [""]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return text.replace(uri, public_name(uri))[:500]


def _sqlite_file(uri: str) -> Path | None:
    scheme, separator, path = uri.partition(":///")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    return Path(path.partition("?")[0])


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other processes of ours from opening the same database for the first time during the block."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        with _alone_with_file(_sqlite_file(uri)):
            yield
    elif is_database(uri):
        with _alone_on_server(uri):
            yield
    else:
        yield


@contextmanager
def _alone_with_file(database: Path | None) -> Iterator[None]:
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


@contextmanager
def _alone_on_server(uri: str) -> Iterator[None]:
    """Connect once to a database server, and hold a lock of its own there if it is PostgreSQL.

    MLflow's own lock is a file in the temporary folder, so it says nothing to another machine or container.
    """
    engine = sqlalchemy.create_engine(_with_connect_timeout(uri), poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:  # whose end releases the lock, even if that end is a kill -9
        if engine.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text(f"SET lock_timeout = '{_MIGRATION_TIMEOUT_S}s'"))
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_MIGRATION_LOCK)))
            connection.commit()  # a transaction left open would hold up the migration
        yield


def _with_connect_timeout(uri: str) -> str:
    """``uri``, with the time after which a PostgreSQL server that does not answer counts as away."""
    if uri.partition(":")[0].partition("+")[0] != "postgresql":
        return uri
    url = sqlalchemy.make_url(uri)
    if "connect_timeout" in url.query:
        return uri
    return url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)}).render_as_string(hide_password=False)
