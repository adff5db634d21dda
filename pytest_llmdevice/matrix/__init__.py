"""Defines what to run: matrix files, cells, selectors. Pure data, without pytest or torch."""
