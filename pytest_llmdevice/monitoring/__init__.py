"""Observes a load or a generation: what it changes in the process and the model, what it runs, and what it uses."""
