"""What a stranger recorded is rebuilt or refused; nothing is written outside the new folder, and nothing is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.recorded import Readable, Repo, told

from overt.errors import NotReproducible
from overt.reproduce import apply, plan

NEW = b"new file mode 100644\n--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+crafted\n"


def new_file(path: str) -> bytes:
    name = path.encode()
    return b"diff --git a/%s b/%s\n" % (name, name) + NEW % name


def link(path: str, target: str) -> bytes:
    name, where = path.encode(), target.encode()
    head = b"diff --git a/%s b/%s\nnew file mode 120000\n--- /dev/null\n+++ b/%s\n" % (name, name, name)
    return head + b"@@ -0,0 +1 @@\n+%s\n\\ No newline at end of file\n" % where


DIFFS: dict[str, Callable[[Path], bytes]] = {
    "a path that climbs out": lambda outside: new_file("../outside/canary"),
    "a path that climbs out of a folder": lambda outside: new_file("sub/../../outside/canary"),
    "a quoted path that climbs out": lambda outside: new_file("x").replace(b"b/x", b'"b/..\\057outside\\057canary"'),
    "an absolute path": lambda outside: new_file(f"{outside}/canary").replace(b"b//", b"//").replace(b"a//", b"//"),
    "a hook": lambda outside: new_file(".git/hooks/post-checkout"),
    "a hook, in another spelling": lambda outside: new_file(".GIT/hooks/post-checkout"),
    "a hook, as another system spells it": lambda outside: new_file("GIT~1/hooks/post-checkout"),
    "git's own file": lambda outside: new_file("sub/.git"),
    "a link and a file behind it": lambda outside: link("way", str(outside)) + new_file("way/canary"),
    "a link in a folder and a file behind it": lambda outside: (
        link("sub/way", "../../outside") + new_file("sub/way/canary")
    ),
    "a link in a lenient spelling": lambda outside: link("way", str(outside)).replace(b"120000", b"0120000"),
    "a link behind a carriage return": lambda outside: link("way", str(outside)).replace(b"120000", b"\r120000"),
    "a file behind a link of the commit": lambda outside: new_file("committed/canary"),
    "a link of the commit under another name": lambda outside: (
        b"diff --git a/committed b/renamed\nsimilarity index 100%\nrename from committed\nrename to renamed\n"
        + new_file("renamed/canary")
    ),
    "a link of the commit turned elsewhere": lambda outside: (
        b"diff --git a/committed b/committed\n--- a/committed\n+++ b/committed\n"
        b"@@ -1 +1 @@\n-../outside\n\\ No newline at end of file\n+/tmp\n\\ No newline at end of file\n"
    ),
    "an older patch behind a hunk": lambda outside: (
        new_file("harmless") + b"--- /dev/null\n+++ b/../outside/canary\n@@ -0,0 +1 @@\n+crafted\n"
    ),
    "a rename out": lambda outside: (
        b"diff --git a/train.py b/../outside/canary\nsimilarity index 100%\n"
        b"rename from train.py\nrename to ../outside/canary\n"
    ),
    "a file that becomes a link": lambda outside: (
        b"diff --git a/train.py b/train.py\nold mode 100644\nnew mode 120000\n" + new_file("train.py/canary")
    ),
}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository whose commit has a link out of it, and whose hooks and filters would leave a canary."""
    made = Repo(tmp_path / "project")
    (tmp_path / "outside").mkdir()
    os.symlink("../outside", made.folder / "committed")
    made.first = made.commit()
    canary = tmp_path / "outside" / "canary"
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "applypatch-msg", "post-commit"):
        path = made.folder / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {canary}\n")
        path.chmod(0o755)
    made("config", "filter.own.smudge", f"touch {canary}; cat")
    made("config", "filter.own.clean", f"touch {canary}; cat")
    canary.unlink(missing_ok=True)
    monkeypatch.chdir(made.folder)
    return made


def everything(folder: Path, *, but: Path) -> dict[str, Any]:
    """All that lies below ``folder``: git's own lists of work trees and objects, and ``but``, excepted."""
    seen: dict[str, Any] = {}
    for base, folders, files in os.walk(folder):
        here = Path(base)
        folders[:] = [name for name in folders if here / name != but and name not in ("worktrees", "objects")]
        for name in (*folders, *files):
            path = here / name
            seen[str(path)] = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
    return seen


@pytest.mark.parametrize("case", DIFFS)
def test_a_crafted_diff_writes_nothing_outside_the_new_folder(case: str, repo: Repo, tmp_path: Path) -> None:
    store, built = Readable(), tmp_path / "built"
    store.add(**told(repo.first, diff=DIFFS[case](tmp_path / "outside")))
    before = everything(tmp_path, but=built)
    with suppress(NotReproducible):
        apply(plan("last", store), built)
    assert not [path for path in built.rglob("*") if path.is_symlink() and path != built / "committed"]
    assert not built.exists() or (built / "overt-reproduce" / "REPRODUCE.md").exists()
    assert everything(tmp_path, but=built) == before


