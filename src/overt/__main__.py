"""``python -m overt`` is ``overt``, for where the command itself is not on the path."""

from __future__ import annotations

from overt.cli import main

if __name__ == "__main__":
    main()
