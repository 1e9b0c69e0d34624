"""What is configured, nearest word first: argument, ``configure``, environment, pyproject, MLflow, default.

Each setting is looked up on its own, so a project may fix the store while a script chooses the experiment. Nothing is
imported for it: MLflow's own choice is read only from a process that has imported mlflow already.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from overt.delivery.supervisor import Mode
from overt.errors import ConfigurationError
from overt.stores.protocols import Store
from overt.stores.uri import MLFLOW_DEFAULT, resolve

OnError = Literal["warn", "raise"]
DEFAULT_DRAIN_TIMEOUT_S = 10.0
LONGEST_EXPERIMENT = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings as given in one place; None where that place is silent."""

    store: str | Store | None = None
    experiment: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    delivery: Mode | None = None
    on_error: OnError | None = None
    enabled: bool | None = None
    keep_journal: bool | None = None
    system_metrics: bool | None = None
    drain_timeout_s: float | None = None
    directory: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _check_choice("delivery", self.delivery, get_args(Mode))
        _check_choice("on_error", self.on_error, get_args(OnError))
        if not isinstance(self.store, str | Store | None):
            raise ConfigurationError(
                "`store` must be a Store or a URI such as 'sqlite:///mlflow.db' or 'http://localhost:5000' "
                f"(got {type(self.store).__name__})."
            )
        if not isinstance(self.experiment, str | None) or self.experiment == "":
            raise ConfigurationError(f"`experiment` must be a name (got {self.experiment!r}).")
        if self.experiment is not None and len(self.experiment) > LONGEST_EXPERIMENT:
            raise ConfigurationError(
                f"`experiment` must be a name of at most {LONGEST_EXPERIMENT} characters, as MLflow takes it "
                f"(got {len(self.experiment)})."
            )
        if not isinstance(self.tags, Mapping):
            raise ConfigurationError(f"`tags` must map names to values (got {type(self.tags).__name__}).")
        if wrong := [name for name in self.tags if not isinstance(name, str) or not name]:
            raise ConfigurationError(f"`tags` must have texts that are not empty as names (got {wrong[0]!r}).")
        wait_s = self.drain_timeout_s
        if wait_s is not None and not (isinstance(wait_s, int | float) and wait_s >= 0):
            raise ConfigurationError(f"`drain_timeout_s` must be a number of seconds (got {wait_s!r}).")
        for name, switch in (
            ("enabled", self.enabled),
            ("keep_journal", self.keep_journal),
            ("system_metrics", self.system_metrics),
        ):
            if not isinstance(switch, bool | None):
                raise ConfigurationError(f"`{name}` must be true or false (got {switch!r}).")
        if not isinstance(self.directory, str | os.PathLike | None):
            raise ConfigurationError(f"`directory` must be a path (got {type(self.directory).__name__}).")


def configure(**settings: Any) -> None:
    """Set this process's defaults; each call replaces only what it names.

    Parameters
    ----------
    store : str or Store
        URI, such as ``"sqlite:///mlflow.db"`` or ``"http://localhost:5000"``.
    experiment : str
        Where runs go.
    tags : mapping
        Set on every run.
    delivery : {"process", "inline", "manual"}
        By a child process; in this one when something waits; not at all, until ``overt sync``.
    on_error : {"warn", "raise"}
        What trouble with tracking does.
    enabled : bool
        False makes every run a null run: same API, no file, no process.
    keep_journal : bool
        Whether journals stay after delivery.
    system_metrics : bool
        Whether the courier samples processor, memory, disk, network and GPUs, every 10 s, in runs that last longer.
    drain_timeout_s : float
        How long the script's end waits for a store that does not answer; 0 leaves at once.
    directory : str
        Where journals lie, instead of ``.overt``.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, or a name that is none of these.
    """
    global _configured
    unknown = settings.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(Settings.__dataclass_fields__)
        raise ConfigurationError(f"configure() takes {known} (got {', '.join(sorted(unknown))}).")
    _configured = replace(_configured, **settings)


def configured() -> Settings:
    """What :func:`configure` has set so far."""
    return _configured


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings with every question answered."""

    store: str | Store
    experiment: str
    experiment_id: str | None
    tags: Mapping[str, str]
    delivery: Mode
    on_error: OnError
    enabled: bool
    keep_journal: bool
    system_metrics: bool
    drain_timeout_s: float
    directory: str | os.PathLike[str] | None


def resolve_settings(*nearest_first: Settings, default_store: str | None = None) -> Resolved:
    """Answer every setting, beginning with the given places; a store that nobody chooses is ``default_store``.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, naming it and the place it came from.
    """
    environment, project = _from_environment(), _from_pyproject(working_directory())
    places = (*nearest_first, environment, project, _from_mlflow())
    tags: dict[str, str] = {}
    for place in reversed(places):
        tags |= place.tags
    store = _first(places, "store", default_store or MLFLOW_DEFAULT)
    if isinstance(store, str):
        is_from_project = _first((*nearest_first, environment), "store", None) is None and project.store is not None
        here = working_directory()
        store = resolve(store, directory=(_project_folder(here) if is_from_project else None) or here)
    experiment, experiment_id = _experiment(places)
    return Resolved(
        store=store,
        experiment=experiment,
        experiment_id=experiment_id,
        tags=tags,
        delivery=_first(places, "delivery", "process"),
        on_error=_first(places, "on_error", "warn"),
        enabled=_first(places, "enabled", True),
        keep_journal=_first(places, "keep_journal", False),
        system_metrics=_first(places, "system_metrics", True),
        drain_timeout_s=_first(places, "drain_timeout_s", DEFAULT_DRAIN_TIMEOUT_S),
        directory=_first(places, "directory", None),
    )


def working_directory() -> Path:
    """Where this process is; the user's home where that folder has been deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path.home()


