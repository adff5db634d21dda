"""Loads a cell with the code under test or with plain transformers: targets, strategies, quantization."""
