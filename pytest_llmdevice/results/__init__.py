"""Keeps what a run learned as JSON lines: writes, reads, merges and compares it, without pytest and torch."""
