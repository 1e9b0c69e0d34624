"""What this process is: how it was launched, which rank it has, where its journals may lie.

Everything here is looked up when it is asked for and changes nothing, but for the ``.overt`` folder that is made.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from overt.capture.environment import variables
from overt.capture.secrets import redact, redact_argv
from overt.delivery.dispatch import dispatch
from overt.settings import cache_base, journal_base, working_directory


def launch() -> dict[str, Any]:
    """Working directory as it is; command line, script and listed variables without secrets."""
    return {
        "cwd": str(working_directory()),
        "argv": redact_argv(sys.orig_argv),
        "script": redact(_script()),
        "variables": variables(),
    }


def source_name() -> str:
    """What MLflow calls the code: a script as the command line names it, a notebook by the name of its file."""
    main = sys.modules.get("__main__")
    if "ipykernel" in sys.modules:
        notebook = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")
        if isinstance(notebook, str):
            return os.path.basename(notebook)
    script, given = _script(), sys.argv[0] if sys.argv else ""
    leads_there = os.path.normpath(working_directory() / given) == os.path.normpath(script)
    return given if leads_there else script


def _script() -> str:
    given = sys.argv[0] if sys.argv else ""
    return str(getattr(sys.modules.get("__main__"), "__file__", None) or given or "<console>")


def is_main_rank() -> bool:
    """Whether this process is the one of a distributed training that records."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if (rank := os.environ.get(variable, "")).isdigit():
            return int(rank) == 0
    return True


def usable_base(directory: str | os.PathLike[str] | None) -> Path:
    """The ``.overt`` folder, or the one in the user's cache where that cannot be written."""
    base = journal_base(directory)
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(base, os.W_OK | os.X_OK):
            gitignore = base / ".gitignore"
            if not gitignore.exists():
                gitignore.write_text("*\n", "ascii")
            return base
    except OSError:
        pass
    fallback = cache_base()
    dispatch().warn(f"{base} cannot be written, so journals go to {fallback}. To choose a place: OVERT_DIR")
    return fallback


def uncaught_error() -> BaseException | None:
    """The error that ends the script, which the interpreter leaves in ``sys``; in a notebook it may be any old one."""
    if "IPython" in sys.modules:
        return None
    return getattr(sys, "last_value", None)
