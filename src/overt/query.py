"""The reading room: opens a store for reading, and turns the name that a person gives a run into that one run.

Reading creates nothing: a database file that is not there is an error, never a new database. A name that fits several
runs is never resolved by guessing: the error lists them.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from overt.errors import ConfigurationError, RunNotFound, StoreUnavailable
from overt.records import RunSummary
from overt.stores.protocols import QueryStore
from overt.stores.uri import check_installed, is_mlflow, open_store, public_name

_LISTED = 5
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?")
_ID_OR_PREFIX = re.compile(r"[0-9a-f]{1,32}")


def open_query(uri: str) -> QueryStore:
    """The store at a resolved ``uri``, for reading.

    Raises
    ------
    ConfigurationError
        When the store cannot be read, or needs a library that is not installed.
    StoreUnavailable
        When it does not answer, or does not exist.
    """
    missing = missing_database(uri)
    if missing is not None:
        raise StoreUnavailable(f"there is no database at {missing}")
    if is_mlflow(uri):
        check_installed(uri)
        from overt.stores.mlflow.query import MlflowQuery

        return MlflowQuery.open(uri)
    store = open_store(uri)
    if not isinstance(store, QueryStore):
        raise ConfigurationError(f"{public_name(uri)} takes runs and lists none ({type(store).__name__}).")
    return store


def missing_database(uri: str) -> Path | None:
    """The database file that a resolved ``uri`` names and that is not there; None if all is well, or it names none."""
    file = _SQLITE_FILE.fullmatch(uri)
    return Path(file.group(1)) if file and not Path(file.group(1)).is_file() else None


def find_run(store: QueryStore, name: str) -> str:
    """Id of the one run that answers to ``name``.

    Parameters
    ----------
    store : QueryStore
        Where to look.
    name : str
        An id or a run key, the beginning of one, a run's name, ``model@alias``, or ``last`` for the run started last.

    Raises
    ------
    RunNotFound
        When no run answers to it, or more than one: the message lists them.
    """
    if name == "last":
        newest = next(iter(store.iter_runs()), None)
        if newest is None:
            raise RunNotFound("there is no last run: the store has none yet")
        return newest.id
    found = _candidates(store, name)
    if len(found) > 1:
        raise RunNotFound(f"{name!r} may be {_listed(found)}: give more of the id")
    if found:
        return found[0].id
    model, at, alias = name.rpartition("@")
    if at and model and alias:
        return store.aliased_run_id(model, alias)
    raise RunNotFound(f"no run answers to {name!r}: it takes an id or its beginning, a name, model@alias, or last")


def _candidates(store: QueryStore, name: str) -> list[RunSummary]:
    """Runs that ``name`` may mean; a whole id or key means one run, whatever others are called."""
    found: dict[str, RunSummary] = {}
    if _ID_OR_PREFIX.fullmatch(name):
        for run in islice(store.iter_runs(prefix=name), _LISTED + 1):
            if name in (run.id, run.key):
                return [run]
            found[run.id] = run
    found |= {run.id: run for run in islice(store.iter_runs(name=name), _LISTED + 1)}
    return list(found.values())


def _listed(runs: list[RunSummary]) -> str:
    shown = ", ".join(f"{run.id} ({run.name})" for run in runs[:_LISTED])
    return shown + (" and others" if len(runs) > _LISTED else "")
