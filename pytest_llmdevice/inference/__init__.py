"""Running a loaded model: prompts, logits, step by step, and whole generations."""
