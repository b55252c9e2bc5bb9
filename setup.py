"""Puts ``configs/`` into the wheel, as ``liteseg_plugin/configs``; all else is in setup.cfg.

Editable installs hold no copy: they read the checkout's folder.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy the configs beside the modules."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        if not self.editable_mode:
            for source, target in self._configs().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: int = 1) -> list:
        """Return the files that a wheel holds."""
        outputs = super().get_outputs(include_bytecode)
        return [*outputs, *map(str, self._configs().values())]

    def _configs(self) -> dict[Path, Path]:
        folder = Path(self.build_lib, "liteseg_plugin")
        return {path: folder / path for path in sorted(Path("configs").rglob("*.yml"))}


setup(cmdclass={"build_py": BuildWithConfigs})
