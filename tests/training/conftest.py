"""Training on a small drawn data set, to be killed and resumed."""

from __future__ import annotations

import re

import pytest

from liteseg_plugin.weights import read_state_dict

CROP = {"type": "RandomPaddingCrop", "crop_size": [64, 64]}
TRANSFORMS = [
    {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 1.5},
    CROP,
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomDistort", "brightness_range": 0.5, "contrast_range": 0.5},
    {"type": "Normalize"},
]
# PP-LiteSeg with 0.2 million weights instead of 8, as what is tested here writes them many times.
SMALL = {
    "backbone": {"_inherited_": False, "type": "MobileNetV3_small_x0_35"},
    "backbone_indices": [1, 2, 3],
    "arm_out_chs": [16, 16, 16],
    "seg_head_inter_chs": [16, 16, 16],
    "cm_out_ch": 16,
}


@pytest.fixture(scope="session")
def random_crops(toy, tmp_path_factory):
    """A config with augmentation whose epoch, eight images in batches of three, has two steps."""
    folder = tmp_path_factory.mktemp("random_crops")
    return toy.config(folder, batch_size=3, train_dataset__transforms=TRANSFORMS, model=SMALL)


@pytest.fixture(scope="session")
def training(random_crops):
    """Return a function for the arguments of `liteseg train` with flags."""

    def training(save_dir, *flags, seed=5):
        return (
            *("train", "--config", random_crops, "--device", "cpu", "--save_dir", save_dir),
            *("--log_iters", 1, *(["--seed", seed] if seed is not None else []), *flags),
        )

    return training


@pytest.fixture(scope="session")
def steps():
    """Read epoch, loss and learning rate of each iteration off a log."""

    def steps(text):
        pattern = r"\[TRAIN\] (epoch: \d+), iter: (\d+)/\d+, (loss: \S+ lr: \S+) batch_cost"
        return {int(number): (epoch, rest) for epoch, number, rest in re.findall(pattern, text)}

    return steps


@pytest.fixture(scope="session")
def same_arrays():
    """Tell whether two .pdparams files hold the same arrays, bit for bit."""

    def same(first, second):
        first, second = read_state_dict(first), read_state_dict(second)
        return first.keys() == second.keys() and all(
            first[name].tobytes() == second[name].tobytes() for name in first
        )

    return same
