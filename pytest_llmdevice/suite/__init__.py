"""Contains the ready-made tests: `pytest --llm-matrix --pyargs pytest_llmdevice.suite`."""
