from __future__ import annotations

import pytest

from liteseg_plugin import doctor


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("import os; os.abort()", "the process crashed (signal 6)"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_step_that_fails_is_the_reason_of_those_after_it(second, reason):
    outcomes = doctor._probe("print('ready')", second, "print('never')")
    assert outcomes == [("ready", ""), ("", reason), ("", reason)]


def test_process_that_crashes_at_its_end_did_not_work():
    [outcome] = doctor._probe("import atexit, os; atexit.register(os.abort); print('ready')")
    assert outcome == ("", "the process crashed (signal 6)")
