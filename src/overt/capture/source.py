"""Which code ran, as far as git and the command line can tell, and without disturbing either.

git is asked read-only: it takes no lock that could make the user's own ``git commit`` fail, starts no pager, prompt,
external diff, text converter or file-system monitor, and is killed, children included, when the time for all questions
together is over. Outside a repository, without git, or where git is broken or too slow, the answer just holds less.

The repository is the script's, wherever the command was given: a working directory in another one says nothing of the
code. Where no file of the user's own runs (a notebook, ``-c``, an installed tool), it is the working directory's.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from overt.capture.secrets import redact, redact_argv

_TIMEOUT_S = 5.0
_MAX_DIFF_BYTES = 1_000_000
_MAX_STATUS_BYTES = 4_000_000
_MAX_UNTRACKED = 200
_QUIET = (
    *("git", "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"),
    *("-c", "core.hooksPath=/dev/null", "-c", "diff.external=", "-c", "color.ui=false"),
)
_DIFF = (
    *("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--submodule=short"),
    *("--src-prefix=a/", "--dst-prefix=b/", "-U3", "--inter-hunk-context=0"),  # less could not be applied again
)


@dataclass(frozen=True, slots=True)
class Source:
    """The code of a run. Every text is redacted; None stands for what could not be found out.

    Attributes
    ----------
    argv : tuple of str
        The command line.
    script : str or None
        Path of the script, or what else was told of it: ``-c``, ``<console>``.
    folder : str or None
        Where in the repository the command was given: a path, or ``.`` for its top. None if it was given outside it.
    file : str or None
        Where in the repository the script lies. None if it lies outside it, or there is none.
    commit, branch : str or None
        HEAD. A detached one has no branch; a repository without commits has a branch and no commit.
    dirty : bool or None
        Whether tracked files differ from the commit. Untracked files do not count: data and outputs are among them.
    remote : str or None
        URL of ``origin``, else of the only remote.
    diff : bytes or None
        What differs from the commit, of the whole repository and not only a folder, below a list of the untracked
        files (names only). None if there is neither. Binary files are named, not included. Where it was cut, the
        last line says how many bytes are missing.
    """

    argv: tuple[str, ...]
    script: str | None
    folder: str | None = None
    file: str | None = None
    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    remote: str | None = None
    diff: bytes | None = None


def source(cwd: Path, argv: Sequence[str], script: str | None = None, *, timeout_s: float = _TIMEOUT_S) -> Source:
    """Describe the code of ``script`` and its command line. Never raises, and takes at most about ``timeout_s``.

    Parameters
    ----------
    cwd : Path
        Where the command was given; it need not exist. Its repository counts where the script is in none.
    argv : sequence of str
        The command line, usually ``sys.argv``.
    script : str, optional
        Path of the file that runs; anything but an absolute path is only told.
    timeout_s : float
        For all questions to git together.
    """
    said = tuple(redact_argv([_printable(argument) for argument in argv]))
    shown = None if script is None else redact(_printable(script))
    try:
        deadline = time.monotonic() + timeout_s
        git, folder, file = _places(cwd, script, deadline)
        status = git.ask("status", "--porcelain=v2", "--branch", "--untracked-files=normal", "-z", share=0.6)
        if status is None:  # a bare repository, or a work tree too large to look through in time
            commit = git.line("rev-parse", "--verify", "HEAD")
            return Source(said, shown, folder, file, commit=commit, branch=_branch(git), remote=_remote(git))
        state = _read_status(status)
        return Source(
            said,
            shown,
            folder,
            file,
            commit=state.commit,
            branch=None if state.branch is None else redact(state.branch),
            dirty=state.dirty,
            remote=_remote(git),
            diff=_diff(git, state),
        )
    except Exception:  # noqa: BLE001 - no trouble with git stops a training
        return Source(said, shown)


# --- which repository -------------------------------------------------------------------------------------------------


def _places(cwd: Path, script: str | None, deadline: float) -> tuple[_Git, str | None, str | None]:
    """The repository of the code, and where in it the command was given and the script lies."""
    here = _Git(cwd, deadline)
    given = _Spot.of(here)
    for file in _iter_files(script):
        git = _Git(file.parent, deadline)
        spot = _Spot.of(git)
        if spot is not None:
            is_inside = given is not None and given.top == spot.top
            name = redact(_printable(f"{spot.prefix}{file.name}"))
            return git, given.folder if given is not None and is_inside else None, name
    return here, None if given is None else given.folder, None


def _iter_files(script: str | None) -> Iterator[Path]:
    """Where the script is looked for: as Python itself takes it, behind links, and as it was named."""
    named = Path(script or "")
    if named.is_absolute() and not _is_installed(named):
        yield from dict.fromkeys((named.resolve(), named))


def _is_installed(file: Path) -> bool:
    """Whether it is a tool of the environment, and so says nothing of the code: ``-m pytest``, a notebook's kernel."""
    own = (sysconfig.get_path("stdlib"), sysconfig.get_path("scripts"))
    return any(file.is_relative_to(folder) for folder in own) or "site-packages" in file.parts


