"""What went wrong, in a sentence for the person who can mend it."""

from __future__ import annotations


class LitesegError(Exception):
    """An error whose message names the thing and the way out; it is shown without a traceback."""


class ConfigError(LitesegError):
    """A configuration that cannot be used."""


class DataError(LitesegError):
    """A file of a data set that cannot be used."""


class WeightsError(LitesegError):
    """Weights that cannot be loaded, or not into this network."""


class ExportError(LitesegError):
    """A model that cannot be exported, or an exported folder that cannot be used."""


class TrainingError(LitesegError):
    """Training that cannot go on, or a checkpoint that cannot be written."""
