"""``overt promote``: an alias moves to a better version, or one line says why it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from overt.cli.options import chosen_store, json_option, store_option

if TYPE_CHECKING:
    from overt.records import Promotion


@click.command(short_help="Move an alias to a better version of a registered model.")
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="FROM")
@click.argument("alias", metavar="TO")
@click.option("--if-better", metavar="METRIC", help="Only if this score is better on the same data.")
@click.option("--mode", type=click.Choice(["max", "min"]), help="Which way it is better, where its name does not say.")
@store_option("Store to work with instead of the configured one.")
@json_option()
def promote(
    name: str,
    source: str,
    alias: str,
    if_better: str | None,
    mode: Literal["max", "min"] | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Move the alias TO of the registered model NAME to the version FROM, and keep a record of it.

    FROM is an alias or a version's number. Exit code 1 says that the alias stays where it is, and a line why.
    """
    from overt import registry
    from overt.cli.text import print_json, say
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    made = registry.promote(name, source, alias, if_better=if_better, mode=mode, store=uri)
    if as_json:
        print_json({"store": public_name(uri), **promotion_to_json(made)})
        return
    say(f"{made.alias} of {made.model} is version {made.version}{_was(made)}")
    if made.metric is not None:
        beaten = f", beats {made.replaced_score:.6g}" if made.replaced_score is not None else ""
        say(f"  {made.metric} {made.score:.6g}{beaten} on {made.dataset or 'unknown data'}")


def promotion_to_json(made: Promotion) -> dict[str, Any]:
    """A promotion as it is described in the reference."""
    return {
        "name": made.model,
        "version": made.version,
        "alias": made.alias,
        "source": made.source,
        "replaced": made.replaced,
        "run_id": made.run_id,
        "by": made.by,
        "at_ms": made.at_ms,
        "metric": made.metric,
        "mode": made.mode,
        "score": made.score,
        "replaced_score": made.replaced_score,
        "dataset": made.dataset,
        "state": made.state,
    }


def _was(made: Promotion) -> str:
    return f", was version {made.replaced}" if made.replaced is not None else ""
