"""``overt show``: one run, whole, as the store holds it; what of it lies here undelivered is said beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, json_option, store_option
from overt.records import NOTES_TAG

if TYPE_CHECKING:
    from overt.cli.journals import Journal
    from overt.records import RunDetails, StoredDataset, StoredModel
    from overt.stores.protocols import QueryStore


@click.command(short_help="Show everything of one run.")
@click.argument("run", metavar="RUN")
@store_option("Store to read instead of the configured one.")
@json_option()
def show(run: str, store: str | None, as_json: bool) -> None:
    """Show everything of one run: params, metrics, tags, datasets, files and models.

    RUN is an id or its beginning, a run's name, model@alias, model/3, or last.
    """
    from overt.cli.journals import iter_journals
    from overt.cli.text import complain, doubts_as_lines, print_json
    from overt.query.finding import open_query
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    waiting = [journal for journal in iter_journals(None) if not journal.is_delivered]
    stored = open_query(uri)
    with doubts_as_lines():
        found = stored.read_run(delivered_id(stored, run, waiting))
    if as_json:
        print_json({"store": public_name(uri), **details_to_json(found)})
    else:
        _print(found, uri)
    note = _note_on_undelivered(run, found, waiting)
    if note:
        complain(note)


def delivered_id(store: QueryStore, name: str, waiting: Sequence[Journal]) -> str:
    """Id in the store of the run that answers to ``name``.

    Raises
    ------
    RunNotFound
        When none does; the message says so if the run lies here and has not arrived.
    """
    from overt.errors import RunNotFound
    from overt.query.finding import find_run

    try:
        return find_run(store, name)
    except RunNotFound:
        _raise_if_undelivered(name, waiting)
        raise


def details_to_json(found: RunDetails) -> dict[str, Any]:
    """A run in full, as it is described in the reference."""
    from overt.cli.runs import run_to_json

    return run_to_json(found.run) | {
        "metrics": {
            name: {"last": value, "points": found.points.get(name, 1)} for name, value in found.run.metrics.items()
        },
        "params": found.run.params,
        "tags": found.run.tags,
        "notes": found.run.tags.get(NOTES_TAG, ""),
        "datasets": data_to_json(found.datasets),
        "files": [{"path": file.path, "size": file.size} for file in found.files],
        "models": [
            {"name": model.name, "uri": model.uri, "status": model.status, "flavors": list(model.flavors)}
            for model in found.models
        ],
    }


def data_to_json(found: Sequence[StoredDataset]) -> list[dict[str, Any]]:
    """Datasets as they are described in the reference."""
    return [
        {"name": data.name, "digest": data.digest, "context": data.context, "profile": _parsed(data.profile)}
        for data in found
    ]


def data_pairs(found: Sequence[StoredDataset]) -> list[tuple[str, str]]:
    """Datasets for people."""
    return [(data.name, f"{data.context}, {_shape(data.profile)}digest {data.digest}") for data in found]


def _raise_if_undelivered(name: str, waiting: Sequence[Journal]) -> None:
    """Say so if the run that was asked for lies here and has not arrived."""
    from overt.errors import RunNotFound

    for journal in waiting:
        spec = journal.finding.spec
        if spec is not None and (name in (spec.name, "last") or (len(name) >= 4 and spec.key.startswith(name))):
            remedy = "overt doctor" if journal.finding.state == "vanished" else "overt sync"
            raise RunNotFound(
                f"run {spec.name} ({spec.key[:8]}) has not arrived in the store: it lies in {journal.finding.folder}; "
                f"{remedy} delivers it"
            )


def _note_on_undelivered(name: str, found: RunDetails, waiting: list[Journal]) -> str:
    """What lies here and is missing from what was shown."""
    from overt.cli.text import size

    for journal in waiting:
        spec = journal.finding.spec
        if spec is not None and spec.key == found.run.key:
            return f"{size(journal.waiting_bytes)} of this run wait in {journal.finding.folder}: overt sync"
        if spec is not None and name == "last" and spec.started_ms > found.run.started_ms:
            return f"a newer run, {spec.name}, has not arrived in the store yet: overt runs"
    return ""


def _print(found: RunDetails, uri: str) -> None:
    from overt.cli.text import duration, moment, say, size
    from overt.stores.uri import public_name

    run = found.run
    took = duration(run.started_ms, run.ended_ms)
    say(f"{run.name}  {run.status}")
    say(f"  id          {run.id}")
    say(f"  experiment  {run.experiment}")
    say(f"  store       {public_name(uri)}")
    say(f"  started     {moment(run.started_ms)}{f', took {took}' if took else ''}")
    if run.tags.get(NOTES_TAG):
        say("")
        for line in run.tags[NOTES_TAG].splitlines():
            say(f"  {line}")
    print_pairs("Params", sorted(run.params.items()))
    _print_metrics(found)
    print_pairs("Tags", sorted((name, value) for name, value in run.tags.items() if name != NOTES_TAG))
    print_pairs("Datasets", data_pairs(found.datasets))
    print_pairs("Files", [(file.path, size(file.size)) for file in found.files])
    for model in found.models:
        _print_model(model, uri, run.id)


def print_pairs(title: str, pairs: list[tuple[str, str]]) -> None:
    """Two columns under a title; nothing where there is none."""
    from overt.cli.text import add_row, print_table, say, table

    if pairs:
        listing = table()
        for pair in pairs:
            add_row(listing, *pair)
        say("")
        print_table(listing, title=title)


def _print_metrics(found: RunDetails) -> None:
    from overt.cli.text import add_row, print_table, say, table

    if found.run.metrics:
        listing = table("name", "last", "points")
        for name, value in sorted(found.run.metrics.items()):
            add_row(listing, name, f"{value:.6g}", str(found.points.get(name, 1)))
        say("")
        print_table(listing, title="Metrics")


def _print_model(model: StoredModel, uri: str, run_id: str) -> None:
    """A model, and the lines that load it."""
    from overt.cli.text import say
    from overt.stores.uri import light_path, public_name

    own = [flavor for flavor in model.flavors if flavor != "python_function"]
    flavor = own[0] if own and own[0].isidentifier() else "pyfunc"
    say("")
    say(f"Model {model.name}  {model.uri}{'' if model.status == 'READY' else f'  {model.status}'}")
    say("  To load it:")
    if light_path(uri):
        say(f'    model = overt.load_model("runs:/{run_id}/{model.name}", store="{uri}")')
        return
    say(f'    mlflow.set_tracking_uri("{public_name(uri)}")')
    say(f'    model = mlflow.{flavor}.load_model("{model.uri}")')


def _parsed(text: str) -> Any:
    """A dataset's profile as an object, or as the text that it is."""
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    return text


def _shape(profile: str) -> str:
    """``150 x 4, `` from a dataset's profile, if it says so."""
    content = _parsed(profile)
    shape = content.get("features_shape") if isinstance(content, dict) else None
    if isinstance(shape, list) and shape and all(isinstance(length, int) for length in shape):
        return " x ".join(map(str, shape)) + ", "
    return ""
