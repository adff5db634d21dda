"""Runs a loaded model: on prompts, for logits, step by step with a cache, and to generate."""
