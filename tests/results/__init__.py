"""Tests of the results package; `builder` makes runs to read, merge and compare."""
