"""``overt runs``: what the store has and what still lies here, never mixed, so that nothing seems to have arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from overt.cli.options import chosen_store, json_option, store_option
from overt.errors import StoreUnavailable

if TYPE_CHECKING:
    from overt.cli.journals import Journal
    from overt.filters import Condition, Order
    from overt.records import RunSummary

_ID_DIGITS = 8


@click.command(short_help="List the runs in the store, and those that have not arrived.")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--where", metavar="FILTER", help='Only runs that fulfil it: "metrics.f1_score > 0.9".')
@click.option("--order-by", metavar="KEY", multiple=True, help='Such as "metrics.f1_score DESC"; may be repeated.')
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many runs.")
@store_option("Store to list instead of the configured one.")
@json_option()
@click.pass_context
def runs(
    ctx: click.Context,
    experiment: str | None,
    where: str | None,
    order_by: tuple[str, ...],
    limit: int,
    store: str | None,
    as_json: bool,
) -> None:
    """List the runs in the store, newest first, and those that have not arrived there.

    A run that lies undelivered in the journal folder is listed apart, with what is to be done about it, whether it
    fulfils the filter or not. Filters and keys are those of MLflow's own search.
    """
    from overt.cli.journals import iter_journals
    from overt.cli.text import complain, doubts_as_lines, print_json
    from overt.filters import parse_filter, parse_order
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    wanted = _Wanted(experiment, parse_filter(where), parse_order(order_by))
    waiting = [journal for journal in iter_journals(None) if _is_wanted(journal, experiment)]
    problem = doubt = ""
    try:
        with doubts_as_lines():
            found, doubt = _stored_runs(uri, wanted, limit + 1, is_chosen=store is not None, known=waiting)
    except StoreUnavailable as error:
        found, problem = [], str(error)
    listed, has_more = found[:limit], len(found) > limit
    if as_json:
        print_json(
            {
                "store": public_name(uri),
                "has_more": has_more,
                "runs": [run_to_json(run) for run in listed],
                "undelivered": [journal.to_json() for journal in waiting],
            }
        )
    else:
        _print(public_name(uri), listed, has_more, waiting, problem, is_filtered=where is not None)
    if doubt:
        complain(doubt)
    if problem:
        complain(problem)
        ctx.exit(1)


def run_to_json(run: RunSummary) -> dict[str, object]:
    """A run as it is described in the reference."""
    return {
        "id": run.id,
        "key": run.key,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "started_ms": run.started_ms,
        "ended_ms": run.ended_ms,
        "metrics": run.metrics,
    }


def _is_wanted(journal: Journal, experiment: str | None) -> bool:
    """Whether something of the journal waits for delivery, and its run is of the experiment asked for."""
    spec = journal.finding.spec
    return not journal.is_delivered and (experiment is None or (spec is not None and spec.experiment == experiment))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which runs are asked for, in which order."""

    experiment: str | None
    conditions: tuple[Condition, ...]
    order: tuple[Order, ...]


def _stored_runs(
    uri: str, wanted: _Wanted, most: int, *, is_chosen: bool, known: list[Journal]
) -> tuple[list[RunSummary], str]:
    """Runs in the store, and a doubt about a name that none has.

    A store that nobody named and that does not exist yet has no runs: nothing was delivered so far.
    """
    from overt.errors import RunNotFound
    from overt.query.finding import missing_place, open_query
    from overt.query.searching import find_runs, name_in_doubt

    if not is_chosen and missing_place(uri):
        return [], ""
    stored, experiment = open_query(uri), wanted.experiment
    try:
        found = find_runs(stored, experiment=experiment, conditions=wanted.conditions, order=wanted.order, limit=most)
    except RunNotFound:
        if known:  # the experiment exists here, and its first run has not arrived
            return [], ""
        raise
    return found, name_in_doubt(stored, found, experiment, wanted.conditions, wanted.order)


def _print(
    place: str,
    found: list[RunSummary],
    has_more: bool,
    waiting: list[Journal],
    problem: str,
    *,
    is_filtered: bool,
) -> None:
    from overt.cli.text import add_row, duration, few_metrics, moment, print_table, say, table

    if found:
        listing = table("id", "name", "experiment", "status", "started", "took", "metrics")
        for run in found:
            took = duration(run.started_ms, run.ended_ms)
            started = moment(run.started_ms)
            metrics = few_metrics(run.metrics)
            add_row(listing, run.id[:_ID_DIGITS], run.name, run.experiment, run.status, started, took, metrics)
        print_table(listing, title=f"Runs in {place}")
        if has_more:
            say("There are more: --limit shows them.")
    elif not problem:
        say(f"No run in {place} fulfils the filter." if is_filtered else f"No runs in {place} yet.")
    if waiting:
        say("")
        _print_waiting(waiting)


def _print_waiting(waiting: list[Journal]) -> None:
    from overt.cli.text import add_row, moment, print_table, say, size, table

    listing = table("key", "name", "experiment", "state", "started", "waiting", "for")
    for journal in waiting:
        spec = journal.finding.spec
        add_row(
            listing,
            (spec.key if spec else journal.name)[:_ID_DIGITS],
            journal.name if spec else "?",
            spec.experiment if spec else "?",
            journal.finding.state,
            moment(spec.started_ms) if spec else "?",
            size(journal.waiting_bytes),
            spec.store if spec else "?",
        )
    print_table(listing, title="Not delivered yet")
    states = {journal.finding.state for journal in waiting}
    if "vanished" in states or "unreadable" in states:
        say("overt doctor closes and delivers runs whose process vanished, and says what is wrong with others.")
    if states & {"ended", "elsewhere"}:
        say("overt sync delivers what waits.")
