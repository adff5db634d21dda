"""The exceptions of the package, free of pytest and torch so that every room can raise them."""


class LLMDeviceError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(LLMDeviceError):
    """The user asked for something that cannot be: a bad matrix, an unknown name, a target without `load`.

    The plugin turns it into one `pytest.UsageError` (exit code 4), the message being the whole report.
    """


class CheckpointUnavailable(LLMDeviceError):
    """A checkpoint cannot be had here, through no fault of the code under test: its cells are skipped."""


class CheckpointError(LLMDeviceError):
    """A checkpoint is here and is broken: its cells fail, with the cause in the first line."""


class UnsupportedByLibrary(LLMDeviceError):
    """An installed library cannot do what a cell asks: a capability to report, never a failure of the target."""
