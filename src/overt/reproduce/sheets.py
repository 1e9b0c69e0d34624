"""What is written beside a rebuilt tree: requirements for pip and a page for people.

Names and versions come from a record: only what has the form of one becomes a requirement, so no line can bring an
option, another index or an address. In the page nothing that was recorded can end a line or open another block.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

from overt.reproduce.planning import Plan

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"([0-9][0-9A-Za-z.!_-]*)(\+[0-9A-Za-z.]+)?")


def requirements(packages: Mapping[str, str], project: str | None) -> str:
    """Lines for pip, one per package; what no index serves in that version is a comment that says so.

    Parameters
    ----------
    packages : mapping
        Recorded versions by name.
    project : str or None
        Name of the project that the rebuilt tree is.
    """
    return "".join(f"{_requirement(name, version, project)}\n" for name, version in packages.items())


def _requirement(name: str, version: str, project: str | None) -> str:
    found = _VERSION.fullmatch(version)
    if not _NAME.fullmatch(name) or found is None:
        return f"# {printable(name)} {printable(version)}: not the form of a package's name and version"
    line = f"{name}=={found.group(1)}"
    if name == "overt":
        return f"# {line}: what recorded the run; the one installed will do"
    if project is not None and name == canonical(project):
        return f"# {line}: the rebuilt project itself: pip install -e ."
    if _is_local(name, version):
        return f"# {line}: installed here from a folder or a file, and not from an index"
    return f"{line}  # {version} was recorded" if found.group(2) else line


def canonical(name: str) -> str:
    """A distribution's name as it is recorded."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_local(name: str, version: str) -> bool:
    """Whether the same version is installed here, and came from this machine's disk."""
    try:
        here = metadata.distribution(name)
        origin = json.loads(here.read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return here.version == version and str(origin.get("url", "")).startswith("file:")


def page(plan: Plan, missing: Iterable[str], *, files: Mapping[str, str]) -> str:
    """The page that says what was rebuilt, how to go on and what is missing, in Markdown.

    Parameters
    ----------
    plan : Plan
        What was rebuilt.
    missing : iterable of str
        All that cannot be matched.
    files : mapping
        What stands beside the page, by name, and what it is for.
    """
    return "\n".join(_iter_lines(plan, missing, files)) + "\n"


def _iter_lines(plan: Plan, missing: Iterable[str], files: Mapping[str, str]) -> Iterator[str]:
    origin = plan.origin
    yield "# A run, rebuilt"
    yield from _block("Run", [f"{plan.run.name}  ({plan.run.id})", f"experiment {plan.run.experiment}"])
    changed = [f"{change.kind}: {change.path}" for change in origin.diff.changes] if origin.diff else []
    yield from _block("Commit", [origin.commit or "not recorded", *changed])
    yield from _block("Command line", [shlex.join(origin.argv)] if origin.argv else [])
    yield from _block("Python", [origin.python] if origin.python else [])
    yield from _block("Seeds", [f"{name} = {value}" for name, value in origin.seeds.items()])
    yield from _block("Data", [f"{data.name} ({data.context})  digest {data.digest}" for data in origin.data])
    yield from _block("Beside this page", [f"{name}: {purpose}" for name, purpose in files.items()])
    yield from _block("What cannot be matched", list(missing))
    yield ""
    yield "Whoever can write to the store could have written this record: read the code before you run it. After a run,"
    yield "`overt compare` says whether its data, metrics and packages are the same. Set `OVERT_STORE` to the"
    yield "original's store before: one that is named by a relative path lies in this tree, and is removed with it."
    yield ""
    yield "Files that git ignores were not looked at when the run was recorded: what it read of them is not here."


def _block(title: str, lines: list[str]) -> Iterator[str]:
    """A heading and a code block, in which Markdown means nothing."""
    if lines:
        yield from ("", f"## {title}", "", *(f"    {printable(line)}" for line in lines))


def printable(text: str) -> str:
    """``text`` on one line, with everything that does not print written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)
