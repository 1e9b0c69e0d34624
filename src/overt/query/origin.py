"""Where a run came from, read back from its store alone: code, command line, environment, seeds and data.

A store is shared and anybody may have written to it, so nothing here is believed further than its type: what has not
the form that overt records counts as not recorded, and :attr:`Origin.doubts` says so. Nothing is run, and no name
that was recorded becomes a path of this machine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from overt.capture.secrets import REDACTED
from overt.errors import ArtifactNotFound, RunNotFound
from overt.journal.codec import is_safe_path
from overt.query.diffs import Diff, read_diff
from overt.query.finding import find_run
from overt.records import RunDetails, StoredDataset
from overt.stores.protocols import QueryStore

ENVIRONMENT_FILE = "overt/environment.json"
PACKAGES_FILE = "overt/packages.json"
DIFF_FILE = "overt/uncommitted.diff"

_MOST_BYTES = 16_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SEED_NAMES = ("random_state", "seed", "random_seed")
_SEED_WORD = re.compile(r"(?:.*_)?(?:seed|random_state)(?:_.*)?", re.IGNORECASE)
_SEED = re.compile(r"-?[0-9]+")
_PARENT_TAGS = ("mlflow.parentRunId", "overt.parent_key")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run tells of where it came from; None and empty stand for what it does not tell.

    Attributes
    ----------
    recorded_by : str or None
        Name of the run that holds it, where that is another: children of a run leave it to their parent.
    commit : str or None
        40 or 64 hexadecimal digits.
    is_dirty : bool or None
        Whether tracked files differed from the commit.
    argv : tuple of str
        The command line, the interpreter first.
    script, cwd : str or None
        Path of what was run and the folder that it was run in, on the machine that ran it.
    folder : str or None
        Where that folder was in the repository: a path below its top, or ``.`` for it.
    file : str or None
        Where the script was in the repository: a path below its top.
    environment : mapping
        As recorded: ``python``, ``platform``, ``gpus``, ``variables``, ….
    packages : mapping
        Versions by name.
    seeds : mapping
        Params and variables that are seeds, as text.
    unset_seeds : tuple of str
        Params that could have been one and were none: the run drew on random numbers that nobody recorded.
    data : tuple of StoredDataset
        What it was fitted to and evaluated on.
    doubts : tuple of str
        What the store holds and could not be used, one sentence each.
    later_attempts : int
        How often the run went on after its start. What is said here is of the start.
    """

    recorded_by: str | None = None
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    is_dirty: bool | None = None
    diff: Diff | None = None
    argv: tuple[str, ...] = ()
    script: str | None = None
    cwd: str | None = None
    folder: str | None = None
    file: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, str] = field(default_factory=dict)
    unset_seeds: tuple[str, ...] = ()
    data: tuple[StoredDataset, ...] = ()
    doubts: tuple[str, ...] = ()
    later_attempts: int = 0

    @property
    def python(self) -> str | None:
        """Version of the interpreter."""
        python = self.environment.get("python")
        return _text_or_none(python.get("version")) if isinstance(python, dict) else None

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that were recorded."""
        return _variables(self.environment)

    @property
    def root(self) -> PurePosixPath | None:
        """The top of the repository on the machine that recorded; None where the store does not tell."""
        if self.folder is None or self.cwd is None:
            return None
        cwd, folder = PurePosixPath(os.path.normpath(self.cwd)), PurePosixPath(self.folder)
        depth = len(folder.parts)
        is_below = cwd.is_absolute() and len(cwd.parts) > depth and cwd.parts[len(cwd.parts) - depth :] == folder.parts
        return PurePosixPath(*cwd.parts[: len(cwd.parts) - depth]) if is_below else None

    @property
    def is_outside(self) -> bool:
        """Whether the command was given outside the repository that holds the script."""
        return self.file is not None and self.folder is None

    @property
    def is_of_another(self) -> bool:
        """Whether a file was run that lies outside the repository which is recorded."""
        script, root = PurePosixPath(os.path.normpath(self.script or ".")), self.root
        return self.file is None and root is not None and script.is_absolute() and not script.is_relative_to(root)

    @property
    def redacted_arguments(self) -> tuple[str, ...]:
        """Arguments from which a secret was taken."""
        return tuple(argument for argument in self.argv if REDACTED in argument)


def origin_of(store: QueryStore, details: RunDetails) -> Origin:
    """What ``details``' run tells of where it came from, or what the run tells that it is nested in."""
    holder = _holder(store, details)
    tags = holder.run.tags
    doubts: list[str] = []
    if "overt.argv" in tags and not holder.files:
        doubts.append("the store shows none of the run's files: they may lie where this machine cannot reach them")
    read = _Files(store, holder, doubts)
    commit = tags.get("overt.git.commit") or tags.get("mlflow.source.git.commit")
    if commit is not None and not _COMMIT.fullmatch(commit):
        doubts.append(f"the recorded commit is no commit id: {commit!r}")
        commit = None
    environment = read.json_object(ENVIRONMENT_FILE)
    cwd = _text_or_none(environment.get("cwd"))
    diff = read.bytes(DIFF_FILE)
    seeds, unset = _seeds({**holder.run.params, **details.run.params})
    return Origin(
        recorded_by=None if holder is details else holder.run.name,
        commit=commit,
        branch=tags.get("overt.git.branch") or tags.get("mlflow.source.git.branch"),
        remote=tags.get("mlflow.source.git.repoURL"),
        is_dirty={"true": True, "false": False}.get(tags.get("overt.git.dirty", "")),
        diff=None if diff is None else read_diff(diff),
        argv=_argv(tags, doubts),
        script=_script(tags, cwd),
        cwd=cwd,
        folder=_folder(tags),
        file=_path_or_none(tags.get("overt.git.file")),
        environment=environment,
        packages=_texts(read.json_object(PACKAGES_FILE)),
        seeds=seeds | {name: value for name, value in _variables(environment).items() if name == "PYTHONHASHSEED"},
        unset_seeds=unset,
        data=details.datasets or holder.datasets,
        doubts=tuple(doubts),
        later_attempts=len({name.split(".")[1] for name in tags if name.startswith("overt.attempt_")}),
    )


