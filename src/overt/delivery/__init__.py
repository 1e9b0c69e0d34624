"""Delivered later: journals become runs in a store, by a child process, by ``overt sync``, or in this process."""
