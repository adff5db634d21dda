"""Loaders with bugs that people shipped, each beside its correct twin."""
