"""Errors whose message tells a user what is wrong and what to do."""

from __future__ import annotations

import subprocess


def printable(text: object) -> str:
    r"""Return a text of a user's file for a terminal: one line without control characters.

    Control characters, and bytes of a file name that are not text, are escaped as by ``repr``.

    >>> printable("road\x1b[2J")
    'road\\x1b[2J'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def printable_lines(text: object) -> str:
    """Return what :func:`printable` does, of each line."""
    return "\n".join(map(printable, str(text).split("\n")))


def last_line(error: Exception) -> str:
    """Return the last line of a library's message."""
    return (_lines(str(error)) or [repr(error)])[-1]


def telling_line(text: str) -> str:
    """Return the last line that names an error, else the last line; empty without lines."""
    lines = _lines(text)
    telling = [line for line in lines if "Error" in line or "not support" in line]
    return (telling or lines or [""])[-1]


def last_words(process: subprocess.CompletedProcess) -> str:
    """Return the most useful line that a failed process printed, and its exit code."""
    said = telling_line(process.stderr + process.stdout) or "it printed nothing"
    return f"{said} (exit code {process.returncode})"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


class LitesegError(Exception):
    """An error whose message names the cause and what to do; shown without a traceback."""


class ConfigError(LitesegError):
    """A configuration that cannot be used."""


class DataError(LitesegError):
    """A file of a data set that cannot be used."""


class TooLargeError(DataError):
    """An image or a tensor that is larger than the limits allow."""


class WeightsError(LitesegError):
    """Weights that cannot be loaded, or not into this network."""


class ExportError(LitesegError):
    """A model that cannot be exported, or an exported folder that cannot be used."""


class DeviceError(LitesegError):
    """A device that was asked for and is not there."""


class TrainingError(LitesegError):
    """Training that cannot continue, or a checkpoint that cannot be written."""
