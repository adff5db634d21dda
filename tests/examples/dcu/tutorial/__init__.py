"""A downstream project that runs models on DCU cards."""
