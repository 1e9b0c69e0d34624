"""``overt doctor``: says in words what stands in the way of a complete record, and mends what can be mended safely.

The one thing that it changes is a run whose process is provably gone and which has no ending: that is closed as KILLED
and delivered. A run from another host may still be running there, so it is closed only when ``--close`` says otherwise.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overt.cli.options import chosen_store, folder_argument, json_option, store_option

if TYPE_CHECKING:
    from overt.cli.journals import Damage, Destinations, Journal
    from overt.delivery.sync import Outcome
    from overt.records import RunSpec


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``next`` is what to type or do; empty where nothing needs doing."""

    name: str
    ok: bool
    text: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One journal: how it stood, what is wrong with it, what was done, and what is left to do."""

    journal: Journal
    damage: Damage
    ok: bool
    text: str
    next: str = ""
    closed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as it is described in the reference."""
        return self.journal.to_json() | {
            "ok": self.ok,
            "text": self.text,
            "next": self.next,
            "closed": self.closed,
            "bad_lines": self.damage.bad_lines,
            "rejected": self.journal.rejected,
            "lost": self.damage.lost,
        }


@click.command(short_help="Examine journals and store; close runs whose process vanished.")
@folder_argument()
@click.option("--close", is_flag=True, help="Close runs without an ending from other hosts too.")
@store_option("Deliver to this store, whatever the journals name.")
@json_option()
@click.pass_context
def doctor(ctx: click.Context, folder: Path | None, close: bool, store: str | None, as_json: bool) -> None:
    """Examine journals, store and installation; close and deliver runs whose process vanished.

    DIR is a journal folder (.overt), its runs folder or one run's folder; without it, it is this machine's own.
    """
    from overt.cli.journals import Destinations, folders
    from overt.cli.text import print_json

    destinations = Destinations(folder, store, command="overt doctor" + (" --close" if close else ""))
    bases = folders(folder)
    checks = list(_iter_checks(chosen_store(store)))
    diagnoses = [diagnosis for base in bases for diagnosis in _iter_diagnoses(base, destinations, close)]
    is_healthy = all(check.ok for check in checks) and all(diagnosis.ok for diagnosis in diagnoses)
    if as_json:
        print_json(
            {
                "healthy": is_healthy,
                "checks": [asdict(check) for check in checks],
                "journals": [diagnosis.to_json() for diagnosis in diagnoses],
            }
        )
    else:
        _print(checks, diagnoses)
    ctx.exit(0 if is_healthy else 1)


# -- the installation and the store ------------------------------------------------------------------------------------


def _iter_checks(uri: str) -> Iterator[Check]:
    from overt.cli.options import configured_folder
    from overt.cli.text import installed_version

    yield Check("overt", True, f"{installed_version('overt')} on Python {platform.python_version()}")
    yield _check_mlflow(uri)
    yield _check_plots()
    yield _check_folder(configured_folder())
    yield _check_store(uri)


def _check_mlflow(uri: str) -> Check:
    from overt.cli.text import installed_version
    from overt.optional import is_installed
    from overt.stores.uri import is_mlflow

    if is_installed("mlflow"):
        return Check("mlflow", True, f"{installed_version('mlflow')} is installed")
    is_needed = is_mlflow(uri)
    text = "is not installed" + (", so nothing can be delivered from here" if is_needed else "")
    return Check("mlflow", not is_needed, text, "pip install 'overt[mlflow]'" if is_needed else "")


def _check_plots() -> Check:
    from overt.cli.text import installed_version
    from overt.optional import is_installed

    if is_installed("matplotlib"):
        return Check("plots", True, f"matplotlib {installed_version('matplotlib')} is installed")
    text = "matplotlib is not installed: pictures that are delivered from here are left out"
    return Check("plots", True, text, "pip install 'overt[plots]'")


def _check_folder(base: Path) -> Check:
    """Whether journals can be written where they are to be, or could be created there."""
    standing = next(place for place in (base, *base.parents) if place.exists())
    if standing.is_dir() and os.access(standing, os.W_OK | os.X_OK):
        return Check("journals", True, f"{base} " + ("can be written" if base.is_dir() else "comes with the first run"))
    from overt.settings import cache_base

    text = f"{base} cannot be written, so journals go to {cache_base()}"
    return Check("journals", False, text, "set OVERT_DIR to another place")


def _check_store(uri: str) -> Check:
    from overt.errors import OvertError
    from overt.query.finding import missing_place, open_query
    from overt.stores.uri import public_name

    place = public_name(uri)
    if missing_place(uri):
        return Check("store", True, f"{place} is not there yet: the first delivery makes it")
    try:
        next(iter(open_query(uri).iter_runs()), None)
    except OvertError as error:
        return Check("store", False, str(error))
    return Check("store", True, f"{place} answers")


# -- journals ----------------------------------------------------------------------------------------------------------


