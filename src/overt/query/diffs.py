"""A recorded diff, taken apart by file: what ``git apply`` can be given, what it cannot, and what was never in it.

It may come from a stranger, so nothing here decides whether a path is safe to write: git does, when it applies the
patch. Left out of the patch is what git could not apply (binary files are named in a diff and not held, a submodule is
a repository of its own) and symbolic links, through which a later file could leave the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from overt.capture.secrets import REDACTED

Kind = Literal["text", "binary", "link", "submodule"]

UNTRACKED = b"# untracked: "
_CUT = b"# cut: "
_FILE = b"diff --git "
_MODE = re.compile(rb"(?:new file mode|deleted file mode|old mode|new mode|index) .*", re.DOTALL)
# git reads a mode leniently ("0120000" is a link as well), so what is not spelled as git writes it is no plain file.
_PLAIN_MODE = re.compile(rb"(?:\w+ )+100(?:644|755)|index [0-9a-f]+\.\.[0-9a-f]+(?: 100(?:644|755))?")
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class Change:
    """What a diff does to one file; ``section`` is its part of the diff."""

    path: str
    kind: Kind
    section: bytes

    @property
    def is_redacted(self) -> bool:
        """Whether a secret was taken out of it."""
        return REDACTED.encode() in self.section


@dataclass(frozen=True, slots=True)
class Diff:
    """What differed from the commit when a run started.

    Attributes
    ----------
    size : int
        Bytes, as recorded.
    changes : tuple of Change
        In the order of the diff.
    untracked : tuple of str
        Files that git did not know: their names are recorded, and not what was in them. A folder ends in ``/``.
    cut : str
        What is missing at the end, such as ``"812 bytes more were left out"``; empty for a whole diff.
    """

    size: int
    changes: tuple[Change, ...] = ()
    untracked: tuple[str, ...] = ()
    cut: str = ""

    @property
    def patch(self) -> bytes:
        """What ``git apply`` can be given."""
        return b"".join(change.section for change in self.changes if change.kind == "text")


def read_diff(content: bytes) -> Diff:
    """Take a recorded ``uncommitted.diff`` apart. Never raises: what is no diff has no changes."""
    head, *sections = re.split(rb"^(?=diff --git )", content, flags=re.MULTILINE)
    untracked = [line[len(UNTRACKED) :] for line in head.splitlines() if line.startswith(UNTRACKED)]
    last = sections[-1] if sections else head
    before, mark, cut = last.rpartition(_CUT)
    is_cut = bool(mark) and (not before or before.endswith(b"\n")) and b"\n" not in cut.rstrip(b"\n")
    if is_cut and sections:
        sections[-1] = before
    return Diff(
        size=len(content),
        changes=tuple(map(_change, sections)),
        untracked=tuple(map(_text, untracked)),
        cut=_text(cut.rstrip(b"\n")) if is_cut else "",
    )


def _change(section: bytes) -> Change:
    header = section.partition(b"\n@@ ")[0].split(b"\n")
    return Change(_path(header), _kind(header), section)


def _kind(header: list[bytes]) -> Kind:
    for line in header:
        if _MODE.fullmatch(line) and not _PLAIN_MODE.fullmatch(line):
            return "submodule" if line.endswith(b" 160000") else "link"
        if line.startswith((b"Binary files ", b"GIT binary patch")):
            return "binary"
    return "text"


def _path(header: list[bytes]) -> str:
    """The file's name after the change, or before it where it is gone."""
    for start in (b"+++ ", b"rename to ", b"copy to ", b"--- "):
        for line in header:
            name = line.removeprefix(start)
            if name != line and name != b"/dev/null":
                return _name(name, is_prefixed=start in (b"+++ ", b"--- "))
    both = header[0].removeprefix(_FILE)  # "a/x b/x": nothing else names an empty or a binary file
    return _name(both[(len(both) + 1) // 2 :], is_prefixed=True)


def _name(quoted: bytes, *, is_prefixed: bool) -> str:
    name = quoted.rstrip(b"\t\r")
    if len(name) > 1 and name.startswith(b'"') and name.endswith(b'"'):
        name = _ESCAPED.sub(lambda match: _unescaped(match.group(1)), name[1:-1])
    return _text(name[2:] if is_prefixed and name[:2] in (b"a/", b"b/") else name)


def _unescaped(escape: bytes) -> bytes:
    return bytes([int(escape, 8) & 0xFF]) if len(escape) == 3 else _LETTERS.get(escape, escape)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
