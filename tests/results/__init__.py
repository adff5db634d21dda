"""Tests of the results package; `making` makes runs to read, merge and compare."""