@dataclass(frozen=True, slots=True)
class _Spot:
    """A folder in a work tree: the tree's top, and the way from there, empty or with a slash at its end."""

    top: str
    prefix: str

    @classmethod
    def of(cls, git: _Git) -> _Spot | None:
        """Where ``git`` looks; None outside a repository and in a bare one."""
        said = git.ask("rev-parse", "--show-toplevel", "--show-prefix")
        if said is None:
            return None
        top, _, prefix = said.decode("utf-8", "replace").removesuffix("\n").partition("\n")
        return cls(top, prefix)

    @property
    def folder(self) -> str:
        return redact(self.prefix.removesuffix("/")) or "."


# --- what git says ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Status:
    commit: str | None
    branch: str | None
    dirty: bool
    untracked: tuple[str, ...]


def _read_status(status: bytes) -> _Status:
    commit = branch = None
    dirty, untracked = False, []
    entries = iter(status.split(b"\0"))
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        text = rest.decode("utf-8", "replace")
        if kind == b"#":
            key, _, value = text.partition(" ")
            if key == "branch.oid" and value != "(initial)":
                commit = value
            elif key == "branch.head" and value != "(detached)":
                branch = value
        elif kind == b"?":
            untracked.append(text)
        elif kind in (b"1", b"2", b"u"):
            dirty = True
            if kind == b"2":
                next(entries, None)  # the path that it was renamed from
    return _Status(commit, branch, dirty, tuple(untracked))


def _diff(git: _Git, state: _Status) -> bytes | None:
    head = "".join(f"# untracked: {redact(name)}\n" for name in state.untracked[:_MAX_UNTRACKED])
    if len(state.untracked) > _MAX_UNTRACKED:
        head += f"# untracked: and {len(state.untracked) - _MAX_UNTRACKED} more\n"
    body, missing = b"", ""
    if state.dirty:
        against = ("HEAD",) if state.commit else ("--cached",)
        body, left_out, is_whole = git.read(*_DIFF, *against, limit=_MAX_DIFF_BYTES)
        if left_out or not is_whole:
            cut = body.rfind(b"\n") + 1
            left_out, body = left_out + len(body) - cut, body[:cut]
            missing = f"# cut: {'' if is_whole else 'at least '}{left_out} bytes more were left out\n"
    text = redact(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return (head.encode("utf-8", "replace") + text + missing.encode()) or None


def _branch(git: _Git) -> str | None:
    branch = git.line("symbolic-ref", "--short", "HEAD")
    return None if branch is None else redact(branch)


def _remote(git: _Git) -> str | None:
    url = git.line("config", "--get", "remote.origin.url")
    if url is None:
        remotes = (git.line("remote") or "").split()
        url = git.line("config", "--get", f"remote.{remotes[0]}.url") if len(remotes) == 1 else None
    return None if url is None else redact(url)


class _Git:
    """Questions to one repository under one deadline."""

    def __init__(self, cwd: Path, deadline: float) -> None:
        self._cwd, self._deadline = cwd, deadline

    def line(self, *arguments: str) -> str | None:
        output = self.ask(*arguments)
        return None if output is None else output.decode("utf-8", "replace").strip() or None

    def ask(self, *arguments: str, share: float = 1.0) -> bytes | None:
        """The whole output, or None if git fails, is too slow or says more than a question deserves."""
        output, left_out, is_whole = self.read(*arguments, limit=_MAX_STATUS_BYTES, share=share)
        return output if is_whole and not left_out else None

    def read(self, *arguments: str, limit: int, share: float = 1.0) -> tuple[bytes, int, bool]:
        """The first ``limit`` bytes, how many came after them, and whether git ended well and in time."""
        now = time.monotonic()
        until = now + (self._deadline - now) * share
        if until <= now:
            return b"", 0, False
        try:
            process = subprocess.Popen(
                [*_QUIET, *arguments],
                cwd=self._cwd,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError):
            return b"", 0, False
        with process:
            try:
                kept, left_out, at_end = _drain(process, limit, until)
                is_done = at_end and process.wait(max(0.1, until - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                is_done = False
            finally:
                _kill(process)
        return kept, left_out, is_done


def _drain(process: subprocess.Popen[bytes], limit: int, until: float) -> tuple[bytes, int, bool]:
    """Read without ever holding more than ``limit``: a diff of gigabytes is counted, not stored."""
    assert process.stdout is not None
    kept, left_out = bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (remaining := until - time.monotonic()) > 0:
            if not selector.select(remaining):
                break
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return bytes(kept), left_out, True
            room = limit - len(kept)
            kept += chunk[:room]
            left_out += max(0, len(chunk) - room)
    return bytes(kept), left_out, False


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            process.kill()


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_TRACE") and k != "GIT_EXTERNAL_DIFF"}
    return kept | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_PAGER": "cat",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }


def _printable(text: str) -> str:
    """Without lone surrogates, which stand for bytes of a path that are not UTF-8 and fit in no JSON."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
