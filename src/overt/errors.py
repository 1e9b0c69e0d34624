"""Every error and warning of overt's own, so that one ``except`` clause can name them all.

::

    OvertError (Exception)
    ├── ConfigurationError (ValueError)   a setting that cannot work: raised before anything is recorded
    ├── RecordError (TypeError)           a value that cannot be recorded: raised by the call that was given it
    ├── RunNotFound (LookupError)         no run, or more than one, answers to the name given
    ├── ArtifactNotFound (LookupError)    the run has no file at that path
    ├── ModelNotFound (LookupError)       no model or version answers to the name given
    ├── PromotionRefused (ValueError)     the version is not better, or nobody can tell
    ├── ModelRefused (ValueError)         a model's files are not what was recorded, or would run code
    ├── NotReproducible (RuntimeError)    a run's code cannot be rebuilt here
    ├── MissingExtra (ImportError)        an optional library is needed and absent
    ├── JournalError (OSError)            a journal that cannot be read or written
    └── StoreError
        ├── StoreUnavailable (ConnectionError)   try again later: nothing is wrong with the record
        └── StoreRejected (ValueError)           do not try again: the store refuses this record

    OvertWarning (UserWarning)            tracking is in trouble; training goes on

Each error has a builtin as second base, so code that knows nothing of overt still catches it.
"""

from __future__ import annotations


class OvertError(Exception):
    """Root of everything that overt raises."""


class ConfigurationError(OvertError, ValueError):
    """A setting cannot work; the message says what was expected, what came and what to do."""


class RecordError(OvertError, TypeError):
    """A value cannot be recorded; the message names the call and the value."""


class RunNotFound(OvertError, LookupError):
    """No run, or more than one, answers to the name that was given."""


class ArtifactNotFound(OvertError, LookupError):
    """The run has no file at the path that was asked for."""


class ModelNotFound(OvertError, LookupError):
    """No model, version or alias answers to the name that was given."""


class PromotionRefused(OvertError, ValueError):
    """An alias stays where it is: the version is not better, or nobody can tell; the message gives the numbers."""


class ModelRefused(OvertError, ValueError):
    """A model is not loaded: its files are not those that were recorded, or loading them would run code."""


class NotReproducible(OvertError, RuntimeError):
    """A run's code cannot be rebuilt here: the message says what is missing and where it may be had."""


class MissingExtra(OvertError, ImportError):
    """An optional library is absent; the message names the extra that brings it."""


class JournalError(OvertError, OSError):
    """A journal cannot be read or written at all."""


class StoreError(OvertError):
    """A store did not take a record."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store is away, slow or not permitting: the same call may succeed later."""


class StoreRejected(StoreError, ValueError):
    """The store refuses this record for good; ``record`` is the culprit where it is known."""

    def __init__(self, message: str, *, record: object = None) -> None:
        super().__init__(message)
        self.record = record


class OvertWarning(UserWarning):
    """Tracking is in trouble. Training goes on, and nothing that was recorded is lost."""
