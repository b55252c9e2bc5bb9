"""What is distributed is complete, and works away from the checkout."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import blocks, check_printed

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("liteseg_plugin", "configs", "constraints", "docs", "scripts", "tests")
FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in")
BUILD_FILES = ("pyproject.toml", "setup.cfg", "setup.py")

pytestmark = pytest.mark.slow


def _files(root):
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and ".egg-info" not in str(path)
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Copy what a commit holds, without what other tests may be writing."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", "*.py[co]")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in (*FILES, *BUILD_FILES):
        shutil.copy(REPOSITORY / name, source)
    return source


@pytest.fixture(scope="module")
def sdist(process, source, tmp_path_factory):
    """Make the source distribution, and unpack it."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    process("python", "-c", code, cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder)
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def installed(process, sdist, tmp_path_factory):
    """Build what a wheel of the source distribution holds, into an empty folder."""
    site = tmp_path_factory.mktemp("site")
    process("python", "setup.py", "build_py", "--build-lib", site, cwd=sdist)
    return site


def test_source_distribution_is_complete(source, sdist):
    assert _files(source) <= _files(sdist)


def test_wheel_holds_the_package_and_the_configs_and_nothing_else(source, installed):
    package = {name for name in _files(source) if name.startswith("liteseg_plugin/")}
    assert {"liteseg_plugin/py.typed", "liteseg_plugin/visualization/templates/base.html"} < package
    configs = {f"liteseg_plugin/{name}" for name in _files(source) if name.startswith("configs/")}
    assert len(configs) > 15
    assert _files(installed) == package | configs


def test_two_builds_are_equal_to_the_byte(process, source, tmp_path):
    """Of the same files, with other times, in folders of other names."""
    pytest.importorskip("setuptools.command.bdist_wheel", reason="setuptools is older than 70.1")
    code = "from setuptools import build_meta as b; b.build_sdist({0!r}); b.build_wheel({0!r})"
    found = []
    for number in range(2):
        folder, built = tmp_path / f"source{number}", tmp_path / f"built{number}"
        shutil.copytree(source, folder, copy_function=shutil.copyfile)  # without times
        built.mkdir()
        epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
        process("python", "-c", code.format(str(built)), cwd=folder, **epoch)
        found.append({path.name: path.read_bytes() for path in built.iterdir()})
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_installed_package_works_in_an_empty_folder(process, installed, tmp_path):
    def liteseg(*command):
        # `installed` before this environment's editable install of the checkout.
        return process(
            *("python", "-m", "liteseg_plugin", *command), cwd=tmp_path, PYTHONPATH=str(installed)
        ).stdout

    where = process(
        *("python", "-c", "import liteseg_plugin; print(liteseg_plugin.__file__)"),
        cwd=tmp_path,
        PYTHONPATH=str(installed),
    ).stdout
    assert Path(where.strip()).parent == installed / "liteseg_plugin"
    assert "doctor" in liteseg("--help")
    counts = ("--train", 4, "--val", 2, "--test", 1, "--size", 96, 64)
    liteseg("data", "toy", "street", *counts)
    liteseg("data", "check", "street", "--html", "page.html")
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")
    name = "pp_liteseg_stdc1_toy_street_256x192"
    assert name in liteseg("config", "list").split()
    liteseg("config", "copy", name, "mine.yml")
    data = [
        f"{part}_dataset.{key}={value}"
        for part in ("train", "val")
        for key, value in (("dataset_root", "street"), (f"{part}_path", f"street/{part}.txt"))
    ]
    found = [
        json.loads(liteseg("data", "check", "--config", config, "--json", "--opts", *data))
        for config in (name, f"{name}.yml", "mine.yml")
    ]
    assert [report["splits"] for report in found] == [{"train": 4, "val": 2}] * 3


OWN_IMAGES = REPOSITORY / "docs" / "your_own_images.md"
SMALL = {  # flags that make a command quick; the last of two equal flags counts
    "toy": "--train 24 --val 3 --test 3 --size 96 72",
    "config": "--iters 6 --batch_size 2",
    "train": "--save_interval 3",
}
RUN_PAGE = """
import json, os, shlex, sys

os.dup2(1, 2)
import liteseg_plugin
from liteseg_plugin.cli import main

print(liteseg_plugin.__file__, flush=True)
for language, block in json.loads(sys.argv[1]):
    print("=== block", flush=True)
    if language == "python":
        exec(block, {})
    for line in block.splitlines() if language == "shell" else ():
        code = main(shlex.split(line)[1:])
        if code:
            sys.exit(code)
"""


@pytest.mark.skipif(
    not all(map(find_spec, ("paddle2onnx", "onnxruntime", "openvino"))),
    reason="the page shows the extras onnx and openvino, which scripts/test.sh installs",
)
def test_page_for_your_own_images_runs_from_a_wheel_in_an_empty_folder(
    process, installed, tmp_path
):
    found = blocks(OWN_IMAGES.read_text(encoding="utf-8"))
    names, small = [], []
    for language, block in found:
        if language == "shell":
            _, first, second, *_ = block.split()
            names.append(second if first == "data" else first)
            block = f"{block.strip()} {SMALL.get(names[-1], '')}"
        small.append((language, block))
    assert names == ["toy", "import", "check", "config", "train", "export", "infer"]
    said = process(
        *("python", "-c", RUN_PAGE, json.dumps(small)), cwd=tmp_path, PYTHONPATH=str(installed)
    ).stdout
    where, *printed = said.split("=== block\n")
    assert Path(where.strip()).parent == installed / "liteseg_plugin"
    shown = [number for number, (language, _) in enumerate(found) if language == "text"]
    assert len(shown) == 5
    for number in shown:
        check_printed(printed[number - 1], found[number][1])
    for name in ("check.html", "mine.yml", "exported/model.onnx", "result/legend.png"):
        assert (tmp_path / name).stat().st_size > 1000, name
    for folder in ("added_prediction", "pseudo_color_prediction", "polygons"):
        assert len(list((tmp_path / "result" / folder).rglob("test_*"))) == 3
    for picture in re.findall(r"!\[.+\]\((.+)\)", OWN_IMAGES.read_text(encoding="utf-8")):
        assert (OWN_IMAGES.parent / picture).stat().st_size < 60_000, picture
