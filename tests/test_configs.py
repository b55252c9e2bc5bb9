"""Every configuration: parsed by PaddleSeg, its values those of the released recipes, run."""

from __future__ import annotations

from pathlib import Path

import paddle
import pytest
import yaml
from paddleseg.cvlibs import Config, SegBuilder

FOLDER = Path(__file__).parents[1] / "configs" / "pp_liteseg"
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.yml"))
CITYSCAPES = [name for name in CONFIGS if "cityscapes" in name]
CAMVID = [name for name in CONFIGS if "camvid" in name]
URL = "https://bj.bcebos.com/paddleseg/dygraph/PP_STDCNet{}.tar.gz"


def read(name: str) -> dict:
    return Config(str(FOLDER / f"{name}.yml")).dic


def transforms(config: dict) -> dict[str, dict]:
    return {t["type"]: t for t in config["train_dataset"]["transforms"]}


def test_the_released_configurations_are_all_there():
    assert len(CITYSCAPES) == 6
    assert len(CAMVID) == 4
    assert {"pp_liteseg_stdc1_custom", "pp_liteseg_stdc1_toy_street_256x192"} < set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds_and_runs_with_one_loss_for_each_head(name):
    config = Config(str(FOLDER / f"{name}.yml"), opts=["model.backbone.pretrained=None"])
    # The data sets are not here; the model's number of classes says what they hold.
    model = SegBuilder(config).build_component(config.model_cfg)
    assert type(model).__module__ == "liteseg_plugin.models.pp_liteseg"
    model.train()
    logits = model(paddle.rand([2, 3, 64, 96]))
    losses = SegBuilder(config).build_component
    types = [losses(loss) for loss in config.loss_cfg["types"]]
    assert len(types) == len(config.loss_cfg["coef"]) == len(logits)
    label = paddle.randint(0, config.model_cfg["num_classes"], [2, 64, 96])
    for loss, logit in zip(types, logits):
        assert type(loss).__module__ == "liteseg_plugin.losses.ohem"
        assert logit.shape == [2, config.model_cfg["num_classes"], 64, 96]
        assert float(loss(logit, label)) > 0
    assert SegBuilder(config).val_transforms


def test_recipes_train_from_random_weights_and_are_not_mixed_with_the_released_ones():
    recipes = sorted(FOLDER.with_name("recipes").glob("*.yml"))
    assert {path.stem for path in recipes} >= {"camvid_480x360_released", "camvid_480x360_scratch"}
    for path in FOLDER.glob("*.yml"):
        assert "recipes" not in str(yaml.safe_load(path.read_text(encoding="utf-8")).get("_base_"))
    for path in recipes:
        builder = SegBuilder(Config(str(path)))
        losses = builder.loss
        logits = builder.model(paddle.rand([2, 3, 64, 96]))
        label = paddle.randint(0, 11, [2, 64, 96])
        parts = [loss(logit, label) for loss, logit in zip(losses["types"], logits)]
        assert len(losses["coef"]) == len(parts) == 3
        assert all(float(part) > 0 for part in parts)
        assert builder.optimizer.get_lr() > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_at_most_three_levels(name):
    def depth(path: Path) -> int:
        bases = yaml.safe_load(path.read_text(encoding="utf-8")).get("_base_", [])
        bases = [bases] if isinstance(bases, str) else bases
        return 1 + max((depth(path.parent / base) for base in bases), default=0)

    assert depth(FOLDER / f"{name}.yml") <= 3


@pytest.mark.parametrize("name", CITYSCAPES)
def test_cityscapes_recipe(name):
    config = read(name)
    scale = float(name.split("scale")[1].split("_")[0])
    assert (config["batch_size"], config["iters"]) == (4, 160_000)
    assert config["train_dataset"]["dataset_root"] == "data/cityscapes"
    assert config["test_config"] == {"aug_eval": True, "scales": scale}
    step = transforms(config)["ResizeStepScaling"]
    values = [step[f"{k}_factor"] for k in ("min_scale", "max_scale")] + [step["scale_step_size"]]
    assert values == ([0.5, 2.0, 0.25] if scale == 1 else [0.125, 1.5, 0.125])
    assert transforms(config)["RandomPaddingCrop"]["crop_size"] == [1024, 512]
    check_schedule(config, 0.005, 1000)
    assert [loss["min_kept"] for loss in config["loss"]["types"]] == [130_000] * 3
    check_model(name, config, 19)


@pytest.mark.parametrize("name", CAMVID)
def test_camvid_recipe(name):
    config = read(name)
    assert (config["batch_size"], config["iters"]) == (6, 10_000)
    split = "test" if name.endswith("for_test") else "val"
    assert config["val_dataset"]["val_path"] == f"data/camvid/{split}.txt"
    assert config["train_dataset"]["train_path"] == "data/camvid/train.txt"
    assert "test_config" not in config
    step = transforms(config)["ResizeStepScaling"]
    values = [step[f"{k}_factor"] for k in ("min_scale", "max_scale")] + [step["scale_step_size"]]
    assert values == [0.5, 2.5, 0.25]
    assert transforms(config)["RandomPaddingCrop"]["crop_size"] == [960, 720]
    check_schedule(config, 0.01, 200)
    assert [loss["min_kept"] for loss in config["loss"]["types"]] == [250_000] * 3
    check_model(name, config, 11)


def check_schedule(config: dict, rate: float, warmup: int) -> None:
    assert config["optimizer"] == {"type": "SGD", "momentum": 0.9, "weight_decay": 5e-4}
    assert config["lr_scheduler"] == {
        "type": "PolynomialDecay",
        "learning_rate": rate,
        "end_lr": 0,
        "power": 0.9,
        "warmup_iters": warmup,
        "warmup_start_lr": 1e-5,
    }
    distort = transforms(config)["RandomDistort"]
    assert {v for k, v in distort.items() if k != "type"} == {0.5}
    assert list(transforms(config))[-1] == "Normalize"
    assert config["loss"]["coef"] == [1, 1, 1]


def check_model(name: str, config: dict, classes: int) -> None:
    tiny = "stdc1" in name
    model = config["model"]
    assert model["num_classes"] == classes
    assert model["backbone"] == {
        "type": "STDC1" if tiny else "STDC2",
        "pretrained": URL.format(1 if tiny else 2),
    }
    widths = {k: v for k, v in model.items() if k.endswith("chs")}
    expected = {"arm_out_chs": [32, 64, 128], "seg_head_inter_chs": [32, 64, 64]}
    assert widths == (expected if tiny else {})
