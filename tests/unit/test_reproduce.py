from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.recorded import Readable, Repo, told, tree

from overt.capture.environment import packages
from overt.errors import ConfigurationError, NotReproducible, RunNotFound
from overt.query.diffs import read_diff
from overt.records import Dataset
from overt.reproduce import Plan, apply, plan
from overt.reproduce.sheets import requirements

GONE = "f" * 40


@pytest.fixture
def store() -> Readable:
    return Readable()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    made = Repo(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


def planned(store: Readable, **fields: object) -> Plan:
    store.add(**fields)
    return plan("last", store)


def data(name: str = "train") -> Dataset:
    return Dataset(name, "0" * 32, "training", "code", "{}", "{}", '{"features_shape": [3, 2]}')


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_run_that_tells_all_lacks_nothing_but_the_place_of_its_data(store: Readable) -> None:
    found = planned(store, **told(GONE), datasets=[data()])
    assert found.missing == ("the store holds digests of the data (train), and not where they lie",)
    assert found.package_changes == {}
    origin = found.origin
    assert (origin.commit, origin.is_dirty, origin.diff) == (GONE, False, None)
    assert origin.argv == ("/opt/env/bin/python3", "train.py")
    assert (origin.cwd, origin.python) == ("/home/mina/project", platform.python_version())
    assert origin.seeds["random_state"] == "0"
    assert origin.data[0].digest == "0" * 32


def test_a_run_that_tells_nothing_lacks_everything_in_plain_words(store: Readable) -> None:
    said = "\n".join(planned(store).missing)
    for lacking in ("no commit", "no command line", "version of Python", "packages", "no seed", "no data"):
        assert lacking in said, lacking


@pytest.mark.parametrize(
    ("name", "value", "is_seed"),
    [
        ("clf__random_state", "7", True),
        ("data.seed", "-1", True),
        ("random_seed", "0", True),
        ("SEED", "5", True),
        ("model.torch_seed", "3", True),
        ("seed_value", "4", True),
        ("seed", "None", False),
        ("random_state", "RandomState(MT19937)", False),
    ],
)
def test_only_a_number_under_a_seeds_name_is_a_seed(store: Readable, name: str, value: str, is_seed: bool) -> None:
    found = planned(store, **(told(GONE) | {"params": {name: value, "n_seeds": "3"}}))
    named = [sentence for sentence in found.missing if f"{name}={value}" in sentence]
    assert (found.origin.seeds == {name: value}) == is_seed
    assert bool(named) != is_seed


def test_packages_that_are_others_here_are_listed_with_both_versions(store: Readable) -> None:
    fields = told(GONE)
    here = packages()["numpy"]
    fields["artifacts"]["overt/packages.json"] = json.dumps({"numpy": "0.1", "no-such": "1", "scipy": "?"}).encode()
    changes = planned(store, **fields).package_changes
    assert changes["numpy"] == ("0.1", here)
    assert changes["no-such"] == ("1", None)


def test_another_python_is_said_with_both_versions(store: Readable) -> None:
    fields = told(GONE)
    fields["artifacts"]["overt/environment.json"] = json.dumps({"python": {"version": "2.7.18"}}).encode()
    assert f"it ran on Python 2.7.18, and here is {platform.python_version()}" in planned(store, **fields).missing


def test_a_child_of_a_run_came_from_where_its_parent_did(store: Readable) -> None:
    parent = store.add("parent", **told(GONE))
    found = planned(store, name="child", tags={"mlflow.parentRunId": parent.id}, params={"seed": "5"})
    assert found.run.name == "child"
    assert (found.origin.recorded_by, found.origin.commit, found.origin.seeds["seed"]) == ("parent", GONE, "5")


def test_a_child_of_a_run_has_the_seeds_of_its_parent(store: Readable) -> None:
    parent = store.add("parent", **(told(GONE) | {"params": {"seed": "3", "random_state": "1"}}))
    found = planned(store, name="child", tags={"mlflow.parentRunId": parent.id}, params={"random_state": "2"})
    assert found.origin.seeds == {"seed": "3", "random_state": "2"}


def test_a_path_for_imports_is_said(store: Readable) -> None:
    fields = told(GONE)
    fields["artifacts"]["overt/environment.json"] = json.dumps({"variables": {"PYTHONPATH": "src:/lib"}}).encode()
    assert any("PYTHONPATH was src:/lib" in sentence for sentence in planned(store, **fields).missing)


def test_runs_that_are_each_others_parents_are_read_once(store: Readable) -> None:
    first = store.add("first", tags={"mlflow.parentRunId": f"{2:032x}"})
    store.add("second", tags={"mlflow.parentRunId": first.id})
    assert plan("second", store).origin.commit is None


def test_attempts_after_the_first_are_said(store: Readable) -> None:
    found = planned(store, **told(GONE, **{"overt.attempt_2.overt.git.commit": "e" * 40}))
    assert found.origin.commit == GONE
    assert any("number 2" in sentence for sentence in found.missing)


def test_an_unknown_run_is_one_clear_error(store: Readable) -> None:
    with pytest.raises(RunNotFound, match="no run answers to 'nobody'"):
        plan("nobody", store)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_overt_did_not_write_so_is_said_and_not_used(store: Readable, content: bytes) -> None:
    fields = told(GONE)
    fields["artifacts"]["overt/packages.json"] = content
    found = planned(store, **fields)
    assert found.origin.packages == {}
    assert any("overt/packages.json is not what overt writes" in sentence for sentence in found.missing)


def test_files_that_cannot_be_reached_are_told_from_files_that_were_never_recorded(store: Readable) -> None:
    assert any("cannot reach" in sentence for sentence in planned(store, **(told(GONE) | {"artifacts": {}})).missing)
    assert not any("cannot reach" in sentence for sentence in planned(store, tags={}).missing)


# -- the diff ----------------------------------------------------------------------------------------------------------


def test_a_recorded_diff_is_taken_apart_as_it_was_written(repo: Repo) -> None:
    repo.write("train.py", "print('two')\n# cut: not a cut\n")
    repo.write("sub/new é.txt", "new\n")
    (repo.folder / "sub" / "text.txt").unlink()
    repo("add", "-A")
    repo.write("left out", "-")
    found = read_diff(repo.diff())
    assert found.untracked == ("left out",)
    assert {change.path for change in found.changes} == {"train.py", "sub/new é.txt", "sub/text.txt"}
    assert {change.kind for change in found.changes} == {"text"}
    assert not found.cut


def test_what_git_could_not_apply_is_kept_out_of_the_patch(repo: Repo) -> None:
    (repo.folder / "raw.bin").write_bytes(b"\0\1")
    repo("add", "-A")
    repo.commit()
    (repo.folder / "raw.bin").write_bytes(b"\0\2")
    os.symlink("train.py", repo.folder / "link")
    repo.write("train.py", "print('two')\n")
    repo("add", "-A")
    found = read_diff(repo.diff())
    assert {(change.path, change.kind) for change in found.changes} == {
        *{("raw.bin", "binary"), ("link", "link"), ("train.py", "text")}
    }
    assert b"raw.bin" not in found.patch
    assert b"link" not in found.patch
    assert b"two" in found.patch


def test_a_cut_is_told_from_a_line_that_looks_like_one() -> None:
    cut = read_diff(b"# untracked: a\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n# cut: 9 bytes more\n")
    assert cut.cut == "9 bytes more"
    assert b"# cut" not in cut.patch
    assert read_diff(b"# untracked: a\n").cut == ""


# -- rebuilding --------------------------------------------------------------------------------------------------------


def changed(repo: Repo) -> bytes:
    """A diff with a change, a new file, one gone and one renamed, put back in the work tree afterwards."""
    repo.write("train.py", "import sys\nprint('two', sys.argv[1:])\n")
    repo.write("added.txt", "added\n")
    repo("mv", "sub/text.txt", "sub/renamed.txt")
    repo("add", "-A")
    diff = repo.diff()
    repo("reset", "-q", "--hard")
    return diff


def test_commit_and_diff_are_rebuilt_and_nothing_else_of_the_repository_moves(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    diff = changed(repo)
    repo.write("train.py", "print('a later step')\n")
    repo.commit()
    repo.write("train.py", "print('work in progress')\n")
    repo.write("staged.txt", "staged\n")
    repo("add", "staged.txt")
    repo("stash", "push", "-q", "-m", "kept", "staged.txt")
    before = repo.state()
    rebuilt = apply(planned(store, **told(repo.first, diff=diff)), tmp_path / "built")
    after = repo.state()
    assert after[:-1] == before[:-1]
    assert after[-1].startswith(before[-1])
    assert tree(tmp_path / "built") == {
        "train.py": "import sys\nprint('two', sys.argv[1:])\n",
        "added.txt": "added\n",
        "sub/renamed.txt": "first\nsecond\nthird\n",
    }
    assert subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=rebuilt.folder, text=True).strip() == repo.first


def test_a_rebuilt_tree_differs_from_its_commit_exactly_as_the_recorded_one_did(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    diff = changed(repo)
    apply(planned(store, **told(repo.first, diff=diff)), tmp_path / "built")
    from overt.capture.source import source

    again = read_diff(source(tmp_path / "built", ["python"]).diff or b"")
    assert again.changes == read_diff(diff).changes
    assert again.untracked == ("overt-reproduce/",)


def test_a_diff_that_does_not_apply_leaves_no_folder_and_no_work_tree(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    diff = changed(repo).replace(b"-print('one')", b"-print('never there')")
    found, before = planned(store, **told(repo.first, diff=diff)), repo.state()
    with pytest.raises(NotReproducible, match=r"cannot be rebuilt: patch failed: train.py"):
        apply(found, tmp_path / "built")
    assert not (tmp_path / "built").exists()
    assert repo.state() == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotReproducible):
        apply(found, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_secret_in_the_way_of_a_diff_is_named(store: Readable, repo: Repo, tmp_path: Path) -> None:
    diff = changed(repo).replace(b"-print('one')", b"-print([redacted])")
    found = planned(store, **told(repo.first, diff=diff))
    assert any("secret was taken out of the diff of train.py" in sentence for sentence in found.missing)
    with pytest.raises(NotReproducible, match=r"secrets were taken out of the diff of train.py"):
        apply(found, tmp_path / "built")


def test_a_diff_that_was_cut_is_not_applied_in_part(store: Readable, repo: Repo, tmp_path: Path) -> None:
    found = planned(store, **told(repo.first, diff=changed(repo) + b"# cut: 12 bytes more were left out\n"))
    assert "the diff was cut when it was recorded: 12 bytes more were left out" in found.missing
    with pytest.raises(NotReproducible, match="not whole"):
        apply(found, tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_a_commit_that_is_not_here_is_one_line_that_says_where_it_was(store: Readable, repo: Repo) -> None:
    found = planned(store, **told(GONE, **{"mlflow.source.git.repoURL": "https://example.org/p.git"}))
    with pytest.raises(NotReproducible, match=r"git fetch .* https://example.org/p.git") as error:
        apply(found, "built")
    assert "\n" not in str(error.value)
    assert not Path("built").exists()


def test_a_run_without_a_commit_has_no_code_to_rebuild(store: Readable, repo: Repo) -> None:
    with pytest.raises(NotReproducible, match="no commit"):
        apply(planned(store, **told(None)), "built")


def test_outside_a_repository_the_remedy_is_said(store: Readable, tmp_path: Path) -> None:
    with pytest.raises(NotReproducible, match="go into a clone"):
        apply(planned(store, **told(GONE)), tmp_path / "built")


def test_a_folder_that_is_taken_is_left_as_it_is(store: Readable, repo: Repo, tmp_path: Path) -> None:
    found = planned(store, **told(repo.first))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in ("full", "file", "link"):
        with pytest.raises(ConfigurationError, match="must be new or empty"):
            apply(found, tmp_path / taken)
    with pytest.raises(ConfigurationError, match="does not exist"):
        apply(found, tmp_path / "not" / "there")
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_variables_that_a_git_hook_sets_do_not_lead_to_another_index(
    store: Readable, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, before = planned(store, **told(repo.first, diff=changed(repo))), repo.state()
    monkeypatch.setenv("GIT_DIR", str(repo.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repo.folder / ".git" / "index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repo.folder))
    apply(found, tmp_path / "built")
    monkeypatch.undo()
    assert repo.state()[:-1] == before[:-1]
    assert (tmp_path / "built" / "added.txt").exists()


def test_a_folder_of_the_commit_that_has_the_sheets_name_is_not_written_to(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    repo.write("overt-reproduce/run.sh", "mine\n")
    rebuilt = apply(planned(store, **told(repo.commit())), tmp_path / "built")
    assert (tmp_path / "built" / "overt-reproduce" / "run.sh").read_text() == "mine\n"
    assert {file.parent.name for file in rebuilt.files} == {"overt-reproduce-2"}


def test_submodules_and_filtered_files_are_said(store: Readable, repo: Repo, tmp_path: Path) -> None:
    repo.write(".gitattributes", "*.big filter=store\n")
    repo.write("data.big", "pointer\n")
    repo.write(".gitmodules", "")
    commit = repo.commit()
    repo("config", "filter.store.smudge", f"touch {tmp_path}/smudged; cat")
    repo("config", "filter.store.required", "true")
    missing = "\n".join(apply(planned(store, **told(commit)), tmp_path / "built").missing)
    assert "data.big" in missing
    assert "git submodule update" in missing
    assert (tmp_path / "built" / "data.big").read_text() == "pointer\n"
    assert not (tmp_path / "smudged").exists()


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_runs_in_the_folder_and_with_the_arguments_that_it_had(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    repo.write("sub/train.py", "import os, sys\nprint(os.getcwd(), sys.argv, os.environ['PYTHONHASHSEED'])\n")
    arguments = ["a b", "$HOME", "it's", "--x=`id`", ""]
    script = "/home/mina/project/sub/train.py"
    fields = told(
        repo.commit(), argv=["/opt/bin/python3.11", "-u", script, *arguments], **{"mlflow.source.name": script}
    )
    seen = {"cwd": "/home/mina/project/sub", "variables": {"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "$(id)"}}
    fields["artifacts"]["overt/environment.json"] = json.dumps(seen).encode()
    rebuilt = apply(planned(store, **fields), tmp_path / "built")
    script_file = next(file for file in rebuilt.files if file.name == "run.sh")
    assert "$(id)" not in script_file.read_text()
    said = subprocess.run(
        ["sh", script_file],
        env=os.environ | {"PYTHON": sys.executable},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{tmp_path / 'built' / 'sub'} {['train.py', *arguments]} 3\n"


@pytest.mark.parametrize("script", ["/home/mina/project/sub/../train.py", "../train.py"])
def test_a_script_that_was_named_from_a_folder_beside_it_is_found(
    store: Readable, repo: Repo, tmp_path: Path, script: str
) -> None:
    repo.write("sub/data.txt", "")
    fields = told(repo.commit(), argv=["/opt/bin/python3", "../train.py"], **{"mlflow.source.name": script})
    fields["artifacts"]["overt/environment.json"] = json.dumps({"cwd": "/home/mina/project/sub"}).encode()
    rebuilt = apply(planned(store, **fields), tmp_path / "built")
    script_file = next(file for file in rebuilt.files if file.name == "run.sh")
    assert "cd ./sub" in script_file.read_text()
    assert script_file.read_text().endswith(" ../train.py\n")


def test_a_module_is_run_in_the_folder_of_the_repository_that_it_was_run_in(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    repo.write("sub/pkg/train.py", "import os\nprint(os.getcwd())\n")
    argv, script = ["/opt/bin/python3", "-m", "pkg.train"], {"mlflow.source.name": "-m pkg.train"}
    fields = told(repo.commit(), argv=argv, **script, **{"overt.git.folder": "sub"})
    fields["artifacts"]["overt/environment.json"] = json.dumps({"cwd": "/home/mina/project/sub"}).encode()
    rebuilt = apply(planned(store, **fields), tmp_path / "built")
    assert not any("which folder" in sentence for sentence in rebuilt.missing)
    script_file = next(file for file in rebuilt.files if file.name == "run.sh")
    variables = os.environ | {"PYTHON": sys.executable}
    said = subprocess.run(["sh", script_file], env=variables, capture_output=True, text=True, check=True)
    assert said.stdout == f"{tmp_path / 'built' / 'sub'}\n"


@pytest.mark.parametrize("is_told", [True, False])
def test_of_two_scripts_of_a_name_the_one_that_was_run_is_the_command(
    store: Readable, repo: Repo, tmp_path: Path, is_told: bool
) -> None:
    repo.write("project/train.py", "")  # as the whole path ends, from the folder above on
    tags = {"overt.git.folder": "."} if is_told else {}
    rebuilt = apply(planned(store, **told(repo.commit(), **tags)), tmp_path / "built")
    script = next(file for file in rebuilt.files if file.name == "run.sh").read_text()
    assert script.endswith(" train.py\n")
    assert ("cd ./project" in script) != is_told


def test_a_command_that_was_given_outside_the_repository_is_shown_and_not_written(
    store: Readable, repo: Repo, tmp_path: Path
) -> None:
    made = planned(store, **told(repo.first, **{"overt.git.file": "train.py"}))
    assert any("/home/mina/project, outside the repository" in sentence for sentence in made.missing)
    rebuilt = apply(made, tmp_path / "built")
    assert "run.sh" not in {file.name for file in rebuilt.files}
    assert any("no script gives the command" in sentence for sentence in rebuilt.missing)


@pytest.mark.parametrize("script", ["/home/mina/train.py", "../train.py"])
def test_a_script_of_elsewhere_is_not_taken_for_one_of_its_name(
    store: Readable, repo: Repo, tmp_path: Path, script: str
) -> None:
    tags = {"overt.git.folder": ".", "mlflow.source.name": script}
    made = planned(store, **told(repo.first, **tags))
    assert any("/home/mina/train.py is not in the repository" in sentence for sentence in made.missing)
    assert "run.sh" not in {file.name for file in apply(made, tmp_path / "built").files}


def test_a_script_is_found_where_the_record_says_that_it_was(store: Readable, repo: Repo, tmp_path: Path) -> None:
    repo.write("project/train.py", "")  # as the path behind the link ends
    tags = {"overt.git.folder": ".", "overt.git.file": "train.py", "mlflow.source.name": "/home/link/project/train.py"}
    rebuilt = apply(planned(store, **told(repo.commit(), **tags)), tmp_path / "built")
    script = next(file for file in rebuilt.files if file.name == "run.sh").read_text()
    assert script.endswith(" train.py\n")
    assert "cd ./project" not in script


@pytest.mark.parametrize("folder", ["../..", "/", "", "sub", "a/../.."])
def test_a_folder_that_cannot_be_is_no_folder(store: Readable, folder: str) -> None:
    origin = planned(store, **told(GONE, **{"overt.git.folder": folder})).origin
    assert origin.folder == ("sub" if folder == "sub" else None)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["/bin/python", "-c", "print(1)"], "no file of the rebuilt tree"),
        (["/bin/python", "-Ic", "print(1)"], "no file of the rebuilt tree"),
        (["/bin/python", "elsewhere.py"], "elsewhere.py is no file"),
        (["/bin/rm", "-rf", "train.py"], "something else than Python"),
        (["/bin/python", "train.py", "a\nb"], "does not print"),
        (["/bin/python", "train.py", "--key=[redacted]"], "secrets have to be filled in"),
    ],
)
def test_a_command_that_is_no_plain_script_of_the_tree_is_shown_and_not_written(
    store: Readable, repo: Repo, tmp_path: Path, argv: list[str], reason: str
) -> None:
    script = "/home/mina/elsewhere.py" if argv[1] == "elsewhere.py" else "/home/mina/project/train.py"
    rebuilt = apply(planned(store, **told(repo.first, argv=argv, **{"mlflow.source.name": script})), tmp_path / "built")
    assert {file.name for file in rebuilt.files} == {"requirements.txt", "REPRODUCE.md"}
    assert any(reason in sentence for sentence in rebuilt.missing)


# -- requirements ------------------------------------------------------------------------------------------------------


def test_requirements_hold_only_what_an_index_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = {
        "numpy": "2.4.6",
        "torch": "2.13.0+cpu",
        "overt": "0.1.0",
        "mine": "1.0",
        "evil\n--index-url http://evil": "1",
        "other": "1 --hash=x",
        "at": "file:///x",
    }
    lines = requirements(recorded, "Mine").splitlines()
    assert lines[:2] == ["numpy==2.4.6", "torch==2.13.0  # 2.13.0+cpu was recorded"]
    assert all(line.startswith("# ") for line in lines[2:])
    assert len(lines) == len(recorded)
    assert "pip install -e ." in lines[3]


def test_an_editable_package_of_this_machine_is_a_comment() -> None:
    from overt.reproduce.sheets import _is_local

    assert not _is_local("numpy", packages()["numpy"])
    if _is_local("overt", packages().get("overt", "")):  # a checkout: the usual place of this test
        assert not _is_local("overt", "9.9")


def test_requirements_are_taken_by_pip(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(requirements(packages(), None), "utf-8")
    from packaging.requirements import Requirement

    kept = [line.partition("  #")[0] for line in (tmp_path / "requirements.txt").read_text().splitlines()]
    assert all(Requirement(line) for line in kept if not line.startswith("#"))
