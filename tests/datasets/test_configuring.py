"""A config made from what a check measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import paddle
import pytest
import yaml
from paddleseg.cvlibs import Config

from liteseg_plugin.datasets import check, configuring
from liteseg_plugin.datasets.check.report import Size
from liteseg_plugin.errors import DataError
from liteseg_plugin.integration.config import ConfigBuilder, load

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"
CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


@pytest.fixture(scope="module")
def measured(toy):
    """The small data set, and the report of its check."""
    data = check.from_folder(toy.root)
    return data, check.check(data, progress=False)


@pytest.fixture()
def planned(measured):
    """Return a function that plans, for images of another size or number."""
    data, report = measured

    def planned(size_wh=None, train=None, **choices):
        if size_wh:
            report_ = replace(report, sizes=[Size(*size_wh, 1)])
        else:
            report_ = report
        if train:
            report_ = replace(report_, splits={**report_.splits, "train": train})
        return configuring.plan(report_, data, **choices)

    return planned


def built(plan, folder):
    path = folder / "mine.yml"
    path.write_text(plan.text(), encoding="utf-8")
    return Config(str(path)).dic, ConfigBuilder(load(str(path)))


def test_config_for_camvids_images_is_the_recipe_from_random_weights(planned, tmp_path):
    recipe = load(str(RECIPES / "camvid_480x360_scratch.yml")).dic
    config, _ = built(planned((480, 360), 367), tmp_path)
    assert config["optimizer"] == recipe["optimizer"]
    assert config["lr_scheduler"] == recipe["lr_scheduler"]
    assert config["model"] == recipe["model"]
    assert config["loss"]["coef"] == recipe["loss"]["coef"]
    crop = {"label_padding_value": 255}  # PaddleSeg's default
    for transform, expected in zip(
        config["train_dataset"]["transforms"], recipe["train_dataset"]["transforms"]
    ):
        assert transform in (expected, {**expected, **crop})
    assert (config["total_batch_size"], config["iters"]) == (recipe["total_batch_size"], 1835)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="no CamVid frames beside the checkout")
def test_config_for_camvid_has_the_weights_of_the_recipe(tmp_path):
    data = check.from_folder(CAMVID)
    plan = configuring.plan(check.check(data, progress=False), data)
    config, _ = built(plan, tmp_path)
    recipe = load(str(RECIPES / "camvid_480x360_scratch.yml")).dic
    assert config["loss"]["types"] == [
        {**loss, "ignore_index": 255} for loss in recipe["loss"]["types"]
    ]


def test_config_trains_and_weighs_what_was_measured(planned, measured, tmp_path):
    plan = planned()
    config, builder = built(plan, tmp_path)
    report = measured[1]
    weights = config["loss"]["types"][0]["weight"]
    assert weights == [entry.weight for entry in report.classes]
    assert config["model"]["num_classes"] == len(weights) == report.num_classes
    assert config["iters"] == 500 and config["batch_size"] == 8
    logits = builder.model(paddle.rand([2, 3, 64, 96]))
    label = paddle.randint(0, 11, [2, 64, 96])
    losses = builder.loss
    assert len(logits) == len(losses["coef"]) == len(losses["types"])
    assert all(float(loss(logit, label)) > 0 for loss, logit in zip(losses["types"], logits))
    assert len(builder.train_dataset) == 8 and len(builder.val_dataset) == 3
    image = builder.train_dataset[0]["img"]
    assert image.shape == (3, plan.crop_wh[1], plan.crop_wh[0]) == (3, 64, 80)


@pytest.mark.parametrize(
    ("size_wh", "train", "crop_wh", "scales", "batch"),
    [
        ((480, 360), 100, (320, 240), (0.75, 1.75), 8),
        ((2048, 1024), 100, (1024, 512), (0.5, 1.5), 4),
        ((6000, 4000), 100, (880, 592), (0.25, 1.25), 4),
        ((40, 30), 3, (32, 16), (1.0, 2.0), 3),
    ],
)
def test_crop_scales_and_batch_follow_from_size_and_number(
    size_wh, train, crop_wh, scales, batch, planned
):
    plan = planned(size_wh, train)
    assert (plan.crop_wh, plan.scales, plan.batch_size) == (crop_wh, scales, batch)
    smallest = [round(side * scales[0]) for side in size_wh]
    assert all(crop <= side + 1 for crop, side in zip(crop_wh, smallest))


def test_released_weights_take_the_released_recipe(planned, build_network, tmp_path, capfd):
    weights = tmp_path / 'of "others".pdparams'
    paddle.save(build_network("B", num_classes=19).state_dict(), str(weights))
    plan = planned(backbone="STDC2", weights=str(weights), crop_wh=(64, 48), batch_size=2, iters=7)
    config, builder = built(plan, tmp_path)
    assert config["optimizer"]["type"] == "SGD" and config["iters"] == 7
    assert [loss["min_kept"] for loss in config["loss"]["types"]] == [2 * 64 * 48 // 16] * 3
    assert "Loaded 367 of 370 arrays" in (builder.model and capfd.readouterr().out)


def test_budget_in_minutes_gives_iterations(planned):
    plan = planned().within(10, 1.5)
    assert plan.iters == 400 and "10 minutes at 1.50 s each here; 400.0 passes" in plan.text()
    with pytest.raises(ValueError, match=r"--minutes 0.01: one iteration takes 1.5 s"):
        planned().within(0.01, 1.5)


def test_data_set_that_cannot_be_trained_on_is_refused(planned, measured):
    data, report = measured
    wrong = replace(report, errors=[check.Finding("size", "train", "a", "b", "sizes differ")])
    with pytest.raises(DataError, match=r"has 1 errors, the first: sizes differ; correct them"):
        configuring.plan(wrong, data)
    with pytest.raises(DataError, match="has no val list"):
        configuring.plan(replace(report, splits={"train": 8}), data)
    with pytest.raises(DataError, match=r"weights not found: gone.pdparams"):
        planned(weights="gone.pdparams")
    with pytest.raises(ValueError, match="--batch_size must be positive, got 0"):
        planned(batch_size=0)


def test_command_writes_a_config_that_trains(run, fails, toy, tmp_path):
    path = tmp_path / "mine.yml"
    command = ("data", "config", toy.root, "--save", path)
    choices = ("--crop", 64, 48, "--batch_size", 2, "--minutes", 0.5, "--device", "cpu")
    document = json.loads(run(*command, *choices, "--json").stdout)
    assert document["crop_wh"] == [64, 48] and document["iters"] >= 1
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config["iters"] == document["iters"] and "minutes at" in document["budget"]
    assert "already exists; --overwrite" in fails(*command)
    trained = run(
        *("train", "--config", path, "--device", "cpu", "--iters", 1, "--log_iters", 1),
        *("--save_dir", tmp_path / "out", "--do_eval"),
    )
    assert "mIoU" in trained.text
