"""What a command prints: JSON or text, errors, and none of Paddle's noise."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

_NOISE = (
    "No ccache found",  # at each import
    "When training, we now always track global mean",  # in each training
    "There are some unused values in state_dict",  # at each resume with a warm-up
    r"The Attr\(force_cpu\) of Op",  # at each export, on Paddle 2.6
    r"\s*Non compatible API",  # of torch's functions, on Paddle 3.2
)


def ignore_noise() -> None:
    """Silence what Paddle tells its developers, and what is as intended here."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors of Paddle's C++ stay


@contextlib.contextmanager
def kept_for_json() -> Iterator[None]:
    """Keep standard output for the JSON document; logs and output of Paddle's C++ go to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def is_unread() -> bool:
    """Tell whether the reader of standard output has ended; if so, discard what is buffered."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


def report(error: Exception, command: str) -> int:
    """Tell the user of an error in one line; return the exit code."""
    from liteseg_plugin.errors import LitesegError, printable_lines

    if command == "run" and not isinstance(error, LitesegError):
        raise error  # a script's own error: its traceback says where
    message = str(error)
    if not isinstance(error, (LitesegError, OSError, ValueError)):  # these say what is wrong
        message = f"{type(error).__name__}: {error}\n(--debug shows the traceback)"
    print(f"error: {printable_lines(message)}", file=sys.stderr)
    return 1
