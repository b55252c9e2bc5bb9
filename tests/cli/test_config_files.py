"""The configs that come with the plugin, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from paddleseg.cvlibs import Config

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.integration import config, config_files

REPOSITORY = Path(__file__).parents[2]
NAME = "pp_liteseg_stdc1_camvid_960x720_10k"


def test_names_are_those_of_the_files(run):
    found = json.loads(run("config", "list", "--json").stdout)["configs"]
    files = [p for p in (REPOSITORY / "configs").rglob("*.yml") if p.parent.name != "_base_"]
    assert len(files) > 10  # two files of one name would be one entry
    assert sorted(found.values()) == sorted(map(str, files))
    assert found[NAME].endswith(f"configs/pp_liteseg/{NAME}.yml")
    assert NAME in run("config", "list").stdout.split()


def test_config_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = config_files.config_files()[NAME]
    for given in (NAME, f"{NAME}.yml"):
        assert config_files.find_config(given) == expected
    assert config.load(NAME, iters=7).iters == 7


def test_a_path_that_exists_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{NAME}.yml").write_text("iters: 3\n", encoding="utf-8")
    assert config_files.find_config(f"{NAME}.yml") == Path(f"{NAME}.yml")
    # A name inside a folder is a path, never a config of the plugin's.
    assert config_files.find_config(f"configs/{NAME}.yml") == Path(f"configs/{NAME}.yml")


@pytest.mark.parametrize("given", ["pp_liteseg_stdc1_camvid_960x720_9k", f"gone/{NAME}.yml"])
def test_unknown_config_names_those_alike(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"not found: {given}.*config list.*did you mean {NAME}"):
        config.load(given)


def test_config_unlike_any_other_names_the_list():
    with pytest.raises(ConfigError, match="not found: pp_lite; `liteseg config list` prints the n"):
        config.load("pp_lite")


@pytest.mark.parametrize("name", ["pp_liteseg_stdc2_cityscapes_1024x512_scale1.0_160k", NAME])
def test_copy_is_one_file_that_paddleseg_reads_alike(name, run, tmp_path):
    copy = tmp_path / "new" / "mine.yml"
    run("config", "copy", name, copy, "--opts", "iters=12")
    text = copy.read_text(encoding="utf-8")
    assert "_base_:" not in text and "&id" not in text
    original = config.load(name, ["iters=12"]).dic
    original.pop("_base_", None)
    assert Config(str(copy)).dic == original
    assert yaml.safe_load(run("config", "show", name).stdout)["model"] == original["model"]


def test_copy_keeps_an_existing_file(run, fails, tmp_path):
    mine = tmp_path / "mine.yml"
    mine.write_text("mine", encoding="utf-8")
    assert "already exists; --overwrite" in fails("config", "copy", NAME, mine)
    assert mine.read_text(encoding="utf-8") == "mine"
    run("config", "copy", NAME, mine, "--overwrite")
    assert "PolynomialDecay" in mine.read_text(encoding="utf-8")
    assert "must end in .yml" in fails("config", "copy", NAME, tmp_path / "mine.txt")
