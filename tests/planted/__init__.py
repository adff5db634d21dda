"""A correct loader, and faults of one line each that are planted in it."""