def _iter_diagnoses(base: Path, destinations: Destinations, close: bool) -> Iterator[Diagnosis]:
    from overt.cli.journals import damage, iter_journals

    examined = [(journal, damage(journal.finding.folder)) for journal in iter_journals(base)]
    curable = ("vanished", "elsewhere") if close else ("vanished",)
    to_close = {
        journal.finding.spec.key
        for journal, _ in examined
        if journal.finding.spec is not None and journal.finding.state in curable
    }
    outcomes = _close(base, to_close, destinations, close) if to_close else {}
    for journal, found in examined:
        outcome = outcomes.get(journal.finding.folder)
        yield _after_closing(journal, found, outcome, destinations) if outcome else _as_it_lies(journal, found)


def _close(base: Path, keys: set[str], destinations: Destinations, close: bool) -> dict[Path, Outcome]:
    """Close and deliver the runs with these keys, and leave all others as they are."""
    from overt.delivery.sync import sync

    def uri_of(spec: RunSpec) -> str | None:
        return destinations.uri_of(spec) if spec.key in keys else None

    outcomes = sync(base, store_of=uri_of, assume_over=close)
    return {o.finding.folder: o for o in outcomes if o.finding.spec is not None and o.finding.spec.key in keys}


def _after_closing(journal: Journal, found: Damage, outcome: Outcome, destinations: Destinations) -> Diagnosis:
    from overt.cli.sync import problem_of

    problem = problem_of(outcome, destinations)
    gone = "its process vanished" if journal.finding.state == "vanished" else "it was closed by your word"
    if outcome.closed and outcome.delivered:
        gaps = _gaps(journal, found) or problem
        text = f"{gone}: closed as KILLED and delivered" + (f"; {gaps}" if gaps else "")
        return Diagnosis(journal, found, not gaps, text, closed=True)
    text = f"{gone}, and it could not be {'delivered' if outcome.closed else 'closed'}: {problem}"
    return Diagnosis(journal, found, False, text, "overt doctor, when that is mended", closed=outcome.closed)


def _as_it_lies(journal: Journal, found: Damage) -> Diagnosis:
    from overt.cli.text import size

    finding = journal.finding
    waiting = f"{size(journal.waiting_bytes)} of it wait"
    match finding.state:
        case "unreadable":
            text = "nothing in it can be read: it is damaged, or a newer overt wrote it"
            return Diagnosis(journal, found, False, text, f"upgrade overt, or remove {finding.folder}")
        case "elsewhere":
            text = f"it has no ending and was written on host {finding.host}, so it may still run there"
            return Diagnosis(journal, found, False, text, f"if it does not: overt doctor --close {finding.folder}")
        case "live":
            text, then = "it is being recorded" + ("" if journal.is_delivered else f"; {waiting}"), ""
        case _ if journal.is_delivered:
            text, then = "it has ended and all of it was delivered", ""
        case _:
            text, then = f"it has ended, and {waiting}", "overt sync"
    gaps = _gaps(journal, found)
    is_ok = not gaps and not then
    return Diagnosis(journal, found, is_ok, text + (f"; {gaps}" if gaps else ""), then or _after_gaps(journal))


def _gaps(journal: Journal, found: Damage) -> str:
    """What of the run will be missing from the store, in words."""
    from overt.cli.text import counted

    parts = []
    if found.bad_lines:
        parts.append(f"{counted(found.bad_lines, 'line')} damaged")
    if journal.rejected:
        parts.append(f"{counted(journal.rejected, 'record')} refused by the store")
    if found.lost:
        parts.append(f"{counted(found.lost, 'record')} lost before reaching the disk")
    return ", ".join(parts)


def _after_gaps(journal: Journal) -> str:
    from overt.journal.folder import REJECTED

    return f"reasons and records are in {journal.finding.folder / REJECTED}" if journal.rejected else ""


def _print(checks: list[Check], diagnoses: list[Diagnosis]) -> None:
    from overt.cli.text import counted, say

    for check in checks:
        say(f"{_mark(check.ok)} {check.name}: {check.text}")
        _say_next(check.next)
    for diagnosis in diagnoses:
        spec = diagnosis.journal.finding.spec
        label = f"run {spec.name} ({spec.key[:8]})" if spec else str(diagnosis.journal.finding.folder)
        say(f"{_mark(diagnosis.ok)} {label}: {diagnosis.text}")
        _say_next(diagnosis.next)
    wrong = sum(not check.ok for check in checks) + sum(not diagnosis.ok for diagnosis in diagnoses)
    verdict = f"{counted(wrong, 'problem')}." if wrong else "All is well."
    say(f"{counted(len(diagnoses), 'journal')} examined. {verdict}")


def _mark(is_ok: bool) -> str:
    return "ok " if is_ok else "!! "


def _say_next(text: str) -> None:
    from overt.cli.text import say

    if text:
        say(f"     next: {text}")
