"""What a record of a run's origin lacks, each as one sentence for people who have not seen it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overt.query.origin import Origin

_NAMED = 10


def iter_gaps(origin: Origin) -> Iterator[str]:
    """What ``origin`` does not tell, or tells in part."""
    yield from origin.doubts
    yield from _iter_gaps_in_code(origin)
    yield from _iter_gaps_in_command(origin)
    yield from _iter_gaps_in_environment(origin)
    yield from _iter_gaps_in_numbers(origin)


def _iter_gaps_in_code(origin: Origin) -> Iterator[str]:
    if origin.commit is None:
        yield "no commit is recorded: the run was outside a git repository, or git did not answer"
    elif origin.is_dirty is None:
        yield "whether the code differed from the commit is not recorded"
    yield from _iter_gaps_in_diff(origin)
    if origin.later_attempts:
        yield (
            f"the run went on after its start, in attempts up to number {origin.later_attempts + 1}: "
            "this is the code of its start; the others' stands in its tags overt.attempt_N.… and in overt/attempt-N/"
        )


def _iter_gaps_in_diff(origin: Origin) -> Iterator[str]:
    diff = origin.diff
    if origin.is_dirty and (diff is None or not diff.changes):
        yield "the code differed from the commit, and the difference is not recorded"
    if diff is None:
        return
    if diff.cut:
        yield f"the diff was cut when it was recorded: {diff.cut}"
    for change in diff.changes:
        if change.kind == "binary":
            yield f"the binary file {change.path} differed from the commit: a diff names it and does not hold it"
        elif change.kind == "link":
            yield f"the symbolic link {change.path} differed from the commit: links are not rebuilt from a record"
        elif change.kind == "submodule":
            yield f"the submodule {change.path} differed from the commit: it is a repository of its own"
        elif change.is_redacted:
            yield f"a secret was taken out of the diff of {change.path}: [redacted] stands in its place"
    if diff.untracked:
        yield f"files that git did not know are recorded by name only: {named(diff.untracked)}"


def _iter_gaps_in_command(origin: Origin) -> Iterator[str]:
    if not origin.argv:
        yield "no command line is recorded"
    elif any("ipykernel" in argument for argument in origin.argv):
        yield "it ran in a notebook: which cells ran, and in which order, is not recorded"
    elif origin.is_of_another:
        yield f"{origin.script} is not in the repository that is recorded: the commit is that of where it was run"
    if origin.is_outside:
        yield f"it was run in {origin.cwd}, outside the repository that is recorded: what it found there is not known"
    if origin.redacted_arguments:
        yield f"secrets were taken out of the command line: {named(origin.redacted_arguments)}"


def _iter_gaps_in_environment(origin: Origin) -> Iterator[str]:
    if origin.python is None:
        yield "the version of Python is not recorded"
    if origin.variables.get("PYTHONPATH"):
        yield f"PYTHONPATH was {origin.variables['PYTHONPATH']}: what was imported from there is not recorded"
    if not origin.packages:
        yield "the installed packages are not recorded"


def _iter_gaps_in_numbers(origin: Origin) -> Iterator[str]:
    if origin.unset_seeds:
        yield f"random numbers came from a state that is not recorded: {named(origin.unset_seeds)}"
    if not origin.seeds and not origin.unset_seeds:
        yield "no seed is recorded, neither as a param (random_state, seed, random_seed) nor as PYTHONHASHSEED"
    if not origin.data:
        yield "no data are recorded, so nobody can tell whether they are the same"


def named(names: Sequence[str]) -> str:
    """The first of ``names``, and how many there are besides."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
