"""The one way in for libraries that a user may not have.

``import overt`` must work with none of them installed, so each is imported where it is needed, through
:func:`require`, which turns its absence into one sentence that names the extra to install.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from overt.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"mlflow.models"``.
    extra : str
        The extra of overt that installs it, such as ``"mlflow"``.

    Raises
    ------
    MissingExtra
        When the module's top-level package is not installed. An error inside an installed library
        passes unchanged: hiding it would send the user to reinstall something that is merely broken.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if is_installed(module):
            raise
        top = module.partition(".")[0]
        raise MissingExtra(f"{top} is needed here and not installed: pip install 'overt[{extra}]'") from error


def is_installed(module: str) -> bool:
    """Whether ``module``'s top-level package can be found, without importing it."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # a module in sys.modules without a spec, such as one that a test put there
        return True


def own_version() -> str:
    """Version of overt; ``unknown`` in a checkout that was never installed."""
    try:
        return importlib.metadata.version("overt")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
