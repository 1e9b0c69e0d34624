from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.unit.cli.conftest import Overt

from overt.cli import commands
from overt.cli.text import duration, few_metrics, one_line, plain, size
from overt.errors import RunNotFound

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
ALL = (
    "runs",
    "show",
    "best",
    "compare",
    "audit",
    "register",
    "promote",
    "reproduce",
    "ui",
    "sync",
    "import",
    "doctor",
)


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "overt", *arguments], capture_output=True, text=True, check=False)


def test_the_commands_are_these() -> None:
    assert tuple(commands.commands) == ALL


@pytest.mark.parametrize("name", ALL)
def test_each_command_and_each_of_its_options_is_in_the_reference(name: str) -> None:
    page = REFERENCE.read_text("utf-8")
    usage = page.partition(f"$ overt {name}")[2].partition("```")[0]
    assert usage, f"overt {name} has no usage line"
    for parameter in commands.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in usage
        else:
            assert (parameter.metavar or "") in usage


def test_help_imports_no_library_of_a_store() -> None:
    code = (
        "import sys\nfrom overt.cli import commands\n"
        "try: commands.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'mlflow', 'rich', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "doctor" in said
    assert said.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    said = run_module("--version")
    assert said.returncode == 0
    assert said.stdout.startswith("overt ")
    assert said.stderr == ""


def test_an_unknown_command_is_a_misspelling_and_no_traceback() -> None:
    said = run_module("rnus")
    assert said.returncode == 2
    assert "No such command 'rnus'" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, overt: Overt) -> None:
    monkeypatch.setattr("overt.cli.runs.chosen_store", lambda store: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        overt("runs")


def test_an_error_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch, overt: Overt) -> None:
    def fail(store: str | None) -> str:
        raise RunNotFound("first\nsecond \x1b[31mred")

    monkeypatch.setattr("overt.cli.runs.chosen_store", fail)
    assert overt.fails("runs") == "overt: first second \\x1b[31mred\n"


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, overt: Overt) -> None:
    def interrupt(store: str | None) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("overt.cli.runs.chosen_store", interrupt)
    said = overt("runs")
    assert (said.code, said.err) == (130, "overt: interrupted\n")


@pytest.mark.parametrize("command", [("runs",), ("show", "last"), ("sync",), ("doctor",), ("ui",)])
@pytest.mark.parametrize("store", ["", "nowhere", "carrier-pigeon:coop", "file:///tmp/mlruns"])
def test_a_wrong_store_is_one_line(command: tuple[str, ...], store: str, overt: Overt) -> None:
    assert "store" in overt.fails(*command, "--store", store)


@pytest.mark.parametrize("command", [("runs",), ("show", "last"), ("ui",)])
def test_reading_makes_no_database(command: tuple[str, ...], overt: Overt, tmp_path: Path) -> None:
    assert "there is nothing at" in overt.fails(*command, "--store", "sqlite:///typo.db")
    assert not any(tmp_path.glob("*.db"))


@pytest.mark.parametrize("command", ["sync", "doctor"])
def test_a_wrong_folder_is_one_line(command: str, overt: Overt, tmp_path: Path) -> None:
    assert "there is no journal folder at" in overt.fails(command, "absent")
    (tmp_path / "holiday").mkdir()
    assert "there is no journal folder at" in overt.fails(command, "holiday")
    (tmp_path / "file").touch()
    assert "there is no journal folder at" in overt.fails(command, "file")


def test_control_characters_are_shown_and_not_sent() -> None:
    assert plain("a\x1b]0;title\x07b\u202ec") == "a\\x1b]0;title\\x07b\\u202ec"
    assert plain("분류 ok") == "분류 ok"
    assert one_line("a\n  b\tc") == "a b c"


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0.0 s"), (59_949, "59.9 s"), (61_000, "1 min 1 s"), (7_380_000, "2 h 3 min")]
)
def test_durations_are_in_two_units_at_most(milliseconds: int, text: str) -> None:
    assert duration(0, milliseconds) == text
    assert duration(0, None) == ""


def test_sizes_are_in_the_unit_that_suits() -> None:
    assert [size(n) for n in (None, 5, 999, 12_345, 6_000_000_000)] == ["", "5 B", "999 B", "12.3 kB", "6 GB"]


def test_held_out_scores_are_shown_before_those_of_the_training_set() -> None:
    assert few_metrics({"training_accuracy": 1.0, "a": 2.0, "f1_score": 0.5}, 2) == "f1_score 0.5, a 2"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_answer_that_cannot_be_written_is_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "overt", "runs", "--store", "jsonl:runs", *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "overt: the answer cannot be written: No space left on device\n")
