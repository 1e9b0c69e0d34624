"""What several commands are asked in the same words, and how the answers become a store and a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from overt.errors import ConfigurationError

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(help_text: str) -> Callable[[Command], Command]:
    """``--store URI``."""
    return click.option("--store", "store", metavar="URI", help=help_text)


def json_option() -> Callable[[Command], Command]:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")


def folder_argument() -> Callable[[Command], Command]:
    """``[DIR]``."""
    return click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))


def chosen_store(store: str | None) -> str:
    """URI of the store to work with: the one given, else the configured one.

    Raises
    ------
    ConfigurationError
        When it cannot be one.
    """
    from overt.settings import Settings, resolve_settings

    if store == "":
        raise ConfigurationError("--store must be a URI such as sqlite:///mlflow.db or http://localhost:5000 (got '').")
    resolved = resolve_settings(Settings(store=store)).store
    assert isinstance(resolved, str)  # from a command line and its environment nothing else can come
    return resolved


def configured_folder() -> Path:
    """The ``.overt`` folder that recording would use here."""
    from overt.settings import journal_base, resolve_settings

    return journal_base(resolve_settings().directory)
