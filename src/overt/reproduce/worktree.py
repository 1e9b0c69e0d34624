"""A commit with a patch in a work tree of its own, whole or not at all.

Commit and patch come from a record, which a stranger may have written. So git is given nothing of theirs that could
be read as an option, runs no hook and no filter program, reads no variable that points it to another index or work
tree, and applies the patch with its own checks on: no path outside the tree, none in ``.git``, none behind a link.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overt.errors import ConfigurationError, NotReproducible

_QUIET = (
    *("git", "--no-pager", "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=false", "-c", "core.sparseCheckout=false", "-c", "submodule.recurse=false"),
    *("-c", "core.protectHFS=true", "-c", "core.protectNTFS=true"),
)
_FILTER = re.compile(r"filter\.(.+)\.\w+")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Repository:
    """The git repository around a folder."""

    def __init__(self, folder: Path) -> None:
        self._off: tuple[str, ...] = ()
        try:
            self.folder = Path(self._git(folder, "rev-parse", "--show-toplevel"))
        except NotReproducible as error:
            raise NotReproducible(
                f"{folder} is in no git repository with a work tree, so the commit cannot be looked up: "
                "go into a clone of the repository that the run was started in"
            ) from error
        self.filters = tuple(sorted(self._configured_filters()))
        settings = [f"filter.{name}.{part}=" for name in self.filters for part in ("smudge", "clean", "process")]
        settings += [f"filter.{name}.required=false" for name in self.filters]
        self._off = tuple(word for setting in settings for word in ("-c", setting))

    def holds(self, commit: str) -> bool:
        """Whether the commit is here, without asking another repository for it."""
        if not _COMMIT.fullmatch(commit):
            raise NotReproducible(f"a commit must be 40 or 64 hexadecimal digits (got {commit!r})")
        try:
            self._git(self.folder, "cat-file", "-e", f"{commit}^{{commit}}")
        except NotReproducible:
            return False
        return True

    @contextmanager
    def building(self, commit: str, patch: bytes, folder: Path) -> Iterator[None]:
        """Have the commit with the patch in ``folder``; take it away again if that or the block fails.

        Raises
        ------
        ConfigurationError
            When ``folder`` is taken.
        NotReproducible
            When git refuses the commit or the patch.
        """
        was_there = _require_free(folder)
        try:
            self._git(self.folder, "worktree", "add", "--quiet", "--detach", "--", str(folder), commit)
            if patch:
                self._git(
                    folder, "apply", "--index", "-p1", "--whitespace=nowarn", "--no-ignore-whitespace", "-", given=patch
                )
            yield
        except BaseException:
            self._discard(folder, was_there=was_there)
            raise

    def filtered(self, folder: Path) -> tuple[str, ...]:
        """Files in ``folder`` that a filter program of this repository would have changed on the way."""
        if not self.filters:
            return ()
        listed = self._git(folder, "ls-files", "-z")
        fields = self._git(folder, "check-attr", "-z", "--stdin", "filter", given=os.fsencode(listed)).split("\0")
        return tuple(path for path, _, name in zip(*[iter(fields)] * 3, strict=False) if name in self.filters)

    def _configured_filters(self) -> set[str]:
        try:
            listed = self._git(self.folder, "config", "-z", "--name-only", "--get-regexp", r"^filter\.")
        except NotReproducible:  # what git says where there is none
            return set()
        return {found.group(1) for name in listed.split("\0") if (found := _FILTER.fullmatch(name))}

    def _discard(self, folder: Path, *, was_there: bool) -> None:
        try:
            self._git(
                self.folder, "worktree", "remove", "--force", "--force", "--", str(folder)
            )  # locked, if git was interrupted
        except NotReproducible:  # git had not made it yet, or had taken it away itself
            shutil.rmtree(folder, ignore_errors=True)
        if was_there:
            folder.mkdir(exist_ok=True)

    def _git(self, folder: Path, *arguments: str, given: bytes = b"") -> str:
        try:
            asked = subprocess.run(
                [*_QUIET, *self._off, *arguments],
                cwd=folder,
                env=_environment(),
                input=given,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            raise NotReproducible(f"git cannot be run: {error}") from error
        if asked.returncode:
            raise NotReproducible(_reason(asked.stderr))
        return os.fsdecode(asked.stdout).removesuffix("\n")


def _require_free(folder: Path) -> bool:
    """Whether the empty folder was there before."""
    if not folder.parent.is_dir():
        raise ConfigurationError(f"the folder to rebuild in lies in one that does not exist: {folder.parent}")
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
        raise ConfigurationError(f"the folder to rebuild in must be new or empty, and {folder} is not")
    return True


def _reason(said: bytes) -> str:
    """What git complained of first; its further lines repeat it."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.startswith(("error: ", "fatal: "))]
    return lines[0].partition(": ")[2] if lines else "git failed and gave no reason"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "GIT_CONFIG" in name}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C"}
