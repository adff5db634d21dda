"""Tests of the results room; `making` makes runs to read, merge and compare."""
