"""``overt import``: the runs of plain files, overt's own or the source document's, go to another store."""

from __future__ import annotations

from pathlib import Path

import click

from overt.cli.options import chosen_store, json_option, store_option


@click.command("import", short_help="Carry the runs of plain files into a store.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@store_option("Store to carry them to instead of the configured one.")
@json_option()
@click.pass_context
def import_(ctx: click.Context, file: Path, store: str | None, as_json: bool) -> None:
    """Carry the runs of plain files into a store, with their times.

    FILE is a runs.jsonl, the folder that it is in, or a CSV table of runs; records and files beside it come along. What
    was carried over before is not doubled.
    """
    from overt.cli.text import complain, counted, doubts_as_lines, one_line, print_json, say
    from overt.importing import import_runs
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    arrived = []
    with doubts_as_lines():
        for imported in import_runs(file, store=uri):
            arrived.append(imported)
            if imported.run_id and not as_json:
                say(f"{one_line(imported.run.name)}: {imported.run_id}")
            if imported.problem:
                complain(imported.problem)
    if as_json:
        runs = [
            {"id": done.run_id or None, "name": done.run.name, "problem": done.problem, "was_there": done.was_there}
            for done in arrived
        ]
        print_json({"store": public_name(uri), "runs": runs})
    else:
        known = sum(1 for each in arrived if each.was_there)
        carried = sum(1 for each in arrived if each.run_id) - known
        there = f"; {known} {'was' if known == 1 else 'were'} there already" if known else ""
        say(f"{counted(carried, 'run')} carried into {public_name(uri)}{there}.")
    ctx.exit(1 if any(imported.problem for imported in arrived) else 0)
