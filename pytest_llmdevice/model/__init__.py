"""Reads the parts of a loaded model: wrappers, tensor names, device map, weights, KV caches, dtypes."""
