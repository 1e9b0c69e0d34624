"""The tests. Unit tests mirror src; the other folders are named for what they prove."""
