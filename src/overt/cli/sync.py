"""``overt sync``: delivers journals that nobody delivers any more; it needs no class of the user's and runs nothing.

The exit code is the answer: 0 when everything that was there has arrived, 1 when something is left or was refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import folder_argument, json_option, store_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from overt.cli.journals import Destinations
    from overt.delivery.sync import Outcome


@click.command()
@folder_argument()
@store_option("Deliver to this store, whatever the journals name.")
@click.option("--keep", is_flag=True, help="Leave delivered journals where they are.")
@json_option()
@click.pass_context
def sync(ctx: click.Context, folder: Path | None, store: str | None, keep: bool, as_json: bool) -> None:
    """Deliver the runs that have not arrived in their store.

    DIR is a journal folder (.overt), its runs folder or one run's folder; without it, it is this machine's own. What
    has arrived already is not doubled. A folder from elsewhere needs --store, unless its runs were recorded for the
    configured store.
    """
    from overt.cli.journals import Destinations, folders
    from overt.cli.text import complain, print_json

    destinations = Destinations(folder, store, command="overt sync")
    with _progress(is_wanted=not as_json) as advance:
        results = [result for base in folders(folder) for result in _deliver(base, destinations, keep, advance)]
    left = [result for result in results if result.problem]
    if as_json:
        print_json(
            {
                "delivered": sum(result.is_new for result in results),
                "left": len(left),
                "runs": [result.to_json() for result in results],
            }
        )
    else:
        _print(results)
    for line in _complaints(left):
        complain(line)
    ctx.exit(1 if left else 0)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one journal; ``problem`` says why not all of it has arrived, and is empty if all has."""

    outcome: Outcome
    problem: str

    @property
    def is_new(self) -> bool:
        """Whether it has arrived, and had not before."""
        return self.outcome.sent and not self.problem

    @property
    def label(self) -> str:
        """The run's name and the beginning of its key, or the folder that nothing could be read in."""
        spec = self.outcome.finding.spec
        return f"run {spec.name} ({spec.key[:8]})" if spec else str(self.outcome.finding.folder)

    def to_json(self) -> dict[str, Any]:
        """What became of a journal, as it is described in the reference."""
        spec = self.outcome.finding.spec
        return {
            "key": spec.key if spec else None,
            "name": spec.name if spec else None,
            "experiment": spec.experiment if spec else None,
            "state": self.outcome.finding.state,
            "folder": str(self.outcome.finding.folder),
            "run_id": self.outcome.run_id,
            "delivered": not self.problem,
            "new": self.is_new,
            "closed": self.outcome.closed,
            "problem": self.problem,
        }


def _deliver(base: Path, destinations: Destinations, keep: bool, advance: Callable[[str], None]) -> Iterator[Result]:
    from overt.delivery.sync import sync as deliver

    for outcome in deliver(base, store_of=destinations.uri_of, keep=keep):
        if outcome.finding.folder.exists() or outcome.finding.spec is not None:  # else its courier was quicker
            result = Result(outcome, problem_of(outcome, destinations))
            advance(result.label)
            yield result


def problem_of(outcome: Outcome, destinations: Destinations) -> str:
    """Why not all of a journal has arrived, in one sentence; empty if it has."""
    spec = outcome.finding.spec
    if spec is not None and spec.key in destinations.withheld:
        return destinations.withheld[spec.key]
    if outcome.problem or outcome.delivered:
        return outcome.problem
    if outcome.finding.state == "live":
        return "its process is writing to it at this moment"
    return f"its last line has no end, and nobody here can tell whether it will be finished on {outcome.finding.host}"


def _complaints(left: list[Result]) -> Iterator[str]:
    """A line for each run that is left, and one for all that were not tried because of one store."""
    from overt.cli.text import counted

    for result in left:
        if result.outcome.tried:
            yield f"{result.label}: {result.problem}"
    untried = Counter(result.problem for result in left if not result.outcome.tried)
    for problem, number in untried.items():
        yield f"{counted(number, 'more run')} for the same store not tried: {problem}"


def _print(results: list[Result]) -> None:
    from overt.cli.text import counted, say

    new = [result for result in results if result.is_new]
    for result in new:
        what = ", closed as KILLED: its process is gone" if result.outcome.closed else ""
        so_far = ", so far: it is still being recorded" if result.outcome.finding.state == "live" else ""
        say(f"{result.label}: delivered{what}{so_far}")
    left = sum(1 for result in results if result.problem)
    here = len(results) - len(new) - left
    if not new and not left:
        say("There is nothing to deliver" + (f": {counted(here, 'journal')} here arrived before." if here else "."))
    else:
        say(f"{counted(len(new), 'run')} delivered, {left} left.")


@contextmanager
def _progress(*, is_wanted: bool) -> Iterator[Callable[[str], None]]:
    """A line on a terminal's stderr that says which run was delivered last; nothing anywhere else."""
    from rich.console import Console

    from overt.cli.text import plain

    console = Console(stderr=True, highlight=False, markup=False)
    if not is_wanted or not console.is_terminal:
        yield lambda name: None
        return
    done = 0
    with console.status("Delivering …") as status:

        def advance(name: str) -> None:
            nonlocal done
            done += 1
            status.update(f"Delivering … {done} done, last {plain(name)}".replace("[", "\\["))

        yield advance
