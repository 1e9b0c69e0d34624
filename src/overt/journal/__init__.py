"""Durable now: a run is a folder of append-only files, and whatever is in them survives the process that wrote it."""
