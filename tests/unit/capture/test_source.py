"""What git knows about a run, in every state that a repository can be in, without touching it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from overt.capture.source import Source, source


def git(folder: Path, *arguments: str) -> str:
    settings = (
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@y",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    )
    return subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init")
    (folder / "train.py").write_text("x = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_a_clean_repository_has_a_commit_a_branch_and_no_diff(repository: Path) -> None:
    found = source(repository, ["train.py"], "train.py")
    head = git(repository, "rev-parse", "HEAD")
    assert found == Source(("train.py",), "train.py", ".", commit=head, branch="main", dirty=False)


def test_the_folder_is_where_in_the_repository_the_command_was_given(repository: Path) -> None:
    place = repository / "a folder" / "한국어"
    place.mkdir(parents=True)
    assert source(place, []).folder == "a folder/한국어"


def another(tmp_path: Path) -> Path:
    """A second repository with a script of the same name."""
    folder = tmp_path / "another"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init")
    (folder / "train.py").write_text("x = 'another'\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "another first")
    return folder


def test_the_code_is_that_of_the_scripts_repository_wherever_it_is_run(repository: Path, tmp_path: Path) -> None:
    script, head = str(repository / "train.py"), git(repository, "rev-parse", "HEAD")
    for cwd in (another(tmp_path), tmp_path):
        found = source(cwd, ["train.py"], script)
        assert (found.commit, found.folder, found.file) == (head, None, "train.py"), cwd
    (repository / "sub").mkdir()
    found = source(repository / "sub", ["train.py"], script)
    assert (found.commit, found.folder, found.file) == (head, "sub", "train.py")


def test_a_script_that_is_run_through_a_link_is_found_where_it_lies(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "train").symlink_to(repository / "train.py")
    found = source(tmp_path, ["train"], str(tmp_path / "bin" / "train"))
    assert (found.commit, found.file) == (git(repository, "rev-parse", "HEAD"), "train.py")


@pytest.mark.parametrize("script", [pytest.__file__, "/no/such/train.py", "train.py", "<console>", "-c", None])
def test_where_no_script_of_ones_own_runs_the_code_is_that_of_the_working_directory(
    repository: Path, script: str | None
) -> None:
    found = source(repository, ["python"], script)
    assert (found.commit, found.folder, found.file) == (git(repository, "rev-parse", "HEAD"), ".", None)


def test_a_change_is_a_diff_that_git_can_apply(repository: Path) -> None:
    (repository / "train.py").write_text("x = 2\ny = '한국어'\n")
    (repository / "new file.py").write_text("")
    (repository / "sub").mkdir()
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.context", "0")
    git(repository, "config", "color.ui", "always")
    found = source(repository / "sub", [])
    assert found.dirty is True
    assert found.diff is not None
    assert found.diff.startswith(b"# untracked: new file.py\n")
    git(repository, "checkout", "train.py")
    subprocess.run(["git", "apply", "-"], cwd=repository, input=found.diff, check=True)
    assert (repository / "train.py").read_text() == "x = 2\ny = '한국어'\n"


def test_untracked_files_alone_are_listed_and_not_dirty(repository: Path) -> None:
    (repository / "mlflow.db").write_text("")
    found = source(repository, [])
    assert (found.dirty, found.diff) == (False, b"# untracked: mlflow.db\n")


def test_a_renamed_file_hides_no_other_entry(repository: Path) -> None:
    git(repository, "mv", "train.py", "? odd.py")
    (repository / "z.py").write_text("")
    found = source(repository, [])
    assert found.dirty is True
    assert found.diff is not None
    assert found.diff.startswith(b"# untracked: z.py\ndiff --git")


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "--detach")
    found = source(repository, [])
    assert (found.commit, found.branch) == (git(repository, "rev-parse", "HEAD"), None)


def test_a_repository_without_commits_has_a_branch_and_shows_what_is_staged(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("staged = 1\n")
    git(tmp_path, "add", "a.py")
    found = source(tmp_path, [])
    assert (found.commit, found.branch, found.dirty) == (None, "main", True)
    assert found.diff is not None
    assert b"+staged = 1" in found.diff


def test_a_bare_repository_has_a_commit(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--bare", str(repository), str(bare))
    found = source(bare, [])
    assert (found.commit, found.branch, found.dirty) == (git(repository, "rev-parse", "HEAD"), "main", None)


def test_a_changed_submodule_makes_the_repository_dirty(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", str(repository), "inner")
    git(outer, "commit", "-m", "with a submodule")
    assert source(outer, []).dirty is False
    (outer / "inner" / "train.py").write_text("changed\n")
    found = source(outer, [])
    assert found.dirty is True
    assert found.branch == "main"


@pytest.mark.parametrize("folder", ["here", "absent", "broken"])
def test_without_a_repository_the_command_line_is_still_known(folder: str, tmp_path: Path) -> None:
    place = tmp_path / folder
    if folder != "absent":
        place.mkdir()
    if folder == "broken":
        (place / ".git").mkdir()
    assert source(place, ["a.py"], "a.py") == Source(("a.py",), "a.py")


def test_without_git_the_command_line_is_still_known(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source(repository, ["a.py"]) == Source(("a.py",), None)


def test_a_hanging_git_is_killed_with_its_children_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 60 &\necho $! >> {tmp_path}/pids\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    started = time.monotonic()
    assert source(tmp_path, ["a.py"], timeout_s=1.0) == Source(("a.py",), None)
    assert time.monotonic() - started < 3.0
    time.sleep(0.2)
    for pid in (tmp_path / "pids").read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_nothing_that_the_repository_configures_is_run(repository: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\ntouch {canary}\n")
    tool.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=canary\n")
    for name in ("core.fsmonitor", "diff.external", "diff.canary.textconv", "diff.canary.command", "core.pager"):
        git(repository, "config", name, str(tool))
    (repository / "train.py").write_text("x = 2\n")
    found = source(repository, [])
    assert found.diff is not None
    assert b"+x = 2" in found.diff
    assert not canary.exists()


def test_the_index_is_not_written(repository: Path) -> None:
    index = repository / ".git" / "index"
    os.utime(repository / "train.py", (1, 1))  # git status would refresh the index now
    before = index.read_bytes()
    source(repository, [])
    assert index.read_bytes() == before


def test_a_huge_diff_is_cut_and_says_so(repository: Path) -> None:
    (repository / "train.py").write_text("".join(f"line {i}\n" for i in range(400_000)))
    whole = len(git(repository, "diff", "HEAD")) + 1
    found = source(repository, [])
    assert found.diff is not None
    assert len(found.diff) < 1_001_000
    *kept, last = found.diff.splitlines(keepends=True)
    assert last == f"# cut: {whole - sum(map(len, kept))} bytes more were left out\n".encode()


def test_no_secret_leaves_the_repository(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://me:hunter2@host/x.git")
    (repository / "train.py").write_text("api_key = 'hunter2'\nmax_tokens = 5\n")
    found = source(repository, ["train.py", "--password", "hunter2"], "train.py")
    assert "hunter2" not in repr(found)
    assert found.remote == "https://me:[redacted]@host/x.git"
    assert found.diff is not None
    assert b"+max_tokens = 5" in found.diff


def test_bytes_that_are_no_text_pass_through_the_diff(repository: Path) -> None:
    (repository / "train.py").write_bytes(b"x = '\xff'\n")
    found = source(repository, [os.fsdecode(b"\xff.py")])
    assert found.diff is not None
    assert b"+x = '\xff'" in found.diff
    found.argv[0].encode()
