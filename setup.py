"""Puts ``configs/`` into the wheel, as ``liteseg_plugin/configs``; all else is in setup.cfg.

Editable installs hold no copy: they read the checkout's folder. With ``SOURCE_DATE_EPOCH``, two
builds of one commit are equal to the byte: setuptools does so for the wheel, and this file for the
source archive.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist


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


class ReproducibleSdist(sdist):
    """Write the archive without owners, and with the times of ``SOURCE_DATE_EPOCH``."""

    def make_archive(
        self, base_name: str, format: str, root_dir=None, base_dir=None, **owner: str | None
    ) -> str:
        """Write an archive, and return its name."""
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", 0))
        if not epoch or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, **owner)

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = epoch
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        with gzip.GzipFile(name, "wb", mtime=epoch) as packed:
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for path in (base_dir, *sorted(Path(base_dir).rglob("*"))):
                    archive.add(path, recursive=False, filter=plain)
        return name


setup(cmdclass={"build_py": BuildWithConfigs, "sdist": ReproducibleSdist})
