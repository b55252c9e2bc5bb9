"""Read hostile files as weights, one by one, and print what happens to each as a table.

    python scripts/try_payloads.py FOLDER [FOLDER ...]

FOLDER holds payloads, such as ``tests/data`` and ``tests/data2`` of picklescan's repository. A
file must be refused, and reading it must not import, open or run anything. The exit code is 1 if
one is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.system.checksums import SUMS
from liteseg_plugin.weights import read_state_dict

_WATCHED = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "ctypes.")


def main() -> int:
    """Try every file, print Markdown, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", type=Path)
    args = parser.parse_args()
    paths = sorted(path for folder in args.folder for path in folder.iterdir() if path.is_file())
    actions: list[str] = []
    read_state_dict_of_nothing()  # imports what reading needs, once
    sys.addaudithook(lambda event, details: _watch(actions, event, details))
    failed = 0
    print("| File | Result |")
    print("|-|-|")
    for path in paths:
        actions.clear()
        try:
            read_state_dict(path)
            said = "**read**"
        except WeightsError as error:
            said = str(error).replace(str(path), "it").replace("refused to load it: ", "")
        expected = (f"open {path}", f"open {path.with_name(SUMS)}")
        done = [action for action in actions if action not in expected]
        if done or said == "**read**":
            failed += 1
            said += f" **{', '.join(done)}**"
        print(
            f"| `{path.parent.name}/{path.name}` | {printable(said).replace('|', chr(92) + '|')} |"
        )
    print(f"\n{len(paths) - failed} of {len(paths)} files are refused, and nothing was run.")
    return 1 if failed or not paths else 0


def read_state_dict_of_nothing() -> None:
    """Read a file that is missing."""
    try:
        read_state_dict("missing.pdparams")
    except WeightsError:
        pass


def _watch(actions: list[str], event: str, details: tuple) -> None:
    if event == "open" or event.startswith(_WATCHED):
        actions.append(f"{event} {details[0] if details else ''}")


if __name__ == "__main__":
    sys.exit(main())
