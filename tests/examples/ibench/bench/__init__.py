"""A downstream project that loads and generates."""
