from __future__ import annotations

import subprocess

from liteseg_plugin.system.processes import python_command


def test_current_folder_is_not_searched_for_modules(tmp_path):
    (tmp_path / "numpy.py").write_text("print('hijacked')")
    command = python_command("import numpy, sys; print(sys.argv[1:], numpy.ones(1).sum())", "a b")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "['a b'] 1.0\n"
