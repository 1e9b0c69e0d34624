"""How a recorded command line is given again in a rebuilt tree, if it is one that only names a file or a module of it.

Paths in it are of the machine that recorded: the script is found in the tree where the record says that it was in the
repository, in one that does not say so by the end of its path, and what cannot be placed there is no command at all.
Code in the command line itself is shown to people and never written into a file that a shell takes.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from overt.query.origin import Origin

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*(?:\.exe)?")
_FLAG = re.compile(r"-[bBdEIOPqsSuv]+|-[WX].+")
_VALUED = ("-W", "-X")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
_HARMLESS = re.compile(r"[\w.,:-]*", re.ASCII)
_VARIABLES = "PYTHONHASHSEED OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS CUBLAS_WORKSPACE_CONFIG".split()


@dataclass(frozen=True, slots=True)
class Command:
    """A command to give in ``folder`` of the tree; ``arguments`` come after the interpreter."""

    folder: str
    variables: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...]

    def to_script(self) -> str:
        """As a script for ``sh``, that may lie in any folder directly below the tree."""
        lines = ["#!/bin/sh", "# The recorded command. Read the code before you run it: it is as trusted as the store."]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.variables]
        lines += [
            'cd "$(dirname -- "$0")/.." || exit',
            *([f"cd ./{shlex.quote(self.folder)} || exit"] if self.folder else []),
        ]
        lines.append(f'exec "${{PYTHON:-python}}" {shlex.join(self.arguments)}')
        return "\n".join(lines) + "\n"


def command_in(tree: Path, origin: Origin) -> tuple[Command | None, tuple[str, ...]]:
    """The command that ``origin`` tells of as it is given in ``tree``, if it can be, and what is doubtful about it."""
    if not origin.argv:
        return None, ()
    if origin.redacted_arguments:
        return None, ("no script gives the command: its secrets have to be filled in",)
    if not _PYTHON.fullmatch(PurePosixPath(origin.argv[0]).name) or not all(map(str.isprintable, origin.argv)):
        return None, (
            "no script gives the command: it starts something else than Python, or holds what does not print",
        )
    if origin.is_outside:
        return None, ("no script gives the command: it was given outside the repository, and not in the rebuilt tree",)
    root, script = _placed(tree, origin)
    folder = _folder_in(root, origin.cwd)
    arguments = _arguments(origin.argv, script, folder or "")
    if arguments is None:
        return None, (f"no script gives the command: {origin.script or 'what was run'} is no file of the rebuilt tree",)
    if folder and not (tree / folder).is_dir():
        return None, (f"no script gives the command: it ran in {folder}, which is no folder of the rebuilt tree",)
    set_ones = ((name, origin.variables.get(name, "")) for name in _VARIABLES)
    variables = tuple((name, value) for name, value in set_ones if value and _HARMLESS.fullmatch(value))
    return Command(folder or "", variables, arguments), tuple(_iter_doubts(folder, arguments))


def _iter_doubts(folder: str | None, arguments: tuple[str, ...]) -> Iterator[str]:
    if folder is None:
        yield "which folder of the repository it ran in is not known: run.sh takes the tree's first"
    for argument in arguments:
        if PurePosixPath(argument).is_absolute():
            yield f"the argument {argument} is a path of the machine that recorded"


def _arguments(argv: tuple[str, ...], script: str | None, folder: str) -> tuple[str, ...] | None:
    """What comes after the interpreter; None unless it is a module, or a script of the tree."""
    position = _after_flags(argv)
    target = argv[position : position + 2]
    if target[:1] == ("-m",):
        return argv[1:] if len(target) == 2 and _MODULE.fullmatch(target[1]) else None
    if not target or target[0].startswith("-") or script is None:
        return None
    path = os.path.relpath(script, folder or ".")
    return (*argv[1:position], f"./{path}" if path.startswith("-") else path, *argv[position + 1 :])


def _after_flags(argv: tuple[str, ...]) -> int:
    """Where the interpreter's options end."""
    position = 1
    while position < len(argv) and (_FLAG.fullmatch(argv[position]) or argv[position] in _VALUED):
        position += 2 if argv[position] in _VALUED else 1
    return position


def _placed(tree: Path, origin: Origin) -> tuple[PurePosixPath | None, str | None]:
    """The folder that stood where ``tree`` stands, and the script's path in it.

    A record that does not say where the repository was gets the longest end of the script's path that fits.
    """
    path = PurePosixPath(os.path.normpath(origin.script or ""))  # of "sub/../train.py" the end as it is in the tree
    root = origin.root
    if origin.file is not None:
        return root, origin.file if (tree / origin.file).is_file() else None
    if root is not None:
        inside = path.relative_to(root) if path.is_relative_to(root) else None
        return root, str(inside) if inside is not None and (tree / inside).is_file() else None
    if path.is_absolute():
        for start in range(1, len(path.parts)):
            inside = PurePosixPath(*path.parts[start:])
            if (tree / inside).is_file():
                return PurePosixPath(*path.parts[:start]), str(inside)
    return None, None


def _folder_in(root: PurePosixPath | None, cwd: str | None) -> str | None:
    """The working directory within the tree, empty for the tree itself; None where that is not known."""
    path = PurePosixPath(os.path.normpath(cwd or "."))
    if root is None or not path.is_relative_to(root):
        return None
    return "" if path == root else str(path.relative_to(root))
