"""``overt register``: a run's model becomes a version of a registered model, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, json_option, store_option

if TYPE_CHECKING:
    from overt.records import ModelVersion


@click.command(short_help="Make a run's model a version of a registered model.")
@click.argument("run", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.option("--model", metavar="MODEL", default="model", show_default=True, help="Which of the run's models.")
@click.option("--alias", metavar="ALIAS", help="Move this alias to the version, without comparing.")
@click.option("--description", metavar="TEXT", help="Describe the version.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="Set a tag on the version; may be repeated.")
@store_option("Store to work with instead of the configured one.")
@json_option()
def register(
    run: str,
    name: str,
    model: str,
    alias: str | None,
    description: str | None,
    tags: tuple[str, ...],
    store: str | None,
    as_json: bool,
) -> None:
    """Make a run's model a version of the registered model NAME; a second time finds that version.

    RUN is an id or its beginning, a run's name, model@alias, model/3, or last.
    """
    from overt import registry
    from overt.cli.text import print_json, say
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    version = registry.register(
        run, name, model=model, alias=alias, description=description, tags=_as_mapping(tags), store=uri
    )
    if as_json:
        print_json({"store": public_name(uri), **version_to_json(version)})
        return
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    say(f"version {version.version} of {version.name}{aliases}, made by run {version.run_id}")
    say(f'  overt.load_model("{version.name}/{version.version}")')


def version_to_json(version: ModelVersion) -> dict[str, Any]:
    """A version as it is described in the reference."""
    from overt.cli.promote import promotion_to_json

    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "run_id": version.run_id,
        "model_uri": version.model_uri,
        "created_ms": version.created_ms,
        "aliases": list(version.aliases),
        "description": version.description,
        "tags": version.tags,
        "promotions": [promotion_to_json(promotion) for promotion in version.promotions],
    }


def _as_mapping(tags: tuple[str, ...]) -> dict[str, str]:
    for tag in tags:
        if not tag.partition("=")[0] or "=" not in tag:
            raise click.BadParameter(f"must be KEY=VALUE (got {tag!r})", param_hint="--tag")
    return {tag.partition("=")[0]: tag.partition("=")[2] for tag in tags}
