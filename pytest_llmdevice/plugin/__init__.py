"""Contains all code that knows pytest: options, fixtures, parametrization, and the plugin objects of a run."""

from __future__ import annotations

# For `-p pytest_llmdevice.plugin`, where entry points are not loaded: this was the plugin's module before.
pytest_plugins = ("pytest_llmdevice.plugin.entry",)
