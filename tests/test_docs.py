"""The documents name files, sections, commands and flags that exist."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
    ),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _anchors(page):
    """Name the sections of a page as GitHub does."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_to_files_and_sections(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


@each_page
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\b(?:liteseg_plugin|scripts|tests|configs)/[\w./]*\w", text)
    # NAME.py and mine.yml are for readers to make.
    kept = [name for name in named if Path(name).stem not in ("NAME", "mine")]
    assert not [name for name in kept if not (REPOSITORY / name).exists()]


def _commands(text):
    """Find the `liteseg` command lines in the code blocks of a page."""
    for block in re.findall(r"```(?:shell|bash)\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["liteseg"]:
                yield words[1:]


@pytest.fixture(scope="module")
def flags(run):
    """Read the flags of a command from its help, once."""
    known: dict[tuple[str, ...], set[str]] = {}

    def flags(*command):
        if command not in known:
            known[command] = set(re.findall(r"--\w+", run(*command, "--help").stdout))
        return known[command]

    return flags


def test_commands_and_flags_exist(flags):
    lines = [line for page in PAGES for line in _commands(page.read_text(encoding="utf-8"))]
    assert len(lines) > 20
    for name, *words in lines:
        command = (name, words[0]) if name in ("data", "weights", "autoload", "config") else (name,)
        if name != "run":
            known = flags(*command)
            if name == "launch":
                [program] = {"train", "val", "predict"}.intersection(words)
                known = known | flags(program)
            unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known
            assert not unknown, f"liteseg {' '.join(command)} does not take {unknown}"


def test_readme_lists_every_command(run):
    listed = re.findall(r"^    (\w+)", run("--help").stdout, flags=re.MULTILINE)
    table = re.search(r"## Commands\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    assert len(listed) > 15
    assert set(listed) <= set(re.findall(r"\w+", " ".join(re.findall(r"`.*?`", table.group(1)))))


def test_every_dependency_has_a_reason():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    extras = dict(setup["options.extras_require"])
    extras.pop("dev")
    lines = "\n".join([setup["options"]["install_requires"], *extras.values()]).split("\n")
    needed = {re.match(r"[\w-]+", line)[0] for line in lines if line.strip()}
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    section = page[page.index("## Dependencies") : page.index("## Fuzzing")]
    names = re.findall(r"^\| ([a-z][\w, -]+) \|", section, flags=re.MULTILINE)
    assert {name for row in names for name in row.split(", ")} == needed
