"""``overt compare``: what differs between runs, and nothing of what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, json_option, store_option

if TYPE_CHECKING:
    from overt.query.comparing import Comparison


@click.command(short_help="Show what differs between runs.")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@store_option("Store to read instead of the configured one.")
@json_option()
def compare(runs: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Show what differs between runs: params, metrics, code, data and packages.

    RUN is an id or its beginning, a run's name, model@alias, model/3, or last.
    """
    from overt.cli.journals import iter_journals
    from overt.cli.show import delivered_id
    from overt.cli.text import print_json
    from overt.query.comparing import compare_runs
    from overt.query.finding import open_query
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    waiting = [journal for journal in iter_journals(None) if not journal.is_delivered]
    stored = open_query(uri)
    found = compare_runs(stored, [delivered_id(stored, run, waiting) for run in runs])
    if as_json:
        print_json({"store": public_name(uri), **comparison_to_json(found)})
    else:
        click.echo(str(found))


def comparison_to_json(found: Comparison) -> dict[str, Any]:
    """A comparison as it is described in the reference."""
    return {
        "runs": [{"id": run.id, "name": run.name, "experiment": run.experiment} for run in found.runs],
        "params": found.params,
        "metrics": found.metrics,
        "code": found.code,
        "data": found.data,
        "packages": found.packages,
        "notes": found.notes,
    }
