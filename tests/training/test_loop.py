"""Our loop against PaddleSeg's, in one process: the same losses, learning rates and weights."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddleseg.cvlibs import Config, SegBuilder
from paddleseg.utils import utils

from liteseg_plugin import activate
from liteseg_plugin.training import loop
from liteseg_plugin.training.loop import Settings


@pytest.fixture(scope="module")
def config(toy, tmp_path_factory):
    """Eight small images in batches of three: an epoch has two batches and leaves two images."""
    return toy.config(
        tmp_path_factory.mktemp("loop"),
        batch_size=3,
        train_dataset__transforms=[
            {"type": "RandomPaddingCrop", "crop_size": [64, 64]},
            {"type": "RandomHorizontalFlip"},
            {"type": "RandomDistort", "brightness_range": 0.5, "brightness_prob": 0.5},
            {"type": "Normalize"},
        ],
    )


@pytest.fixture(scope="module")
def train(config):
    """Train with one of the two loops; return what each step was and the trained weights."""
    activate()

    def train(which, save_dir, iters=5, evaluate=False, optimizer=None, **options):
        builder = SegBuilder(Config(str(config)))
        builder.config.dic["iters"] = iters
        if optimizer:
            builder.config.dic["optimizer"] = optimizer
        utils.set_seed(7)
        model = builder.model
        parts = (model, builder.train_dataset)
        common = {"iters": iters, "batch_size": 3, "log_iters": 1, "save_dir": str(save_dir)}
        common.update(options)
        if which == "paddleseg":
            import_module("paddleseg.core").train(
                *parts,
                val_dataset=builder.val_dataset if evaluate else None,
                optimizer=builder.optimizer,
                losses=builder.loss,
                **common,
            )
        else:
            loop.train(
                model,
                builder.optimizer,
                builder.loss,
                parts[1],
                Settings(**common),
                builder.val_dataset if evaluate else None,
            )
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    return train


def steps(text: str) -> list[str]:
    return re.findall(r"\[TRAIN\] (epoch.*?), batch_cost", text)


def evaluations(text: str) -> list[str]:
    return re.findall(r"\[EVAL\] #.*|The .*saved at iter \d+", text)


def tree(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".json", ".pdstates")
    }


def test_steps_are_those_of_paddleseg_bit_for_bit(train, tmp_path, capfd):
    said, weights = {}, {}
    for which in ("paddleseg", "ours"):
        weights[which] = train(
            which, tmp_path / which, evaluate=True, use_ema=True, save_interval=2
        )
        said[which] = capfd.readouterr().out
    assert len(steps(said["ours"])) == 5
    assert steps(said["ours"]) == steps(said["paddleseg"])
    assert len(evaluations(said["ours"])) == 12
    assert evaluations(said["ours"]) == evaluations(said["paddleseg"])
    for name, value in weights["ours"].items():  # counting operators adds some to PaddleSeg's
        np.testing.assert_array_equal(weights["paddleseg"][name], value, err_msg=name)
    assert tree(tmp_path / "ours") == tree(tmp_path / "paddleseg")
    for name in ("iter_5/model.pdparams", "iter_5/model.pdopt", "iter_5/ema_model.pdparams"):
        ours, theirs = (paddle.load(str(tmp_path / w / name)) for w in ("ours", "paddleseg"))
        theirs = [v for v in theirs.values() if isinstance(v, paddle.Tensor)]
        ours = [v for v in ours.values() if isinstance(v, paddle.Tensor)]
        assert len(ours) == len(theirs) > 100
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(ours, theirs))
