"""The command ``overt``: what goes wrong is one line on stderr and a non-zero exit; a bug alone shows its traceback.

``overt --help`` imports no store's library: each command imports what it works with when it is run. With ``--json`` the
answer, and nothing else, is on stdout.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from overt.cli import audit, best, compare, doctor, importing, promote, register, reproduce, runs, show, sync, ui
from overt.cli.text import installed_version, one_line
from overt.errors import OvertError
from overt.stores.mlflow.environment import CLIENT_ENVIRONMENT

_INTERRUPTED = 130


class _Failure(click.ClickException):
    """An error of overt's, as one line."""

    def show(self, file: Any = None) -> None:
        click.echo(f"overt: {one_line(self.message)}", err=True)


class _Commands(click.Group):
    """The commands in the order of a user's day, and the one place where errors become lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OvertError as error:
            raise _Failure(str(error)) from error
        except KeyboardInterrupt:
            click.echo("overt: interrupted", err=True)
            ctx.exit(_INTERRUPTED)
        except BrokenPipeError:  # whoever read the answer has gone: click ends quietly
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _Failure(f"the answer cannot be written: {error.strerror}") from error


def _print_version(ctx: click.Context, parameter: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        click.echo(f"overt {installed_version('overt')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Say which version."
)
def commands() -> None:
    """Look at recorded runs, and bring to their store those that have not arrived there.

    The store and the journal folder are those that recording uses: OVERT_STORE, OVERT_DIR, [tool.overt] in
    pyproject.toml, MLFLOW_TRACKING_URI, else mlflow.db and .overt here.
    """
    for name, value in {**CLIENT_ENVIRONMENT, "MLFLOW_LOGGING_LEVEL": "WARNING"}.items():
        os.environ.setdefault(name, value)


for _command in (
    runs.runs,
    show.show,
    best.best,
    compare.compare,
    audit.audit,
    register.register,
    promote.promote,
    reproduce.reproduce,
    ui.ui,
    sync.sync,
    importing.import_,
    doctor.doctor,
):
    commands.add_command(_command)


def main() -> None:
    """Entry point."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name is no reason to fail
    commands(prog_name="overt")
