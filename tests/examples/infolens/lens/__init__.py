"""A downstream project whose loader chooses its strategy by device."""
