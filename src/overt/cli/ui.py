"""``overt ui``: MLflow's own pages on the configured store, in a process group that ends when this command does.

The store's URI may hold a password, so it reaches MLflow in its environment, where ``ps`` does not show it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType

import click

from overt.cli.options import chosen_store, store_option
from overt.errors import ConfigurationError, StoreUnavailable

_START_S = 60.0
_GRACE_S = 5.0
_POLL_S = 0.1
_DEFAULT_ENVIRONMENT = {
    # its job runners are seven more processes, which showing runs never needs
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@store_option("Store to show instead of the configured one.")
@click.pass_context
def ui(ctx: click.Context, port: int, host: str, store: str | None) -> None:
    """Open MLflow's own UI on the store, until Ctrl-C.

    For a store that is a server, its address is printed: the server has the UI.
    """
    uri = chosen_store(store)
    if uri.startswith(("http://", "https://")):
        from overt.stores.uri import public_name

        click.echo(public_name(uri))
        return
    _check(uri)
    ctx.exit(_serve(uri, host, _usable_port(host, port)))


def _check(uri: str) -> None:
    """Say at once what MLflow would say late, or never: it would make a new database under a misspelled name."""
    from overt.query.finding import missing_place
    from overt.stores.uri import check_installed, is_mlflow, public_name

    if not is_mlflow(uri) or uri.startswith("databricks"):
        raise ConfigurationError(
            f"MLflow's UI shows a database or a server (got {public_name(uri)}); overt import carries plain files there"
        )
    check_installed(uri)
    missing = missing_place(uri)
    if missing is not None:
        raise StoreUnavailable(f"there is nothing at {missing}, so there is nothing to show yet")


def _usable_port(host: str, port: int) -> int:
    """``port`` if it is free, or a free one for 0.

    Raises
    ------
    ConfigurationError
        When it is taken, or ``host`` is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: no wait for TIME_WAIT
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"port {port} of {host} cannot be had: {reason}. Choose another with --port"
        ) from error


def _serve(uri: str, host: str, port: int) -> int:
    """Run MLflow's server until it or the user ends it; the exit code."""
    from overt.stores.uri import public_name

    # One worker is enough for one user, and several would be restarted without end if the port were taken meanwhile.
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    environment = _DEFAULT_ENVIRONMENT | dict(os.environ) | {"MLFLOW_BACKEND_STORE_URI": uri}
    with _ending_by_signal(), _group(command, environment) as server:
        try:
            if not _has_begun(server, host, port):
                raise StoreUnavailable(f"MLflow's UI did not start (exit code {server.poll()}); its words are above")
            shown = f"[{host}]" if ":" in host else host
            click.echo(f"MLflow's UI on {public_name(uri)}: http://{shown}:{port}  (Ctrl-C ends it)")
            return abs(server.wait())
        except KeyboardInterrupt:
            return 0


def _has_begun(server: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Wait until the server takes connections; False when it ended first, or takes too long."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not listened on
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((target, port), timeout=1.0):
            return True
        time.sleep(_POLL_S)
    return False


@contextmanager
def _group(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` as a process group of its own, and leave nothing of it behind. Its words go to stderr."""
    server = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), start_new_session=True
    )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the group: politely, then surely; a second Ctrl-C makes it sure at once."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
            os.killpg(server.pid, request)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            server.wait(timeout=_GRACE_S)


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Within the block, let SIGTERM and SIGHUP unwind as Ctrl-C does, so that the server does not outlive us."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
