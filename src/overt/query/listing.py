"""``overt.runs``, ``overt.best_run`` and ``overt.history``: each opens a store, asks it, and gives back a value.

What this process recorded has arrived in the store before it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from overt.errors import ConfigurationError, RunNotFound
from overt.filters import parse_filter, parse_order
from overt.query.finding import open_configured, run_id_of
from overt.query.searching import find_best, find_runs, name_in_doubt
from overt.records import Metric, RunSummary
from overt.run import Run
from overt.say import warn
from overt.stores.protocols import PointsStore, QueryStore, SearchStore, Store

if TYPE_CHECKING:
    from pandas import DataFrame


def runs(
    experiment: str | None = None,
    *,
    where: str | None = None,
    order_by: str | Sequence[str] | None = None,
    limit: int | None = None,
    store: str | Store | None = None,
) -> DataFrame:
    """Runs of a store as a DataFrame, newest first unless another order is asked for.

    Parameters
    ----------
    experiment : str, optional
        Name of the experiment; by default runs of all experiments.
    where : str, optional
        Filter in MLflow's grammar, such as ``"metrics.f1_score > 0.9 and params.model_type = 'SVC'"``.
    order_by : str or sequence of str, optional
        Such as ``"metrics.f1_score DESC"``; of several the first has most weight. NaN and missing values come last.
    limit : int, optional
        At most so many.
    store : str or Store, optional
        Store to read instead of the configured one.

    Returns
    -------
    DataFrame
        ``run_id run_name experiment status start_time end_time notes``, then ``param_…``, ``metric_…`` and ``tag_…``.
        Metrics are last values, times are UTC. If nothing is found, only the first seven.

    Raises
    ------
    ConfigurationError
        When the filter, the order, the limit or the store cannot be.
    RunNotFound
        When there is no such experiment.
    StoreUnavailable
        When the store does not answer, or has not taken yet what this process recorded.
    MissingExtra
        When pandas is not installed.

    Warns
    -----
    OvertWarning
        When nothing is found and the filter names a metric, param or tag that no run has, or when the order does.

    Examples
    --------
    >>> overt.runs("fraud", where="metrics.f1_score > 0.9", order_by="metrics.f1_score DESC")  # doctest: +SKIP
    """
    from overt.query.frames import runs_frame

    conditions, order = parse_filter(where), parse_order(order_by)
    opened = open_configured(store)
    found = find_runs(opened, experiment=experiment, conditions=conditions, order=order, limit=limit)
    doubt = name_in_doubt(opened, found, experiment, conditions, order)
    if doubt:
        warn(doubt)
    return runs_frame(found)


def best_run(
    metric: str,
    *,
    mode: str | None = None,
    experiment: str | None = None,
    where: str | None = None,
    store: str | Store | None = None,
) -> RunSummary:
    """The run with the best last value of a metric. Of equal ones it is the newest; NaN is never the best.

    Parameters
    ----------
    metric : str
        Its name, such as ``"f1_score"``.
    mode : {"max", "min"}, optional
        Which way is better; needed only where the name does not say.
    experiment, where, store
        As for :func:`runs`.

    Raises
    ------
    ConfigurationError
        When the direction is neither given nor known, or the filter or the store cannot be.
    RunNotFound
        When no run has a number for the metric, or there is no such experiment; the message names what there is.
    StoreUnavailable
        As for :func:`runs`.

    Examples
    --------
    >>> overt.best_run("f1_score", experiment="fraud").params["max_depth"]  # doctest: +SKIP
    '8'
    """
    conditions = parse_filter(where)
    return find_best(open_configured(store), metric, mode=mode, experiment=experiment, conditions=conditions)


def history(
    run: Run | RunSummary | str | Sequence[Run | RunSummary | str] | DataFrame,
    *names: str,
    store: str | Store | None = None,
) -> DataFrame:
    """Every point of a run's metrics, or of several runs', as a long DataFrame ready for plotting.

    Parameters
    ----------
    run : Run, RunSummary, str, a sequence of these, or a DataFrame
        A text is an id or its beginning, a name, ``model@alias`` or ``last``. A DataFrame is what :func:`runs` gave.
    *names : str
        Metrics; by default all. A run that has not one of them has no rows of it.
    store : str or Store, optional
        Store to read instead of the configured one.

    Returns
    -------
    DataFrame
        ``run_id run_name metric step time value``, by step within each series. Times are UTC.

    Raises
    ------
    RunNotFound
        When a run is not there, or none of them has one of the metrics.
    MissingExtra
        When pandas is not installed.
    ConfigurationError
        When ``run`` or a name is none, or the store cannot be read.
    StoreUnavailable
        As for :func:`runs`.

    Examples
    --------
    >>> overt.history("last", "train_loss", "val_loss").pivot(  # doctest: +SKIP
    ...     index="step", columns="metric", values="value"
    ... ).plot()
    """
    from overt.query.frames import points_frame

    if "run_id" in getattr(run, "columns", ()):
        run = list(cast(Any, run)["run_id"])
    given = run if isinstance(run, Iterable) and not isinstance(run, Run | RunSummary | str) else [run]
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"`names` must be texts such as 'train_loss' (got {type(name).__name__}).")
    opened = open_configured(store)
    chosen = _listed(opened, list(given))
    for name in names:
        if not any(name in summary.metrics for summary in chosen):
            known = sorted({known for summary in chosen for known in summary.metrics})
            raise RunNotFound(f"none of these runs has the metric {name!r}: there is {', '.join(known) or 'none'}.")
    return points_frame(
        (summary, sorted(points, key=lambda point: (point.step, point.time_ms)))
        for summary in chosen
        for points in _series(opened, summary, names or summary.metrics).values()
    )


def _listed(store: QueryStore, given: Sequence[Run | RunSummary | str]) -> list[RunSummary]:
    """Runs as they are listed, which costs less than reading them: a listing counts no points.

    A store that cannot search reads all that it has for each look-up, so it is asked once.
    """
    known = {} if isinstance(store, SearchStore) else {run.id: run for run in store.iter_runs()}
    ids = (one.id if isinstance(one, RunSummary) else one if isinstance(one, str) else "" for one in given)
    return [known.get(run_id) or _look_up(store, one) for run_id, one in zip(ids, given, strict=True)]


def _look_up(store: QueryStore, run: Run | RunSummary | str) -> RunSummary:
    run_id = run_id_of(store, run)
    listed = (summary for summary in store.iter_runs(prefix=run_id) if summary.id == run_id)
    return next(listed, None) or store.read_run(run_id).run


def _series(store: QueryStore, run: RunSummary, names: Iterable[str]) -> Mapping[str, Sequence[Metric]]:
    """Points by name, of those names that the run has; in one reading where the store can."""
    wanted = [name for name in dict.fromkeys(names) if name in run.metrics]
    if not isinstance(store, PointsStore):
        return {name: list(store.iter_points(run.id, name)) for name in wanted}
    series: dict[str, list[Metric]] = {name: [] for name in wanted}
    for point in store.iter_all_points(run.id):
        if point.name in series:
            series[point.name].append(point)
    return series
