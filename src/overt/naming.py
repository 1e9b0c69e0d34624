"""Names of models, versions and aliases, as the caller gave them: what MLflow could not look up again is refused."""

from __future__ import annotations

import re

from overt.errors import ConfigurationError

_ALIAS = re.compile(r"[\w\-]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MOST_CHARACTERS = 250  # of MLflow's 256: what is derived from a name has to fit as well
_RESERVED_ALIAS = re.compile(r"latest|v?\d+", re.IGNORECASE)


def check_name(argument: str, name: object) -> None:
    """Refuse what is no text, or an empty one."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"`{argument}` must be a name (got {name!r}).")


def check_model_name(name: object, *, argument: str = "name") -> None:
    """Refuse what MLflow would make a registered model of, and then could not look up."""
    check_name(argument, name)
    if isinstance(name, str) and (len(name) > _MOST_CHARACTERS or _CONTROL.search(name) or name != name.strip()):
        raise ConfigurationError(
            f"`{argument}` must be a name of up to {_MOST_CHARACTERS} characters, without control characters and "
            f"without spaces at its ends (got {name[:300]!r})."
        )
    if isinstance(name, str) and (set(name) & set("/:") or name == "." or name.startswith("..")):
        raise ConfigurationError(
            f"`{argument}` must hold neither / nor :, nor be a path: MLflow's rule (got {name!r})."
        )
    if isinstance(name, str) and "'" in name and '"' in name:
        raise ConfigurationError(
            f"`{argument}` must not hold both kinds of quotes: MLflow cannot look it up (got {name!r})."
        )


def check_alias(alias: object) -> None:
    """MLflow's own rule, but for a number: that names a version wherever an alias may stand."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        raise ConfigurationError(
            "`alias` must be a name such as 'champion': up to 255 letters, digits, _ and -, and neither 'latest' nor "
            f"a number such as 3 or v3 (got {alias!r})."
        )


def to_version(source: object) -> str:
    """Alias or number of a version as text."""
    if isinstance(source, int) and not isinstance(source, bool):
        return str(source)
    if isinstance(source, str) and source:
        return source
    raise ConfigurationError(f"`source` must be an alias or a number of a version (got {source!r}).")
