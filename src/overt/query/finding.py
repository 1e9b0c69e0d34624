"""Opens a store for reading, and turns the name that a person gives a run into that one run.

Reading creates nothing: a database file that is not there is an error, never a new database. A name that fits several
runs is never resolved by guessing: the error lists them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

from overt.ending import wait_for_store
from overt.errors import ConfigurationError, ModelNotFound, RunNotFound, StoreUnavailable
from overt.records import RunSummary
from overt.run import Run
from overt.settings import Settings, configured, resolve_settings
from overt.stores.protocols import QueryStore, RegistryStore, RestoringStore, Store
from overt.stores.uri import check_installed, folder_beside, is_mlflow, light_path, open_store, public_name

_LISTED = 5
_NUMBERED = re.compile(r"([^/:]+)/(\d+|latest)")
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?")


def open_query(uri: str) -> QueryStore:
    """The store at a resolved ``uri``, for reading.

    Raises
    ------
    ConfigurationError
        When the store cannot be read, or needs a library that is not installed.
    StoreUnavailable
        When it does not answer, or does not exist.
    """
    missing = missing_place(uri)
    if missing is not None:
        raise StoreUnavailable(f"there is nothing at {missing}, so no run has been recorded there")
    if is_mlflow(uri):
        check_installed(uri)
        from overt.stores.mlflow.registry import MlflowRegistry

        try:
            return MlflowRegistry.open(uri)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error}. See that it runs, or name another store with store=, --store or OVERT_STORE"
            ) from error
    store = open_store(uri)
    if not isinstance(store, QueryStore):
        raise ConfigurationError(f"{public_name(uri)} takes runs and lists none ({type(store).__name__}).")
    return store


def open_configured(store: str | Store | None = None) -> QueryStore:
    """The store to read: the one given, else the configured one. What this process recorded for it has arrived.

    Raises
    ------
    ConfigurationError
        When the store cannot be read, or needs a library that is not installed.
    StoreUnavailable
        When it does not answer, does not exist, or has not taken yet what this process recorded.
    """
    chosen = resolve_settings(Settings(store=store), configured()).store
    if not wait_for_store(chosen):
        raise StoreUnavailable(
            "what this process recorded has not arrived in this store yet, so a look at it would show less than there "
            "is. overt.wait() waits for it; `overt runs` shows what lies here"
        )
    if isinstance(chosen, str):
        return open_query(chosen)
    if not isinstance(chosen, QueryStore):
        raise ConfigurationError(f"`store` must be one that lists runs ({type(chosen).__name__} takes them only).")
    return chosen


def run_id_of(store: QueryStore, run: Run | RunSummary | str) -> str:
    """Id in ``store`` of a run that is given as itself, as it was listed, or by a name for :func:`find_run`.

    Raises
    ------
    RunNotFound
        When the store has none like it, or more than one.
    ConfigurationError
        When ``run`` is none of these.
    """
    if isinstance(run, RunSummary):
        return run.id
    if isinstance(run, Run):
        return find_run(store, run.spec.joined_run_id or run.key)
    if isinstance(run, str):
        return find_run(store, run)
    raise ConfigurationError(
        f"a run must be given as a Run, a listed run, or an id, key or name (got {type(run).__name__})."
    )


def missing_place(uri: str) -> Path | None:
    """The file or folder that a resolved ``uri`` names and that is not there; None if all is well, or it names none."""
    file = _SQLITE_FILE.fullmatch(uri)
    place = Path(file.group(1)) if file else light_path(uri)
    if place is None or place.exists() or folder_beside(place).exists():  # a table comes with the first sealed run
        return None
    return place


def find_run(store: QueryStore, name: str) -> str:
    """Id of the one run that answers to ``name``.

    Parameters
    ----------
    store : QueryStore
        Where to look.
    name : str
        An id or a run key, the beginning of one, a run's name, ``model@alias``, ``model/3``, ``model/latest``, or
        ``last`` for the run started last.

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
    if at and model and alias and isinstance(store, RegistryStore):
        return store.aliased_run_id(model, alias)
    if (numbered := _NUMBERED.fullmatch(name)) and isinstance(store, RegistryStore):
        with suppress(RunNotFound):  # a name with a slash in it is rather a run's
            return store.aliased_run_id(*numbered.groups())
    if name and isinstance(store, RestoringStore) and (deletion := store.deletion_of(name)):
        raise RunNotFound(deletion)
    if versions := _versions(store, name):
        raise RunNotFound(f"{name!r} is a registered model, so name one of its versions: {', '.join(versions)}")
    raise RunNotFound(
        f"no run answers to {name!r}: it takes an id or its beginning, a name, model@alias, model/3, or last"
    )


def _versions(store: QueryStore, name: str) -> list[str]:
    """What the newest versions of a registered model are called: those that have an alias first by that."""
    if not name or not isinstance(store, RegistryStore):
        return []
    try:
        newest = list(islice(store.iter_versions(name), _LISTED))
    except ModelNotFound:
        return []
    aliases = [f"{name}@{alias}" for version in newest for alias in version.aliases]
    return aliases + [f"{name}/{version.version}" for version in newest]


def _candidates(store: QueryStore, name: str) -> list[RunSummary]:
    """Runs that ``name`` may mean; a whole id or key means one run, whatever others are called.

    An id may be any text: files that others wrote have run ids of their own.
    """
    found: dict[str, RunSummary] = {}
    if name:
        for run in store.iter_runs(prefix=name):
            if name in (run.id, run.key):
                return [run]
            if len(found) <= _LISTED:
                found[run.id] = run
    found |= {run.id: run for run in islice(store.iter_runs(name=name), _LISTED + 1)}
    return list(found.values())


def _listed(runs: list[RunSummary]) -> str:
    shown = ", ".join(f"{run.id} ({run.name})" for run in runs[:_LISTED])
    return shown + (" and others" if len(runs) > _LISTED else "")
