"""What it takes to have a run again, and what cannot be had: as values, from the store and this interpreter alone."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from overt.capture.environment import packages
from overt.query.finding import open_configured, run_id_of
from overt.query.gaps import iter_gaps, named
from overt.query.origin import Origin, origin_of
from overt.records import RunSummary
from overt.run import Run
from overt.stores.protocols import Store


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run can be had again.

    Attributes
    ----------
    run : RunSummary
        The run.
    origin : Origin
        Code, command line, environment, seeds and data, as recorded.
    missing : tuple of str
        What cannot be matched, one sentence each; empty if all of it can.
    package_changes : mapping
        Name to the version recorded and the one installed here (None: not installed), where they differ. Packages
        that are only here are left out.
    """

    run: RunSummary
    origin: Origin
    missing: tuple[str, ...]
    package_changes: Mapping[str, tuple[str, str | None]]


def plan(run: Run | RunSummary | str, store: str | Store | None = None) -> Plan:
    """Say what it takes to have ``run`` again.

    Parameters
    ----------
    run : Run, RunSummary or str
        A run, or the id, key, name, ``model@alias`` or ``last`` of one.
    store : str or Store, optional
        Where to look instead of in the configured store.

    Raises
    ------
    RunNotFound
        When the store has no such run, or more than one.
    StoreUnavailable
        When it does not answer.

    Examples
    --------
    >>> overt.reproduce.plan("last").missing  # doctest: +SKIP
    ('the store holds digests of the data (test, train), and not where they lie', …)
    """
    opened = open_configured(store)
    details = opened.read_run(run_id_of(opened, run))
    origin = origin_of(opened, details)
    return Plan(details.run, origin, tuple(_iter_missing(origin)), _package_changes(origin.packages))


def _iter_missing(origin: Origin) -> Iterator[str]:
    """What the record lacks, and what of it is another here."""
    yield from iter_gaps(origin)
    if origin.python not in (None, platform.python_version()):
        yield f"it ran on Python {origin.python}, and here is {platform.python_version()}"
    if origin.data:
        names = sorted({data.name for data in origin.data})
        yield f"the store holds digests of the data ({named(names)}), and not where they lie"


def _package_changes(recorded: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    here = packages()
    return {name: (version, here.get(name)) for name, version in recorded.items() if here.get(name) != version}
