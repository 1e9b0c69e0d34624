"""``overt reproduce``: what it takes to have a run again, and with ``--apply`` its code rebuilt."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, json_option, store_option

if TYPE_CHECKING:
    from overt.query.diffs import Diff
    from overt.query.origin import Origin
    from overt.reproduce import Plan, Rebuilt


@click.command(short_help="Say what it takes to have a run again, and rebuild its code.")
@click.argument("run", metavar="RUN")
@click.option(
    "--apply", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Rebuild the code in DIR, new or empty."
)
@store_option("Store to read instead of the configured one.")
@json_option()
def reproduce(run: str, folder: Path | None, store: str | None, as_json: bool) -> None:
    """Say what it takes to have a run again, and what cannot be matched; with --apply, rebuild its code.

    RUN is an id or its beginning, a run's name, model@alias, model/3, or last. --apply checks the recorded commit out
    from the repository around the working directory into a work tree of its own and applies the recorded diff. Nothing
    of it is run, and the repository's own work tree stays as it is.
    """
    from overt.cli.text import doubts_as_lines, print_json
    from overt.errors import OvertWarning
    from overt.reproduce import apply, plan
    from overt.stores.uri import public_name

    uri = chosen_store(store)
    with doubts_as_lines():
        warnings.filterwarnings("ignore", "what model ", OvertWarning)  # … cannot be read from here: none is needed
        planned = plan(run, uri)
    rebuilt = None if folder is None else apply(planned, folder)
    if as_json:
        print_json({"store": public_name(uri), **_plan_to_json(planned, rebuilt)})
    else:
        _print(planned, rebuilt)


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """Where a run came from, as it is described in the reference."""
    from overt.cli.show import data_to_json

    return {
        "recorded_by": origin.recorded_by,
        "commit": origin.commit,
        "branch": origin.branch,
        "remote": origin.remote,
        "dirty": origin.is_dirty,
        "diff": None if origin.diff is None else _diff_to_json(origin.diff),
        "argv": list(origin.argv),
        "script": origin.script,
        "cwd": origin.cwd,
        "python": origin.python,
        "environment": dict(origin.environment),
        "packages": dict(origin.packages),
        "seeds": dict(origin.seeds),
        "data": data_to_json(origin.data),
    }


def code_pairs(origin: Origin) -> list[tuple[str, str]]:
    """Code and command line of a run, for people."""
    from shlex import join

    from overt.cli.text import counted, size

    pairs = [("recorded by", origin.recorded_by or ""), ("commit", origin.commit or "not recorded")]
    pairs += [("branch", origin.branch or ""), ("remote", origin.remote or "")]
    if origin.diff is not None and origin.diff.changes:
        changes = counted(len(origin.diff.changes), "file")
        pairs.append(("diff", f"{changes}, {size(origin.diff.size)}: {_named([c.path for c in origin.diff.changes])}"))
    elif origin.commit is not None and origin.is_dirty is False:
        pairs.append(("diff", "none: the code was as committed"))
    pairs += [("command", join(origin.argv) if origin.argv else ""), ("run in", origin.cwd or "")]
    return [(name, text) for name, text in pairs if text]


def _plan_to_json(plan: Plan, rebuilt: Rebuilt | None) -> dict[str, Any]:
    from overt.cli.runs import run_to_json

    return {
        "run": run_to_json(plan.run),
        **origin_to_json(plan.origin),
        "package_changes": {
            name: {"recorded": recorded, "here": here} for name, (recorded, here) in plan.package_changes.items()
        },
        "missing": list(plan.missing if rebuilt is None else rebuilt.missing),
        "rebuilt": None if rebuilt is None else {"folder": str(rebuilt.folder), "files": list(map(str, rebuilt.files))},
    }


def _diff_to_json(diff: Diff) -> dict[str, Any]:
    return {
        "size": diff.size,
        "files": [{"path": change.path, "kind": change.kind} for change in diff.changes],
        "untracked": list(diff.untracked),
        "cut": diff.cut,
        "text": b"".join(change.section for change in diff.changes).decode("utf-8", "replace"),
    }


def _print(plan: Plan, rebuilt: Rebuilt | None) -> None:
    from overt.cli.show import data_pairs, print_pairs
    from overt.cli.text import counted, moment, say

    origin = plan.origin
    say(f"{plan.run.name}  {plan.run.status}  {plan.run.id}")
    say(f"  started {moment(plan.run.started_ms)} in experiment {plan.run.experiment}")
    print_pairs("Code", code_pairs(origin))
    here = counted(len(plan.package_changes), "package")
    differs = f"{len(origin.packages)} recorded; this environment differs in {here}" if origin.packages else ""
    python = [("python", origin.python)] if origin.python else []
    print_pairs("Environment", [*python, *([("packages", differs)] if differs else [])])
    print_pairs("Packages that differ", [(name, _both(*both)) for name, both in plan.package_changes.items()])
    print_pairs("Seeds", list(origin.seeds.items()))
    print_pairs("Data", data_pairs(origin.data))
    print_sentences("What cannot be matched", plan.missing if rebuilt is None else rebuilt.missing)
    if rebuilt is not None:
        say("")
        say(f"Rebuilt in {rebuilt.folder}; beside the code:")
        for file in rebuilt.files:
            say(f"  {file.relative_to(rebuilt.folder)}")


def print_sentences(title: str, sentences: tuple[str, ...]) -> None:
    """A title, and each sentence on a line of its own; nothing where there is none."""
    from overt.cli.text import one_line, say

    if sentences:
        say("")
        say(title)
        for sentence in sentences:
            say(f"  {one_line(sentence)}")


def _both(recorded: str, here: str | None) -> str:
    return f"{recorded} recorded, {here or 'none'} here"


def _named(names: list[str]) -> str:
    from overt.query.gaps import named

    return named(names)