def test_neither_hooks_nor_filters_run(repo: Repo, tmp_path: Path) -> None:
    store = Readable()
    store.add(**told(repo.first, diff=new_file(".gitattributes").replace(b"crafted", b"* filter=own")))
    apply(plan("last", store), tmp_path / "built")
    assert (tmp_path / "built" / ".gitattributes").read_text() == "* filter=own\n"
    assert not (tmp_path / "outside" / "canary").exists()


def test_a_diff_that_rewrites_what_is_read_while_rebuilding_changes_nothing_of_it(repo: Repo, tmp_path: Path) -> None:
    store = Readable()
    name = "\N{ESCAPE}[2J\n# loud\n-e http://evil"
    described = f"[project]\\nname = {json.dumps(name)}"
    store.add(**told(repo.first, diff=new_file("pyproject.toml").replace(b"crafted", described.encode())))
    rebuilt = apply(plan("last", store), tmp_path / "built")
    lines = next(file for file in rebuilt.files if file.name == "requirements.txt").read_text().splitlines()
    assert not any("evil" in line for line in lines)


@pytest.mark.parametrize(
    "commit",
    [
        "--upload-pack=touch canary",
        "HEAD",
        "main",
        "-h",
        "f" * 39,
        f"{'f' * 40}\n",
        "F" * 40,
        f"{'f' * 40}^{{/x}}",
        "@",
    ],
)
def test_what_is_no_commit_id_never_reaches_git(commit: str, repo: Repo, tmp_path: Path) -> None:
    store = Readable()
    store.add(**told(commit))
    found = plan("last", store)
    assert any("no commit id" in sentence for sentence in found.missing)
    with pytest.raises(NotReproducible, match="no commit"):
        apply(found, tmp_path / "built")
    assert not (tmp_path / "built").exists()


CODE_AS_NAME = "-cimport os; os.mkdir('typed')"


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        (f"/home/mina/project/{CODE_AS_NAME}", ["python", CODE_AS_NAME]),
        (f"/home/mina/project/{CODE_AS_NAME}", ["python", "./" + CODE_AS_NAME]),
        ("/home/mina/project/train.py", ["python", "-m", "os;mkdir typed"]),
        ("/home/mina/project/train.py", ["$(mkdir typed)/python", "train.py", "; mkdir typed", "$(mkdir typed)"]),
    ],
)
def test_a_crafted_command_line_is_data_to_the_shell(script: str, argv: list[str], repo: Repo, tmp_path: Path) -> None:
    repo.write(CODE_AS_NAME, "print('a file')\n")
    store = Readable()
    store.add(**told(repo.commit(), argv=argv, **{"mlflow.source.name": script}))
    rebuilt = apply(plan("last", store), tmp_path / "built")
    for run in (file for file in rebuilt.files if file.name == "run.sh"):
        subprocess.run(["sh", run], cwd=tmp_path, env=os.environ | {"PYTHON": sys.executable}, check=True)
    assert not list(tmp_path.rglob("typed"))


def test_a_script_outside_the_tree_is_never_the_command(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "outside" / "other.py").write_text("")
    path = "/home/mina/project/../outside/other.py"
    store = Readable()
    store.add(**told(repo.first, argv=["python", path], **{"mlflow.source.name": path}))
    rebuilt = apply(plan("last", store), tmp_path / "built")
    assert {file.name for file in rebuilt.files} == {"requirements.txt", "REPRODUCE.md"}


def test_a_command_runs_where_it_ran_and_never_above_the_tree(repo: Repo, tmp_path: Path) -> None:
    store = Readable()
    fields = told(repo.first)
    fields["artifacts"]["overt/environment.json"] = json.dumps({"cwd": "/home/mina/project/../.."}).encode()
    store.add(**fields)
    rebuilt = apply(plan("last", store), tmp_path / "built")
    script = next(file for file in rebuilt.files if file.name == "run.sh").read_text()
    assert script.count("cd ") == 1


def test_nothing_that_was_recorded_ends_a_block_of_the_page(repo: Repo, tmp_path: Path) -> None:
    store = Readable()
    evil = "x\n# Loud\n\n[click](http://evil)\r\N{ESCAPE}[31m\u202e"
    fields = told(repo.first, argv=["python", evil], **{"mlflow.source.name": evil, "overt.git.branch": evil})
    fields["params"] = {f"{evil}__seed": "1", f"{evil}/seed": evil}
    fields["artifacts"]["overt/packages.json"] = json.dumps({evil: evil, "numpy": {"a": 1}}).encode()
    fields["artifacts"]["overt/environment.json"] = json.dumps({"python": {"version": evil}, "variables": [1]}).encode()
    store.add(evil, **fields)
    rebuilt = apply(plan("last", store), tmp_path / "built")
    page = next(file for file in rebuilt.files if file.name == "REPRODUCE.md").read_text("utf-8")
    assert "evil" in page
    assert all(line.startswith("    ") for line in page.splitlines() if "evil" in line or "Loud" in line)
    assert all(character.isprintable() or character == "\n" for character in page)


def test_a_file_too_large_to_be_overts_is_not_read(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from overt.query import origin

    monkeypatch.setattr(origin, "_MOST_BYTES", 10)
    store = Readable()
    store.add(**told(repo.first))
    monkeypatch.setattr(store, "read_file", None)
    assert any("larger than overt writes it" in sentence for sentence in plan("last", store).missing)
