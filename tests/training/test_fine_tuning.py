"""Starting from other weights, freezing parts, and learning rates by part, through a config."""

from __future__ import annotations

import re

import numpy as np
import paddle
import pytest

from liteseg_plugin.errors import ConfigError
from liteseg_plugin.integration.config import ConfigBuilder, load


@pytest.fixture
def build(toy, tmp_path):
    """Return a function that builds what a config with changes names."""

    def build(**changes):
        return ConfigBuilder(load(str(toy.config(tmp_path, **changes))))

    return build


def step(builder):
    """Make one step; return how far each parameter and batch statistic moved at most."""
    model, optimizer = builder.model, builder.optimizer
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    model.train()
    sum(logit.square().mean() for logit in model(paddle.rand([2, 3, 64, 64]))).backward()
    optimizer.step()
    after = model.state_dict()
    return {name: float(np.abs(after[name].numpy() - was).max()) for name, was in before.items()}


def test_weights_of_other_classes_load_but_for_the_heads(build, build_network, tmp_path, capfd):
    path = tmp_path / "model.pdparams"
    nineteen = build_network("T", num_classes=19)
    paddle.save(nineteen.state_dict(), str(path))
    model = build(model__pretrained=str(path)).model
    said = capfd.readouterr().out
    assert re.search(
        r"model\.pdparams has 247 of the 250 arrays of PPLiteSeg; the others start from random "
        r"weights:\s+3 of another shape \(other classes\?\): seg_heads\.0\.conv_out\.weight "
        r"\[19, 32, 1, 1\] instead of \[11, 32, 1, 1\], seg_heads\.1",
        said,
    )
    for name, tensor in nineteen.state_dict().items():
        if not name.endswith("conv_out.weight") or "seg_heads" not in name:
            np.testing.assert_array_equal(model.state_dict()[name].numpy(), tensor.numpy(), name)


def test_frozen_parts_stay_as_they_are(build):
    moved = step(build(model__frozen=["backbone", "seg_heads.1"]))
    frozen = [name for name in moved if name.startswith(("backbone.", "seg_heads.1."))]
    assert len(frozen) > 150
    assert all(moved[name] == 0 for name in frozen)
    trained = [name for name in moved if name not in frozen]
    assert any(moved[name] > 0 for name in trained if name.endswith("_mean"))
    assert all(moved[name] > 0 for name in trained if name.endswith("conv_out.weight"))


def test_frozen_parts_are_frozen_after_evaluation_too(build):
    model = build(model__frozen=["backbone.features.0"]).model
    for _ in range(2):
        model.train()
        training = {name: part.training for name, part in model.named_sublayers()}
        model.eval()
    assert not training["backbone.features.0.bn"]
    assert training["backbone.features.1.bn"]
    assert training["ppseg_head"]


def test_unknown_frozen_part_lists_those_there_are(build):
    with pytest.raises(ConfigError, match=r"no part is named 'backbon'; parts are .*'backbone'"):
        _ = build(model__frozen=["backbon"]).model
    with pytest.raises(ConfigError, match=r"frozen must be a list of names, such as \[backbone\]"):
        _ = build(model__frozen="backbone").model


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_rate_by_part_is_the_common_one_times_its_factor(build, optimizer):
    """Adam's first step is the learning rate; for SGD it is compared with equal rates."""
    groups = [
        {"name": "backbone", "lr_mult": 0.1, "weight_decay_mult": 0.0},
        {"name": "seg_heads", "lr_mult": 10.0},
    ]
    settings = {"_inherited_": False, "type": optimizer, "weight_decay": 0.0}
    moved = {}
    for name, custom in (("equal", {}), ("by part", {"custom_cfg": groups})):
        paddle.seed(1)
        moved[name] = step(build(optimizer={**settings, **custom}))
    for name, factor in (
        ("backbone.features.5.conv_list.0.conv.weight", 0.1),
        ("ppseg_head.arm_list.0.conv_out._conv.weight", 1),
        ("seg_heads.0.conv_out.weight", 10),
    ):
        ratio = moved["by part"][name] / moved["equal"][name]
        assert ratio == pytest.approx(factor, rel=0.02), name


def test_rate_for_no_part_is_refused(build):
    optimizer = {"type": "AdamW", "custom_cfg": [{"name": "bakbone", "lr_mult": 0.1}]}
    with pytest.raises(ConfigError, match=r"custom_cfg: no parameter name contains 'bakbone'"):
        _ = build(optimizer=optimizer).optimizer
