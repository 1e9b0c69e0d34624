"""What surrounded a run, as plain values: its parameters, code, machine, data, signature and requirements.

Nothing in this room writes, sends or changes anything, and nothing here imports a third-party library
until it is handed an object of that library. What cannot be found out is absent from the answer and never
an exception: a missing ``git`` or a broken ``__repr__`` is no reason to stop somebody's training. Text that
could carry a secret passes through :mod:`overt.capture.secrets` before it leaves.
"""
