"""Rebuilds a run's code in a folder of its own, with what else is needed to run it again beside it.

Nothing is half done: what cannot be rebuilt whole leaves no folder behind. Nothing of the record is run.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from overt.errors import NotReproducible
from overt.query.gaps import named
from overt.query.origin import Origin
from overt.reproduce.command import command_in
from overt.reproduce.planning import Plan
from overt.reproduce.sheets import page, requirements
from overt.reproduce.worktree import Repository

SHEETS = "overt-reproduce"
"""Folder in the rebuilt tree that holds what is written beside it."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A rebuilt run.

    Attributes
    ----------
    folder : Path
        A git work tree: the commit, detached, with the recorded diff in it and in its index.
    files : tuple of Path
        Written besides: requirements for pip, the command if it can be given as it was, and a page that explains all.
    missing : tuple of str
        What cannot be matched: what the plan says, and what showed when the tree was there.
    """

    folder: Path
    files: tuple[Path, ...]
    missing: tuple[str, ...]


def apply(plan: Plan, folder: str | os.PathLike[str]) -> Rebuilt:
    """Rebuild the commit and the diff of a run in ``folder``, from the repository of the working directory.

    Parameters
    ----------
    plan : Plan
        Of :func:`plan`.
    folder : path
        New or empty.

    Raises
    ------
    ConfigurationError
        When ``folder`` is taken.
    NotReproducible
        When no commit is recorded or it is not here, or the diff is cut or does not apply. Nothing is left behind.
    """
    origin, target = plan.origin, Path(os.path.abspath(folder))
    commit = _require_whole(origin)
    repository = Repository(Path.cwd())
    if not repository.holds(commit):
        raise NotReproducible(_not_here(commit, origin, repository))
    patch = origin.diff.patch if origin.diff else b""
    try:
        with repository.building(commit, patch, target):
            return _with_sheets(plan, target, repository)
    except NotReproducible as error:
        raise NotReproducible(
            f"commit {commit[:12]} with the recorded diff cannot be rebuilt: {error}{_hint(origin)}"
        ) from error
    except OSError as error:
        raise NotReproducible(f"{target} cannot be written: {error}") from error


def _require_whole(origin: Origin) -> str:
    if origin.commit is None:
        raise NotReproducible("no commit of this run is recorded, so there is no code to rebuild")
    if origin.diff is not None and origin.diff.cut:
        raise NotReproducible(
            f"the recorded diff is not whole ({origin.diff.cut}), so the code cannot be rebuilt; its commit alone: "
            f"git worktree add --detach DIR {origin.commit}"
        )
    return origin.commit


def _not_here(commit: str, origin: Origin, repository: Repository) -> str:
    place = f"; the run's remote was {origin.remote}" if origin.remote else ""
    branch = f", on branch {origin.branch}" if origin.branch else ""
    return f"commit {commit} is not in {repository.folder}: git fetch may bring it{place}{branch}"


def _hint(origin: Origin) -> str:
    redacted = [change.path for change in origin.diff.changes if change.is_redacted] if origin.diff else []
    return f" (secrets were taken out of the diff of {named(redacted)}, which may be why)" if redacted else ""


def _with_sheets(plan: Plan, tree: Path, repository: Repository) -> Rebuilt:
    command, doubts = command_in(tree, plan.origin)
    missing = (*plan.missing, *doubts, *_iter_missing_in_tree(tree, repository))
    texts = {"requirements.txt": requirements(plan.origin.packages, _project(tree))} if plan.origin.packages else {}
    purposes = {"requirements.txt": "pip install -r"} if texts else {}
    if command is not None:
        texts["run.sh"] = command.to_script()
        purposes["run.sh"] = "the command, for sh"
    texts["REPRODUCE.md"] = page(plan, missing, files=purposes)
    return Rebuilt(tree, tuple(_write(tree, texts)), missing)


def _write(tree: Path, texts: dict[str, str]) -> Iterator[Path]:
    names = chain((SHEETS,), (f"{SHEETS}-{number}" for number in count(2)))
    folder = next(tree / name for name in names if not os.path.lexists(tree / name))
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8", errors="backslashreplace", newline="\n")
        yield folder / name


def _iter_missing_in_tree(tree: Path, repository: Repository) -> Iterator[str]:
    filtered = repository.filtered(tree)
    if filtered:
        yield f"no filter program was run (Git LFS: git lfs pull), so as git stores them are {named(filtered)}"
    if os.path.lexists(tree / ".gitmodules"):
        yield "submodules are not checked out: git submodule update --init"


def _project(tree: Path) -> str | None:
    """Name of the project that the tree is."""
    try:
        described = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))
        name = described["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None