def _script(tags: Mapping[str, str], cwd: str | None) -> str | None:
    """The script's path from the root on, where the command line named it from the working directory."""
    name = tags.get("mlflow.source.name")
    if name is None or cwd is None or name.startswith(("-", "<", "/")):
        return name
    return os.path.normpath(os.path.join(cwd, name))


def _folder(tags: Mapping[str, str]) -> str | None:
    folder = tags.get("overt.git.folder")
    return folder if folder == "." else _path_or_none(folder)


def _path_or_none(path: str | None) -> str | None:
    return path if path is not None and is_safe_path(path) else None


def _holder(store: QueryStore, details: RunDetails) -> RunDetails:
    """The run that recorded its surroundings: the run itself, else the nearest that it is nested in."""
    holder, seen = details, {details.run.id}
    while not _tells(holder) and (parent := _parent_id(store, holder)) is not None and parent not in seen:
        seen.add(parent)
        holder = store.read_run(parent)
    return holder if _tells(holder) else details


def _tells(details: RunDetails) -> bool:
    return "overt.argv" in details.run.tags or any(file.path == ENVIRONMENT_FILE for file in details.files)


def _parent_id(store: QueryStore, details: RunDetails) -> str | None:
    names = (details.run.tags.get(tag) for tag in _PARENT_TAGS)
    try:
        return next((find_run(store, name) for name in names if name and re.fullmatch("[0-9a-f]{32}", name)), None)
    except RunNotFound:
        return None


class _Files:
    """Files of one run, each only if it is there, of a size that is read whole, and of the form that overt records."""

    def __init__(self, store: QueryStore, details: RunDetails, doubts: list[str]) -> None:
        self._store, self._run_id, self._doubts = store, details.run.id, doubts
        self._sizes = {file.path: file.size for file in details.files}

    def bytes(self, path: str) -> bytes | None:
        """Its content."""
        if path not in self._sizes:
            return None
        if (self._sizes[path] or 0) > _MOST_BYTES:
            self._doubts.append(
                f"{path} is larger than overt writes it ({self._sizes[path]} bytes), so it was not read"
            )
            return None
        try:
            return self._store.read_file(self._run_id, path)
        except ArtifactNotFound:
            self._doubts.append(f"{path} is listed and cannot be read")
            return None

    def json_object(self, path: str) -> dict[str, Any]:
        """Its content, if it is one JSON object."""
        content = self.bytes(path)
        if content is None:
            return {}
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._doubts.append(f"{path} is not what overt writes: no JSON object")
            return {}
        return found


def _argv(tags: Mapping[str, str], doubts: list[str]) -> tuple[str, ...]:
    text = tags.get("overt.argv")
    if text is None:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(argument, str) for argument in found):
        doubts.append("the recorded command line cannot be read: it may have been cut by the store")
        return ()
    return tuple(found)


def _seeds(params: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Params that are seeds, and those that could have been and are none."""
    last_parts = {name: re.split(r"__|[./]", name)[-1] for name in params}
    found = {name: params[name] for name, last in last_parts.items() if _SEED_WORD.fullmatch(last)}
    set_ones = {name: value for name, value in found.items() if _SEED.fullmatch(value)}
    unset = (name for name in found if name not in set_ones and last_parts[name].lower() in _SEED_NAMES)
    return set_ones, tuple(f"{name}={params[name]}" for name in unset)


def _variables(environment: Mapping[str, Any]) -> dict[str, str]:
    variables = environment.get("variables")
    return _texts(variables) if isinstance(variables, dict) else {}


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return dict(_iter_texts(found))


def _iter_texts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in sorted(found.items()):
        if isinstance(value, str):
            yield name, value


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
