"""The errors that a user is meant to read."""


class ConfigError(ValueError):
    """What the user asked for cannot be: one line that names it, the value got and the way out."""


class StoppedRun(RuntimeError):
    """A run that ended itself, saved, and says why."""
