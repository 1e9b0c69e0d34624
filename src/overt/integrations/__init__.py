"""Hooks into frameworks: each is a thin translation onto ``Run``, and none knows of another."""
