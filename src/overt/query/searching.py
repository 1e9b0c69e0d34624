"""Finds runs in any store: where it can search it does, elsewhere its runs are filtered here, and both find the same.

What nothing was found for is explained: a name that no run has is likelier a slip of the finger than an answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import chain, islice
from numbers import Integral
from typing import get_args

from overt.errors import ConfigurationError, RunNotFound
from overt.filters import TAGS_OF_EVERY_RUN, Condition, Order, in_order, matching
from overt.query.directions import direction_of, mode_of
from overt.records import RunSummary, Status
from overt.stores.protocols import QueryStore, SearchStore

_LOOKED_AT = 1000
"""So many of the newest runs are asked for the names that they have, where a name seems to be wrong."""

_LISTED = 8
_STATUSES = get_args(Status)


def find_runs(
    store: QueryStore,
    *,
    experiment: str | None = None,
    conditions: Sequence[Condition] = (),
    order: Sequence[Order] = (),
    limit: int | None = None,
) -> list[RunSummary]:
    """Runs of one experiment, or of all, for which all conditions hold, in this order and then newest first.

    Raises
    ------
    RunNotFound
        When there is no such experiment.
    ConfigurationError
        When ``experiment`` is no name or ``limit`` no count, or the store does not hold what a condition asks for.
    """
    if experiment is not None and not isinstance(experiment, str):
        raise ConfigurationError(
            f"`experiment` must be a name, or None for all of them (got {type(experiment).__name__})."
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 1):
        raise ConfigurationError(f"`limit` must be a whole number of at least 1, or None for all (got {limit!r}).")
    limit = None if limit is None else int(limit)
    if isinstance(store, SearchStore):
        return list(store.search_runs(experiment=experiment, conditions=conditions, order=order, limit=limit))
    listed = store.iter_runs(experiment=experiment)
    found = matching(listed, conditions, datasets_of=lambda run: store.read_run(run.id).datasets)
    return list(islice(in_order(found, order) if order else found, limit))


def find_best(
    store: QueryStore,
    metric: str,
    *,
    mode: str | None = None,
    experiment: str | None = None,
    conditions: Sequence[Condition] = (),
) -> RunSummary:
    """The run with the best last value of a metric; of equal ones the newest. NaN is never the best.

    Raises
    ------
    ConfigurationError
        When the direction is neither given nor known.
    RunNotFound
        When no run that fulfils the conditions has a number for it; the message says what there is instead.
    """
    if mode is None and isinstance(metric, str) and direction_of(metric) is None:
        newest = _newest(store, experiment)
        if newest and (absent := _absent_name(newest, [Order("metric", metric)])):
            raise RunNotFound(absent)  # a slip of the finger has no direction
    order = Order("metric", metric, is_ascending=mode_of(metric, mode) == "min")
    first = find_runs(store, experiment=experiment, conditions=conditions, order=(order,), limit=1)
    if first and not math.isnan(first[0].metrics.get(metric, math.nan)):
        return first[0]
    if first and metric in first[0].metrics:
        raise RunNotFound(f"{metric} is NaN in every run that has it: there is no best one.")
    raise RunNotFound(_why_none(store, experiment, conditions, order, is_any_left=bool(first)))


def name_in_doubt(
    store: QueryStore,
    found: Sequence[RunSummary],
    experiment: str | None,
    conditions: Sequence[Condition],
    order: Sequence[Order],
) -> str:
    """A sentence on a name that was asked for and that no run has, with what may have been meant; empty without one.

    Where nothing was found, the filter is looked at; where something was, the order.
    """
    if found:
        return _absent_name(found, order)
    newest = _newest(store, experiment) if conditions else []
    return _absent_name(newest, conditions) if newest else ""


def _absent_name(runs: Sequence[RunSummary], asked: Iterable[Condition | Order]) -> str:
    """A sentence on the first name that none of these runs has; empty if there is none such."""
    for item in asked:
        if isinstance(item, Condition) and (item.entity, item.key, item.comparator) == ("attribute", "status", "="):
            if item.value not in {*_STATUSES, *(run.status for run in runs)}:
                return f"no run has the status {item.value!r}: it is {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}."
            continue
        if item.entity not in ("metric", "param", "tag") or getattr(item, "comparator", "") == "IS NULL":
            continue
        if item.entity == "tag" and item.key in TAGS_OF_EVERY_RUN:
            continue
        known = _names(runs, item.entity)
        if item.key not in known:
            return f"none of {len(runs):,} runs has the {item.entity} {item.key!r}{_instead(item, sorted(known))}"
    return ""


def _why_none(
    store: QueryStore, experiment: str | None, conditions: Sequence[Condition], order: Order, *, is_any_left: bool
) -> str:
    place = f" in experiment {experiment!r}" if experiment is not None else ""
    newest = _newest(store, experiment)
    if not newest:
        return f"there is no run yet{place}."
    absent = _absent_name(newest, (*conditions, order))
    if absent:
        return absent
    return (
        f"no run{place} that fulfils the filter has the metric {order.key!r}: ask without the filter."
        if is_any_left
        else f"no run{place} fulfils the filter: widen it, or see with overt runs what there is."
    )


def _newest(store: QueryStore, experiment: str | None) -> list[RunSummary]:
    return list(islice(store.iter_runs(experiment=experiment), _LOOKED_AT))


def _names(runs: Iterable[RunSummary], entity: str) -> set[str]:
    return set(chain.from_iterable(_held(run, entity) for run in runs))


def _held(run: RunSummary, entity: str) -> Iterable[str]:
    return run.metrics if entity == "metric" else run.params if entity == "param" else run.tags


def _instead(asked: Condition | Order, known: list[str]) -> str:
    name, of_column = asked.key, asked.key.removeprefix(f"{asked.entity}_")  # as in the columns of overt.runs()
    close = [of_column] if of_column in known else get_close_matches(name, known, n=3)
    if close:
        return f": did you mean {' or '.join(close)}?"
    shown = [other for other in known if not other.startswith(("mlflow.", "overt."))]
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return f": there is {', '.join(shown[:_LISTED])}{more}." if shown else "."
