"""Names that MLflow refuses, spelled so that it takes them, and back: ``mAP@0.5`` arrives as ``mAP:at:0.5``.

MLflow takes letters and digits of any script, ``_ - . : /`` and spaces, at most 250 characters, and refuses paths that
are not normal (``a//b``). Each other character becomes a word between colons. In a name that needs such a word, or that
holds one by itself, every colon becomes one too; all other names are unchanged. So :func:`from_mlflow` undoes
:func:`to_mlflow` exactly. Only a name cut for its length cannot be undone from itself: its whole text is kept in the
tag ``overt.name.<digest>``.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

_WORDS = {
    "@": "at",
    "%": "percent",
    "=": "eq",
    "(": "open",
    ")": "close",
    ",": "comma",
    "|": "bar",
    "/": "slash",
    ".": "dot",
    ":": "colon",
}
_CHARACTERS = {word: character for character, word in _WORDS.items()}
_ESCAPE = re.compile(rf":({'|'.join(_CHARACTERS)}|u(?:10[0-9a-f]{{4}}|[0-9a-f]{{1,5}})):")
_REFUSED = re.compile(r"[^/\w.\- :]")
_MISREAD = re.compile(r"[#?%]|\A\s")
_TO_ESCAPE_IN_AN_ADDRESS = re.compile(r"[#?%:]|\A\s")
_TO_ESCAPE = re.compile(r"[^/\w.\- ]")
_TO_ESCAPE_IN_A_PATH = re.compile(r"[^\w\- ]")


def to_mlflow(name: str, most: int = 250) -> str:
    """``name`` as MLflow takes it."""
    spelled = name
    if _is_no_path(name):
        spelled = _TO_ESCAPE_IN_A_PATH.sub(_escaped, name)
    elif _REFUSED.search(name) or _ESCAPE.search(name):
        spelled = _TO_ESCAPE.sub(_escaped, name)
    if len(spelled) > most:
        mark = f" -- {digest(name)}"
        spelled = spelled[: most - len(mark)] + mark
    return spelled


def path_to_mlflow(path: str) -> str:
    """``path`` of a file as MLflow, which reads it as a part of an address, neither cuts nor decodes it.

    Sent as it is, ``a#1.txt`` lies under ``a``, where ``a?2.txt`` replaces it. No two paths are spelled alike.
    """
    if _MISREAD.search(path) or _ESCAPE.search(path):
        return _TO_ESCAPE_IN_AN_ADDRESS.sub(_escaped, path)
    return path


def from_mlflow(name: str) -> str:
    """The name that :func:`to_mlflow` was given, a cut one excepted."""
    return _ESCAPE.sub(lambda m: _CHARACTERS.get(m.group(1)) or chr(int(m.group(1)[1:], 16)), name)


def is_cut(name: str, most: int = 250) -> bool:
    """Whether :func:`to_mlflow` has to cut ``name``, so that it must be kept whole elsewhere."""
    return to_mlflow(name, most=10**9) != to_mlflow(name, most)


def digest(name: str) -> str:
    """Eight hexadecimal digits that stand for ``name``."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _is_no_path(name: str) -> bool:
    """Whether MLflow, which makes file names of metric names, would read another path than is written."""
    return posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == "."


def _escaped(match: re.Match[str]) -> str:
    character = match.group(0)
    return f":{_WORDS.get(character) or f'u{ord(character):x}'}:"
