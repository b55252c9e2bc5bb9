"""The command line itself: help, versions, and errors of arguments."""

from __future__ import annotations

import argparse
import re
import sys
from unittest import mock

import pytest

from liteseg_plugin.cli import main
from liteseg_plugin.cli.flags.parser import Parser


@pytest.fixture(scope="module")
def parsers():
    """Return the parser of each command, by the words after `liteseg`."""
    with mock.patch.object(Parser, "parse_args", autospec=True) as parse_args:
        parse_args.side_effect = SystemExit
        with pytest.raises(SystemExit):
            main([])
    found = {}

    def walk(parser):
        found[parser.prog] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    walk(inner)

    walk(parse_args.call_args.args[0])
    return found


def test_help_says_what_each_flag_is_and_its_default(parsers):
    assert {"liteseg", "liteseg train", "liteseg data split"} <= set(parsers)
    for name, parser in parsers.items():
        assert parser.description, name
        shown = parser.format_help()
        for wrong in (
            "default: None",
            "default: False",
            "default: []",
            "default: )",
            "default: '')",
        ):
            assert wrong not in shown, name
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, (name, action.dest)
                assert not re.match("default", action.help), (name, action.help)
                text = parser._get_formatter()._expand_help(action)
                assert text.count("default") <= 1, (name, text)
                if action.default and action.option_strings and action.nargs != 0:
                    assert "(default: " in text or action.default == argparse.SUPPRESS, (name, text)


def test_help_writes_defaults_as_they_are_typed(parsers):
    shown = " ".join(parsers["liteseg data split"].format_help().split())
    assert "(default: 0.8 0.1 0.1)" in shown
    assert "(default: ' ')" in shown
    assert "(default: images)" in shown


@pytest.mark.parametrize(
    ("arguments", "usage", "message"),
    [
        (["infer", "--repot", "r"], "liteseg infer", "--config"),
        (
            ["val", "--config", "c", "--model_path", "m", "--repot", "r"],
            "liteseg val",
            "unrecognized arguments: --repot r; did you mean --report",
        ),
        (["data", "split", "f", "--foo"], "liteseg data split", "unrecognized arguments: --foo"),
        (["data", "foo"], "liteseg data", "invalid choice: 'foo'"),
        (
            ["launch", "--nproc_per_nod", "2", "--gpus", "0,1", "train"],
            "liteseg launch",
            "unrecognized arguments: --gpus 0,1",
        ),
        (["data", "chekc"], "liteseg data", "did you mean check?"),
        (["tran"], "liteseg", "did you mean train?"),
        (["--foo", "autoload", "status"], "liteseg", "unrecognized arguments: --foo"),
    ],
)
def test_error_shows_the_usage_of_its_own_command(capsys, arguments, usage, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: {usage} [-h]")
    assert f"\n{usage}: error: " in said
    assert message in said.splitlines()[-1]


def test_debug_of_a_command_and_of_a_kind(tmp_path):
    for command in (["compare", "a", "b"], ["data", "split", "folder"]):
        with mock.patch.object(sys, "excepthook", sys.excepthook):
            with pytest.raises(Exception, match=r"not a report|folder not found"):
                main([*command, "--debug"])
        assert main(command) == 1


def test_versions_come_without_paddle(process):
    code = (
        "import sys; from liteseg_plugin.cli import main\n"
        "try: main(['--version'])\n"
        "finally: print('paddle' in sys.modules)"
    )
    lines = process("python", "-c", code).stdout.splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["liteseg_plugin"]
    assert re.match(r"paddlepaddle(-gpu)? \d", lines[1])
    assert re.match(r"paddleseg \d", lines[2])
    assert lines[3:] == [f"python {sys.version.split()[0]}", "False"]
