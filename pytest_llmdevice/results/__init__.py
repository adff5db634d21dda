"""What a run learned, kept as JSON lines: writing, reading, uniting, comparing. Neither pytest nor torch."""
