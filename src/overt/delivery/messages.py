"""What a training process and its courier say to each other: one JSON object a line, over two pipes.

A store's URI may hold credentials, so it travels here and never through a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Watch:
    """To the courier: deliver this run, and capture its surroundings first if ``launch`` is given.

    ``system_metrics`` has the courier sample the training process while the run is open.
    """

    folder: str
    store: str
    keep: bool = False
    launch: dict[str, Any] | None = None
    system_metrics: bool = False


@dataclass(frozen=True, slots=True)
class Hurry:
    """To the courier: somebody waits, for the ``number``-th time; try at once."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Alive:
    """From the courier: it has started, or is at work on something that takes its time."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """From the courier: how far a run has got.

    ``held_at`` is the number of the last :class:`Hurry` before the caller of a joined run was seen to go on, so that
    params are held back; None where none are.
    """

    key: str
    run_id: str | None
    offsets: dict[str, int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    captured: bool = True
    removed: bool = False
    held_at: int | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """From the courier: something keeps records from arriving. One ``cause`` is told to the user once.

    ``is_refusal`` says that waiting will not help.
    """

    cause: str
    text: str
    is_refusal: bool = False


Message = Watch | Hurry | Alive | Delivered | Trouble
_KINDS = {kind.__name__: kind for kind in (Watch, Hurry, Alive, Delivered, Trouble)}


def to_line(message: Message) -> bytes:
    """``message`` as a line."""
    return orjson.dumps({"kind": type(message).__name__} | asdict(message), option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes) -> Message:
    """The message in ``line``, which the other end of our own pipe wrote."""
    fields = orjson.loads(line)
    message: Message = _KINDS[fields.pop("kind")](**fields)
    return message
