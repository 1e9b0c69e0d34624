"""``overt audit``: the whole trail of a model or a run from the store alone, and what is missing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, json_option, store_option
from overt.records import NOTES_TAG

if TYPE_CHECKING:
    from overt.audit import Trail
    from overt.query.origin import Origin
    from overt.records import ModelVersion, Promotion, RunSummary

_MAIN_PACKAGES = (
    "overt mlflow scikit-learn torch lightning pytorch-lightning numpy scipy pandas xgboost lightgbm catboost skops"
).split()
_DIFF_LINES = 200


@click.command(short_help="Print the whole trail of a model or a run.")
@click.argument("name", metavar="MODEL@ALIAS|RUN")
@store_option("Store to read instead of the configured one.")
@json_option()
@click.pass_context
def audit(ctx: click.Context, name: str, store: str | None, as_json: bool) -> None:
    """Print what a model or a run was made of: who, when, code, data, environment, scores, promotions.

    Everything comes from the store. MODEL@ALIAS and MODEL/VERSION name a registered model; RUN is an id or its
    beginning, a run's name, or last. Last comes what the trail lacks.
    """
    from overt.audit import trail
    from overt.cli.text import complain, doubts_as_lines, print_json
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    with doubts_as_lines():
        found = trail(name, uri)
    if as_json:
        print_json({"store": public_name(uri), **_to_json(found)})
    else:
        _print(found, public_name(uri))
    if any(file.is_changed for file in found.files):
        complain("the model's files are not those that were recorded")
        ctx.exit(1)


def _to_json(found: Trail) -> dict[str, Any]:
    from overt.cli.promote import promotion_to_json
    from overt.cli.reproduce import origin_to_json
    from overt.cli.show import details_to_json

    return {
        "version": None if found.version is None else _version_to_json(found.version),
        "model_files": [
            {"path": file.path, "recorded": file.recorded, "found": file.found, "changed": file.is_changed}
            for file in found.files
        ],
        "promotions": [promotion_to_json(made) for made in found.promotions],
        "run": None if found.run is None else details_to_json(found.run),
        "origin": None if found.origin is None else origin_to_json(found.origin),
        "scores": [{"name": score.name, "value": score.value, "dataset": score.dataset} for score in found.scores],
        "missing": list(found.missing),
    }


def _version_to_json(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "run_id": version.run_id,
        "created_ms": version.created_ms,
        "aliases": list(version.aliases),
        "description": version.description,
        "tags": dict(version.tags),
    }


# -- for people --------------------------------------------------------------------------------------------------------


def _print(found: Trail, place: str) -> None:
    from overt.cli.reproduce import code_pairs, print_sentences
    from overt.cli.show import data_pairs, print_pairs
    from overt.cli.text import say

    if found.version is not None:
        _print_version(found)
    elif found.run is not None:
        say(f"{found.run.run.name}  {found.run.run.status}")
    if found.run is not None:
        print_pairs("Run", _run_pairs(found.run.run, place))
    if found.version is None:
        _print_digests(found)
    if found.origin is not None:
        print_pairs("Code", code_pairs(found.origin))
        print_pairs("Data", data_pairs(found.origin.data))
        print_pairs("Environment", _environment_pairs(found.origin))
        _print_diff(found.origin)
    if found.run is not None:
        print_pairs("Params", sorted(found.run.run.params.items()))
        unknown = "data that are not recorded"
        scores = [(score.name, f"{_number(score.value)}  on {score.dataset or unknown}") for score in found.scores]
        print_pairs("Scores", scores)
    print_pairs("Promotions", [_promotion_pair(made) for made in found.promotions])
    print_sentences("Missing, or in doubt", found.missing)
    if not found.missing:
        say("")
        say("Nothing is missing from this trail.")


def _print_diff(origin: Origin) -> None:
    """What differed from the commit, line by line; of a long one the beginning, and where the rest is."""
    from overt.cli.text import say
    from overt.query.origin import DIFF_FILE

    if origin.diff is None or not origin.diff.changes:
        return
    lines = b"".join(change.section for change in origin.diff.changes).decode("utf-8", "replace").splitlines()
    say("")
    say("Uncommitted changes")
    for line in lines[:_DIFF_LINES]:
        say(f"  {line}")
    if len(lines) > _DIFF_LINES:
        say(f"  … {len(lines) - _DIFF_LINES} lines more are in the run's file {DIFF_FILE}")


def _print_version(found: Trail) -> None:
    from overt.cli.show import print_pairs
    from overt.cli.text import counted, say

    version = found.version
    assert version is not None
    say(f"{version.name} version {version.version}")
    changed = sum(file.is_changed for file in found.files)
    checked = f"{counted(len(found.files), 'file')}, {'SHA-256 as recorded' if not changed else f'{changed} CHANGED'}"
    pairs = [("aliases", ", ".join(version.aliases)), ("description", version.description)]
    pairs += [("registered", _when(version.created_ms)), ("model", version.model_uri or "")]
    pairs += [("files", checked if found.files else ""), *sorted(version.tags.items())]
    print_pairs("Model", [(name, text) for name, text in pairs if text])
    _print_digests(found)


def _print_digests(found: Trail) -> None:
    from overt.cli.show import print_pairs

    print_pairs("SHA-256", [(file.path, file.found or "is not there") for file in found.files])


def _run_pairs(run: RunSummary, place: str) -> list[tuple[str, str]]:
    from overt.cli.text import duration

    took = duration(run.started_ms, run.ended_ms)
    who = run.tags.get("mlflow.user", "")
    pairs = [("name", run.name), ("id", run.id), ("experiment", run.experiment), ("store", place)]
    pairs += [("status", run.status), ("started", _when(run.started_ms)), ("took", took)]
    pairs += [
        ("who", who),
        ("host", run.tags.get("overt.host", "")),
        ("notes", run.tags.get(NOTES_TAG, "")),
    ]
    return [(name, text) for name, text in pairs if text]


def _environment_pairs(origin: Origin) -> list[tuple[str, str]]:
    from overt.cli.text import counted

    main = [f"{name} {origin.packages[name]}" for name in _MAIN_PACKAGES if name in origin.packages]
    rest = len(origin.packages) - len(main)
    pairs = [("python", origin.python or ""), ("platform", str(origin.environment.get("platform") or ""))]
    pairs.append(("packages", ", ".join(main) + (f" and {counted(rest, 'other')}" if rest else "")))
    pairs.append(("seeds", ", ".join(f"{name}={value}" for name, value in origin.seeds.items())))
    return [(name, text) for name, text in pairs if text]


def _promotion_pair(made: Promotion) -> tuple[str, str]:
    """When, and what happened."""
    replaced = f" in place of version {made.replaced}" if made.replaced else ""
    said = f"version {made.version} became {made.alias}{replaced}, by {made.by}, from run {made.run_id}"
    if made.metric is not None:
        against = f" against {_number(made.replaced_score)}" if made.replaced_score is not None else ""
        said += f"; {made.metric} {_number(made.score)}{against} on {made.dataset or '?'}"
    return _when(made.at_ms), said if made.state == "done" else f"{made.state}: {said}"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _when(ms: int) -> str:
    from overt.cli.text import moment

    try:
        return moment(ms)
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return f"{ms} ms"
