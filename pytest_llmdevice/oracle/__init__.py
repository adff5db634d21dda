"""Says what a loaded model should be: expected placement and dtypes, reference outputs, a plain load."""
