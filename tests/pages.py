"""Pages of docs/ whose commands a test runs: their blocks, and what these print."""

from __future__ import annotations

import re


def blocks(text):
    """Return language and content of each block of code."""
    return re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL)


def masked(text):
    """Return lines without times and numbers, which differ between runs."""
    text = re.sub(r"^[\d-]+ [\d:]+ \[INFO\]\s*", "", text, flags=re.MULTILINE)
    lines = (re.sub(r"\d[\d.,:]*", "N", line) for line in text.splitlines())
    return [" ".join(line.split()) for line in lines]


def check_printed(printed, block):
    """Check that the lines of a block were printed, in this order."""
    lines = iter(masked(printed))
    for expected in masked(block):
        assert expected in lines, f"{expected!r} is not printed, or not in this order"
