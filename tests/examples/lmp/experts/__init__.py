"""A downstream project whose models get their experts from the memory of another process."""
