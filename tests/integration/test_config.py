"""The builder of the plugin's commands, which replaces nothing of PaddleSeg's."""

from __future__ import annotations

import cv2
import numpy as np
import paddle
import pytest
from paddleseg import datasets
from paddleseg.cvlibs import manager

from liteseg_plugin.errors import ConfigError, DataError, WeightsError
from liteseg_plugin.integration import config
from liteseg_plugin.integration.registry import register

URL = "https://example.invalid/STDC1/model.pdparams"


@pytest.fixture()
def builder(toy, tmp_path):
    """Return a function that builds with changes to the quick start's config."""

    def builder(downloads=True, **changes):
        register()
        loaded = config.load(str(toy.config(tmp_path, **changes)))
        return config.ConfigBuilder(loaded, downloads=downloads)

    return builder


def test_weights_by_url_are_skipped_where_full_weights_follow(builder):
    url = {"model__backbone__pretrained": URL, "model__backbone_init": None}
    model = builder(downloads=False, **url).model
    assert model.backbone.pretrained is None
    with pytest.raises(WeightsError, match=f"cannot download {URL}.*To work offline"):
        builder(**url).model  # noqa: B018


def test_pretrained_weights_are_loaded(builder, tmp_path):
    weights = paddle.full([32], 0.25)
    paddle.save({"features.0.bn.weight": weights}, str(tmp_path / "stdc.pdparams"))
    path = str(tmp_path / "stdc.pdparams")
    model = builder(model__backbone__pretrained=path, model__backbone_init=None).model
    assert model.backbone.pretrained == path
    assert (model.backbone.state_dict()["features.0.bn.weight"] == weights).all()
    with pytest.raises(ConfigError, match="backbone_init would overwrite the pretrained weights"):
        builder(model__backbone__pretrained=path, model__backbone_init="kaiming").model  # noqa: B018


def test_rate_of_a_missing_part(builder):
    groups = {"optimizer__custom_cfg": [{"name": "bakbone", "lr_mult": 2.0}]}
    with pytest.raises(ConfigError, match=r"no parameter name contains 'bakbone'; the parts of"):
        builder(**groups).optimizer  # noqa: B018


class Street(datasets.Dataset):
    """A data set that is PaddleSeg's, but for its name."""


@pytest.mark.parametrize("mode", ["train", "val"])
def test_data_set_of_paddlesegs_checks_its_samples(builder, tmp_path, monkeypatch, mode):
    monkeypatch.setitem(manager.DATASETS.components_dict, "Street", Street)
    for name in ("good", "label", "image"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 4, 3), 9, np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}_l.png"), np.full((4, 4), 1, np.uint8))
    cv2.imwrite(str(tmp_path / "label_l.png"), np.full((4, 4), 42, np.uint8))
    (tmp_path / "image.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    names = ("good", "label", "image")
    (tmp_path / "list.txt").write_text("".join(f"{n}.png {n}_l.png\n" for n in names))
    section = {"type": "Street", "mode": mode, "dataset_root": str(tmp_path), "num_classes": 2}
    section[f"{mode}_path"] = str(tmp_path / "list.txt")
    section["transforms"] = [{"type": "Normalize"}]
    samples = builder().build_component(section)
    assert samples[0]["img"].shape == (3, 4, 4)
    with pytest.raises(DataError, match=r"label_l\.png of image .*label values out of range: 42"):
        samples[1]
    with pytest.raises(DataError, match=r"image\.png: it is a Git LFS pointer, .*git lfs pull"):
        samples[2]


@pytest.mark.parametrize("entry", ["iters:", "iters", "3"])
def test_opts_without_a_value_are_refused(toy, tmp_path, entry):
    with pytest.raises(ConfigError, match=f"^--opts {entry}: give KEY=VALUE, without spaces"):
        config.check_keys(str(toy.config(tmp_path)), ["batch_size=2", entry])
