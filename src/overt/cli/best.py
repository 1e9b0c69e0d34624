"""``overt best``: the one run with the best value of a metric, and the settings that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overt.cli.options import chosen_store, json_option, store_option

if TYPE_CHECKING:
    from overt.records import RunSummary


@click.command(short_help="Show the run with the best value of a metric.")
@click.argument("metric", metavar="METRIC")
@click.option("--mode", type=click.Choice(["max", "min"]), help="Which way is better, where the name does not say.")
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option("--where", metavar="FILTER", help="Only runs that fulfil it: \"params.model_type = 'SVC'\".")
@store_option("Store to read instead of the configured one.")
@json_option()
def best(
    metric: str, mode: str | None, experiment: str | None, where: str | None, store: str | None, as_json: bool
) -> None:
    """Show the run with the best last value of METRIC. Of equal ones it is the newest; NaN is never the best."""
    from overt.cli.runs import run_to_json
    from overt.cli.text import doubts_as_lines, print_json
    from overt.filters import parse_filter
    from overt.query.directions import mode_of
    from overt.query.finding import open_query
    from overt.query.searching import find_best
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    conditions = parse_filter(where)
    with doubts_as_lines():
        run = find_best(open_query(uri), metric, mode=mode, experiment=experiment, conditions=conditions)
    direction = mode_of(metric, mode)
    if as_json:
        described = {**run_to_json(run), "params": run.params}
        print_json({"store": public_name(uri), "metric": metric, "mode": direction, "run": described})
    else:
        _print(run, metric, direction)


def _print(run: RunSummary, metric: str, mode: str) -> None:
    from overt.cli.text import add_row, moment, print_table, say, table

    say(f"{run.name}  {metric} {run.metrics[metric]:.6g} ({mode})")
    say(f"  id          {run.id}")
    say(f"  experiment  {run.experiment}")
    say(f"  status      {run.status}")
    say(f"  started     {moment(run.started_ms)}")
    for title, values in (("Params", run.params), ("Metrics", {k: f"{v:.6g}" for k, v in run.metrics.items()})):
        if values:
            listing = table()
            for name, value in sorted(values.items()):
                add_row(listing, name, value)
            say("")
            print_table(listing, title=title)