def journal_base(directory: str | os.PathLike[str] | None) -> Path:
    """The ``.overt`` folder: as configured, else beside pyproject.toml, else in the working directory."""
    if directory is not None:
        return Path(directory).expanduser().absolute()
    return (_project_folder(working_directory()) or working_directory()) / ".overt"


def cache_base() -> Path:
    """The ``.overt`` folder of last resort, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overt"


def is_quiet() -> bool:
    """Whether the start and end lines are not wanted."""
    return _flag(os.environ.get("OVERT_QUIET", "")) is True


def _experiment(places: tuple[Settings, ...]) -> tuple[str, str | None]:
    """Name of the experiment and, where MLflow chose it, its id, which means something in MLflow's own store only."""
    *ours, mlflows = places
    name = _first(tuple(ours), "experiment", None)
    is_mlflows_store = _first(tuple(ours), "store", None) in (None, mlflows.store)
    if name is None and is_mlflows_store and (chosen := _experiment_id_of_mlflow()):
        return f"#{chosen}", chosen
    return name or mlflows.experiment or "Default", None


def _experiment_id_of_mlflow() -> str | None:
    """What ``mlflow.set_experiment`` chose in this process, else what its environment variable says."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if chosen := getattr(fluent, "_active_experiment_id", None):
        return str(chosen)
    if os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return None
    return os.environ.get("MLFLOW_EXPERIMENT_ID") or None


def _first(places: tuple[Settings, ...], name: str, default: Any) -> Any:
    return next((value for place in places if (value := getattr(place, name)) is not None), default)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise ConfigurationError(f"`{name}` must be one of {', '.join(choices)} (got {value!r}).")


def _from_environment() -> Settings:
    given = os.environ.get
    disabled = _flag(given("OVERT_DISABLED", ""))
    _check_choice("OVERT_DELIVERY", given("OVERT_DELIVERY") or None, get_args(Mode))
    _check_choice("OVERT_ON_ERROR", given("OVERT_ON_ERROR") or None, get_args(OnError))
    return Settings(
        store=given("OVERT_STORE") or None,
        experiment=given("OVERT_EXPERIMENT") or None,
        delivery=cast("Mode | None", given("OVERT_DELIVERY") or None),
        on_error=cast("OnError | None", given("OVERT_ON_ERROR") or None),
        enabled=None if disabled is None else not disabled,
        keep_journal=_flag(given("OVERT_KEEP_JOURNAL", "")),
        system_metrics=_flag(given("OVERT_SYSTEM_METRICS", "")),
        drain_timeout_s=_seconds("OVERT_WAIT", given("OVERT_WAIT") or None),
        directory=given("OVERT_DIR") or None,
    )


def _seconds(name: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} must be a number of seconds (got {text!r}).") from error


def _flag(text: str) -> bool | None:
    return {"": None, "0": False, "false": False, "no": False}.get(text.strip().lower(), True)


def _from_pyproject(folder: Path) -> Settings:
    project = _project_folder(folder)
    if project is None:
        return Settings()
    file = project / "pyproject.toml"
    table = _read_table(file, file.stat().st_mtime_ns)
    if unknown := table.keys() - Settings.__dataclass_fields__.keys():
        known = ", ".join(Settings.__dataclass_fields__)
        raise ConfigurationError(f"[tool.overt] in {file} knows {known} (got {', '.join(sorted(unknown))}).")
    try:
        settings = Settings(**table)
    except ConfigurationError as error:
        raise ConfigurationError(f"[tool.overt] in {file}: {error}") from error
    if settings.directory is None:
        return settings
    return replace(settings, directory=str(project / Path(settings.directory).expanduser()))


@lru_cache(maxsize=8)
def _read_table(path: Path, modified_ns: int) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("tool", {}).get("overt", {})
    except tomllib.TOMLDecodeError:
        return {}  # somebody else's trouble, and they will hear of it from their own tools
    return dict(table)


def _project_folder(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if (place / "pyproject.toml").is_file()), None)


def _from_mlflow() -> Settings:
    """MLflow's own choice: what was set in this process, else its environment variables."""
    store = None
    tracking = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if tracking is not None and tracking.is_tracking_uri_set():
        store = str(tracking.get_tracking_uri())
    store = store or os.environ.get("MLFLOW_TRACKING_URI") or None
    return Settings(store=store, experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or None)


_configured = Settings()
