"""Each level is seen to beat the next: all are set at once, then the nearest is taken away, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import overt
from overt import settings
from overt.errors import ConfigurationError
from overt.settings import Settings, journal_base, resolve_settings
from overt.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERT_DIR", raising=False)


def project(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.overt]\n{text}\n")


def test_every_level_beats_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    project(tmp_path, 'experiment = "pyproject"\nstore = "sqlite:///pyproject.db"')
    monkeypatch.setenv("OVERT_EXPERIMENT", "environment")
    monkeypatch.setenv("OVERT_STORE", "sqlite:////environment.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////mlflow-environment.db")
    mlflow.set_tracking_uri("sqlite:////set-in-mlflow.db")
    overt.configure(experiment="configure", store="sqlite:////configure.db")
    nearest: list[Settings] = [
        Settings(experiment="argument", store="sqlite:////argument.db"),
        Settings(experiment="tracker", store="sqlite:////tracker.db"),
        settings._configured,
    ]

    def found() -> tuple[str, Any]:
        resolved = resolve_settings(*nearest)
        return resolved.experiment, resolved.store

    try:
        for level in ("argument", "tracker", "configure"):
            assert found() == (level, f"sqlite:////{level}.db")
            nearest.pop(0)
        assert found() == ("environment", "sqlite:////environment.db")
        monkeypatch.delenv("OVERT_EXPERIMENT")
        monkeypatch.delenv("OVERT_STORE")
        assert found() == ("pyproject", f"sqlite:///{tmp_path}/pyproject.db")
        (tmp_path / "pyproject.toml").unlink()
        assert found() == ("mlflow", "sqlite:////set-in-mlflow.db")
        mlflow.set_tracking_uri(None)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////mlflow-environment.db")
        assert found() == ("mlflow", "sqlite:////mlflow-environment.db")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
        assert found() == ("Default", f"sqlite:///{tmp_path}/mlflow.db")
    finally:
        mlflow.set_tracking_uri(before)


def test_an_argument_of_start_run_beats_its_tracker_and_configure() -> None:
    with overt.testing.captured_runs() as runs:
        overt.configure(experiment="configure", tags={"a": "configure", "b": "configure", "c": "configure"})
        tracked = overt.Tracker(experiment="tracker", tags={"a": "tracker", "b": "tracker"})
        overt.start_run(experiment="argument", tags={"a": "argument"}, tracker=tracked)
        overt.start_run(tracker=tracked)
        overt.start_run()
    assert [run.experiment for run in runs] == ["argument", "tracker", "configure"]
    assert [runs[0].tags[name] for name in "abc"] == ["argument", "tracker", "configure"]


def test_configure_replaces_only_what_it_names() -> None:
    overt.configure(experiment="one", tags={"a": "1"})
    overt.configure(experiment="two")
    resolved = resolve_settings(settings._configured)
    assert (resolved.experiment, resolved.tags) == ("two", {"a": "1"})


def test_pyproject_is_found_upward_and_its_paths_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, 'store = "sqlite:///runs.db"\ndirectory = "journals"')
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    resolved = resolve_settings()
    assert resolved.store == f"sqlite:///{tmp_path}/runs.db"
    assert journal_base(resolved.directory) == tmp_path / "journals"
    assert journal_base(None) == tmp_path / ".overt"


def test_without_a_pyproject_journals_lie_in_the_working_directory(tmp_path: Path) -> None:
    assert journal_base(None) == tmp_path / ".overt"
    assert journal_base("elsewhere") == tmp_path / "elsewhere"


def test_a_pyproject_without_our_table_or_broken_says_nothing(tmp_path: Path) -> None:
    for text in ("[tool.other]\nstore = 5", "this is not TOML"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert resolve_settings().experiment == "Default"


def test_a_changed_pyproject_is_read_again(tmp_path: Path) -> None:
    import os

    for number in range(2):
        project(tmp_path, f'experiment = "{number}"')
        os.utime(tmp_path / "pyproject.toml", ns=(number, number))
        assert resolve_settings().experiment == str(number)


@pytest.mark.parametrize(
    ("variable", "value", "name", "resolved"),
    [
        ("OVERT_DISABLED", "1", "enabled", False),
        ("OVERT_DISABLED", "0", "enabled", True),
        ("OVERT_DELIVERY", "manual", "delivery", "manual"),
        ("OVERT_ON_ERROR", "raise", "on_error", "raise"),
        ("OVERT_KEEP_JOURNAL", "yes", "keep_journal", True),
        ("OVERT_SYSTEM_METRICS", "0", "system_metrics", False),
        ("OVERT_WAIT", "0", "drain_timeout_s", 0.0),
        ("OVERT_DIR", "/somewhere", "directory", "/somewhere"),
    ],
)
def test_each_variable_sets_its_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, resolved: object
) -> None:
    monkeypatch.delenv(variable, raising=False)  # the tests set some for themselves
    assert getattr(resolve_settings(), name) != resolved or variable == "OVERT_DISABLED"
    monkeypatch.setenv(variable, value)
    assert getattr(resolve_settings(), name) == resolved


def test_the_environment_can_switch_on_what_the_project_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "enabled = false")
    assert resolve_settings().enabled is False
    monkeypatch.setenv("OVERT_DISABLED", "0")
    assert resolve_settings().enabled is True


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"delivery": "pigeon"}, r"`delivery` must be one of process, inline, manual \(got 'pigeon'\)"),
        ({"on_error": "explode"}, "`on_error` must be one of warn, raise"),
        ({"store": 5}, r"`store` must be a Store or a URI such as .* \(got int\)"),
        ({"experiment": ""}, "`experiment` must be a name"),
        ({"experiment": 5}, "`experiment` must be a name"),
        ({"tags": ["a"]}, "`tags` must map names to values"),
        ({"drain_timeout_s": -1}, "`drain_timeout_s` must be a number of seconds"),
        ({"drain_timeout_s": "ten"}, "`drain_timeout_s` must be a number of seconds"),
        ({"drain_timeout_s": float("nan")}, "`drain_timeout_s` must be a number of seconds"),
        ({"enabled": "no"}, "`enabled` must be true or false"),
        ({"keep_journal": 1}, "`keep_journal` must be true or false"),
        ({"directory": 5}, "`directory` must be a path"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_setting_that_cannot_work_raises_at_once(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        overt.configure(**setting)
    with pytest.raises(ConfigurationError, match=complaint):
        overt.Tracker(**setting)


def test_an_unknown_key_of_pyproject_raises_and_names_the_file(tmp_path: Path) -> None:
    project(tmp_path, "experimnt = 'typo'")
    with pytest.raises(ConfigurationError, match=r"pyproject.toml.*experimnt|experimnt.*pyproject.toml"):
        overt.start_run()


@pytest.mark.parametrize("variable", ["OVERT_DELIVERY", "OVERT_ON_ERROR", "OVERT_WAIT"])
def test_a_wrong_variable_raises_and_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "pigeon")
    with pytest.raises(ConfigurationError, match=variable):
        overt.start_run()


def test_a_wrong_value_in_pyproject_raises_and_names_the_file(tmp_path: Path) -> None:
    project(tmp_path, "delivery = 'pigeon'")
    with pytest.raises(ConfigurationError, match=r"pyproject.toml"):
        overt.start_run()


def test_a_file_uri_raises_at_start_run_with_both_ways_out() -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///mlflow.db.*http://localhost:5000"):
        overt.start_run(tracker=overt.Tracker(store="file:./mlruns"))


def test_a_store_object_is_taken_as_it_is() -> None:
    store = MemoryStore()
    assert resolve_settings(Settings(store=store)).store is store
