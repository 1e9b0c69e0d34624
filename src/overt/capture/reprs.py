"""A text for any object that is the same in every process, and that no object can prevent.

``repr`` alone gives neither: the default one holds a memory address, so two identical runs would look different, and a
user's own may raise. Everything in this room that must name an unknown object asks here.
"""

from __future__ import annotations

import re

# " at 0x7f…" of object.__repr__, " id='140…'" of unittest.mock, "(…, started 140…)" of threading.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='[0-9]+'|(?<=, started) (?:daemon )?[0-9]+")
_LINE_BREAK = re.compile(r"\s*\n\s*")  # scikit-learn wraps its reprs


def stable_repr(value: object) -> str:
    """``repr(value)`` on one line, without memory addresses; ``<Foo: no repr (ValueError)>`` where it raises."""
    try:
        return _LINE_BREAK.sub(" ", _ADDRESS.sub("", repr(value)))
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<{type(value).__name__}: no repr ({type(error).__name__})>"


def qualified_name(value: object) -> str | None:
    """``module.qualname`` of a class or function, bare for builtins; None for what has no such name."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    module = getattr(value, "__module__", None)
    return name if not isinstance(module, str) or module == "builtins" else f"{module}.{name}"
