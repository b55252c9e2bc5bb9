"""Fast loading gives PaddleSeg's samples, from the same random numbers."""

from __future__ import annotations

import importlib.util
import math
import random
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from paddleseg import datasets
from paddleseg.cvlibs import manager
from paddleseg.cvlibs.builder import Builder
from paddleseg.transforms import (
    Compose,
    Normalize,
    RandomBlur,
    RandomDistort,
    RandomHorizontalFlip,
    RandomPaddingCrop,
    RandomVerticalFlip,
    Resize,
    ResizeStepScaling,
    functional,
)
from PIL import Image

from liteseg_plugin.datasets import fast_transforms, loading
from liteseg_plugin.errors import ConfigError, DataError
from liteseg_plugin.integration.config import build_component
from liteseg_plugin.training.batches import Batches

SCRIPT = Path(__file__).parents[1] / "data" / "paddleseg_script.py"
CAMVID = Path(__file__).parents[3] / "shared" / "camvid"
SIZES_WH = [(131, 97), (128, 96), (64, 48), (200, 160), (33, 250), (16, 9)]


def released(lowest, highest, step, crop, **more):
    return [
        ResizeStepScaling(lowest, highest, step),
        RandomPaddingCrop(crop, **more),
        RandomHorizontalFlip(),
        RandomDistort(0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
        Normalize(),
    ]


class FlipAndDarken(RandomHorizontalFlip):
    """A user's own, of a kind that is known."""

    def __call__(self, data):
        data = super().__call__(data)
        data["img"] = data["img"] - 100
        return data


RECIPES = {
    "released, cityscapes": released(0.125, 1.5, 0.125, (96, 64)),
    "released, camvid": released(0.5, 2.5, 0.25, (128, 96)),
    "any scale": released(0.3, 2.0, 0, (64, 48)),
    "one scale": released(1.5, 1.5, 0.25, (64, 48)),
    "larger than all": released(0.5, 1.0, 0.25, (300, 400), im_padding_value=7.5),
    "crop alone": [RandomPaddingCrop((96, 64)), RandomVerticalFlip(), Normalize()],
    "scale alone": [ResizeStepScaling(0.5, 1.5, 0.25), RandomDistort(), Normalize([0.4] * 3)],
    "nothing random": [RandomHorizontalFlip(0), Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])],
    "others between": [RandomDistort(sharpness_prob=0.5), RandomBlur(0.9), Resize((64, 48))],
    "distorts last": [RandomHorizontalFlip(), RandomDistort()],
    "a user's own": [FlipAndDarken(), Normalize()],
    "none": [],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of noisy pictures of several sizes, with labels of which some are 255."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    lines = []
    for i, (width, height) in enumerate(SIZES_WH):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height)) // 2
        picture += rng.integers(0, 128, picture.shape, np.uint8)
        label = rng.choice([0, 1, 2, 10, 255], (height // 4 + 1, width // 4 + 1)).astype(np.uint8)
        label = np.repeat(np.repeat(label, 4, 0), 4, 1)[:height, :width]
        cv2.imwrite(str(root / f"{i}.png"), picture)
        cv2.imwrite(str(root / f"{i}_label.png"), label)
        lines.append(f"{i}.png {i}_label.png\n")
    for name in ("train", "val"):
        (root / f"{name}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def stock_hue(monkeypatch):
    """Return a function that gives PaddleSeg its own hue again."""
    spec = importlib.util.spec_from_file_location("stock_functional", functional.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda: monkeypatch.setattr(functional, "hue", module.hue)


def draw(dataset, index, seed):
    """Return a sample, and the random states after it."""
    random.seed(seed)
    np.random.seed(seed)
    return dataset[index], (random.getstate(), np.random.get_state()[1].tolist())


def assert_same_samples(stock, fast, stock_hue, seeds):
    fast_hue = functional.hue
    for seed in range(seeds):
        index = seed % len(stock)
        stock_hue()
        wanted, state = draw(stock, index, seed)
        functional.hue = fast_hue
        got, fast_state = draw(fast, index, seed)
        assert got.keys() == wanted.keys()
        assert fast_state == state
        assert got["trans_info"] == wanted["trans_info"]
        assert (got["img"].dtype, got["img"].shape) == (wanted["img"].dtype, wanted["img"].shape)
        np.testing.assert_array_equal(got["label"], wanted["label"])
        assert got["label"].dtype == wanted["label"].dtype
        assert_same_image(got["img"], wanted["img"])


def assert_same_image(got, wanted):
    if cv2.ipp.useIPP():
        np.testing.assert_array_equal(got, wanted)
        return
    # OpenCV without IPP may round differently in a part and in the whole: the mean that
    # RandomDistort takes may change by 1 of 255, and so all pixels a little, but few by much.
    level = np.ptp(wanted) / 255
    apart = np.abs(got - wanted)
    assert (apart > 2 * level).mean() < 0.001
    assert apart.mean() <= level


def both(root, transforms, mode="train", fast_loading=True, **more):
    arguments = {"mode": mode, "dataset_root": str(root), "num_classes": 11, **more}
    arguments.setdefault(f"{mode}_path", str(root / f"{mode}.txt"))
    stock = datasets.Dataset(transforms=list(transforms), **arguments)
    arguments["fast_loading"] = fast_loading
    return stock, loading.Dataset(transforms=list(transforms), **arguments)


@pytest.mark.parametrize("transforms", RECIPES.values(), ids=RECIPES)
def test_sample_is_paddlesegs(pictures, stock_hue, transforms):
    assert_same_samples(*both(pictures, transforms), stock_hue, seeds=48)


@pytest.mark.parametrize("more", [{"edge": True}, {"img_channels": 1}, {"mode": "val"}], ids=str)
def test_sample_is_paddlesegs_with_other_keys(pictures, stock_hue, more):
    transforms = RECIPES["released, camvid"]
    if more.get("mode") == "val":
        transforms = [Normalize()]
    assert_same_samples(*both(pictures, transforms, **more), stock_hue, seeds=24)


@pytest.mark.parametrize(
    "more", [{}, {"edge": True}, {"img_channels": 1}, {"mode": "val"}], ids=str
)
def test_sample_without_fast_loading_is_paddlesegs(pictures, stock_hue, more):
    transforms = [Normalize()] if more.get("mode") == "val" else RECIPES["released, camvid"]
    assert_same_samples(
        *both(pictures, transforms, fast_loading=False, **more), stock_hue, seeds=24
    )


def test_sample_without_label_is_paddlesegs(pictures, stock_hue, tmp_path):
    listing = tmp_path / "test.txt"
    listing.write_text("0.png\n")
    given = {"mode": "test", "test_path": str(listing)}
    stock, own = both(pictures, [Normalize()], fast_loading=False, **given)
    _, fast = both(pictures, [Normalize()], **given)
    wanted = stock[0]
    for got in (own[0], fast[0]):
        assert got["label"] is wanted["label"] is None
        np.testing.assert_array_equal(got["img"], wanted["img"])


def test_sample_of_real_frames_is_paddlesegs(stock_hue):
    if not CAMVID.is_dir():
        pytest.skip("the CamVid frames are not here")
    root, transforms = CAMVID, released(0.5, 2.0, 0.25, (320, 240))
    assert_same_samples(*both(root, transforms), stock_hue, seeds=60)


def test_cached_sample_is_paddlesegs(pictures, stock_hue, tmp_path):
    stock, _ = both(pictures, RECIPES["released, camvid"])
    cached = loading.Dataset(
        "train", str(pictures), RECIPES["released, camvid"], 11, cache_gb=1, cache_dir=tmp_path
    )
    assert_same_samples(stock, cached, stock_hue, seeds=5 * len(SIZES_WH))
    assert len(list(tmp_path.glob("*.npy"))) == 2 * len(SIZES_WH)


def parts(number):
    """Draw images, the sizes that they become, and boxes in them."""
    rng = np.random.default_rng(1)
    for _ in range(number):
        old_hw, new_hw = rng.integers(2, 120, 2), rng.integers(2, 160, 2)
        if rng.random() < 0.5:  # as in training, by steps
            old_hw *= 4
            new_hw = old_hw * rng.integers(1, 10) // 4
        image = rng.integers(0, 256, (*old_hw, 3), np.uint8)
        (y1, y2), (x1, x2) = (sorted(rng.choice(n + 1, 2, replace=False)) for n in new_hw)
        height, width = map(int, new_hw)
        yield image, (width, height), tuple(map(int, (x1, y1, x2, y2)))


def test_part_of_resized_image_is_that_of_the_whole():
    for image, size_wh, box in parts(300):
        x1, y1, x2, y2 = box
        whole = cv2.resize(image.astype(np.float32), size_wh)[y1:y2, x1:x2]
        np.testing.assert_allclose(
            fast_transforms.resize_part(image, size_wh, box), whole, atol=0.01
        )


def test_part_of_resized_label_is_that_of_the_whole():
    for image, size_wh, box in parts(300):
        x1, y1, x2, y2 = box
        whole = cv2.resize(image[..., 0], size_wh, interpolation=cv2.INTER_NEAREST)[y1:y2, x1:x2]
        part = fast_transforms.resize_label_part(image[..., 0], size_wh, box)
        np.testing.assert_array_equal(part, whole)


def test_part_of_resized_image_costs_what_the_part_costs(monkeypatch):
    sizes = []
    monkeypatch.setattr(functional, "resize", lambda part, *_: sizes.append(part.shape) or part)
    image = np.zeros((1024, 2048, 3), np.uint8)
    fast_transforms.resize_part(image, (3072, 1536), (1500, 600, 2524, 1112))
    # 1024x512 of 3/2, so 683x342, and at most two blocks of 2 at either side.
    assert sizes[0][0] <= 342 + 8
    assert sizes[0][1] <= 683 + 8


@pytest.mark.parametrize("delta", [-18, -3.4, -0.2, 0, 0.7, 17.9])
def test_hue_is_paddlesegs(stock_hue, delta):
    colours = np.random.default_rng(2).integers(0, 256, (512, 512, 3), np.uint8)
    colours[:16] = np.arange(16 * 512).reshape(16, 512, 1) % 256  # greys
    image = Image.fromarray(colours)
    fast = np.asarray(fast_transforms.hue(image, delta, delta))
    stock_hue()
    np.testing.assert_array_equal(fast, np.asarray(functional.hue(image, delta, delta)))


# --- as configured -------------------------------------------------------------------------------


def test_registered_data_sets_are_paddlesegs_unless_asked(pictures):
    assert manager.DATASETS["Dataset"] is loading.Dataset
    assert issubclass(manager.DATASETS["Cityscapes"], datasets.Cityscapes)
    plain = loading.Dataset("train", str(pictures), [Normalize()], 11)
    assert type(plain.transforms) is Compose


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cache_gb": -1}, "cache_gb must be a number of gigabytes, got -1"),
        ({"cache_gb": "much"}, "cache_gb must be a number of gigabytes, got 'much'"),
        ({"cache_gb": math.nan}, "cache_gb must be a number of gigabytes, got nan"),
        ({"cache_dir": "somewhere"}, "cache_dir somewhere needs cache_gb"),
        (
            {"cache_gb": 1, "cache_dir": "/dev/null/x"},
            "cannot be cached in /dev/null/x: .*cache_dir",
        ),
        ({"fast": True}, "Dataset: .*'fast'.* It takes .*fast_loading, .*dataset_root.* edge"),
    ],
)
def test_config_error_names_the_key(pictures, keys, message):
    config = {"type": "Dataset", "mode": "train", "dataset_root": str(pictures), "num_classes": 11}
    builder = Builder(None, [manager.DATASETS])
    with pytest.raises(ConfigError, match=message):
        build_component(builder.build_component, builder, {**config, "transforms": [], **keys})


@pytest.mark.parametrize("spoilt", ["0.png", "0_label.png"])
@pytest.mark.parametrize("how", ["cut", "gone", "text"])
def test_error_is_the_one_without(pictures, tmp_path, spoilt, how):
    root = tmp_path / "copy"
    shutil.copytree(pictures, root)
    sets = (
        loading.Dataset("train", str(root), [Normalize()], 11),
        loading.Dataset("train", str(root), [Normalize()], 11, fast_loading=True),
        loading.Dataset("train", str(root), [Normalize()], 11, cache_gb=1, cache_dir=tmp_path),
    )
    sets[2][0]  # is kept, and must not be used
    path = root / spoilt
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60] if how == "cut" else b"text")
    said = []
    for dataset in sets:
        with pytest.raises(DataError) as raised:
            dataset[0]
        said.append(str(raised.value))
    assert said[0] == said[1] == said[2]
    assert spoilt in said[0]


@pytest.mark.parametrize("mode", ["train", "val"])
def test_label_is_its_values_whatever_its_depth(deep_label, tmp_path, mode):
    ones = np.eye(48, 64, dtype=np.uint8)
    depth, write = deep_label
    write(tmp_path / "label.png", ones)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / f"{mode}.txt").write_text("0.png label.png\n")
    # Some of OpenCV's functions take no bool, and others no int32.
    transforms = released(1.5, 1.5, 0, (96, 72)) if mode == "train" else [Normalize()]
    given = (mode, str(tmp_path), transforms, 2)
    cache = {"cache_gb": 1, "cache_dir": tmp_path / "c"}
    sets = {
        "own": loading.Dataset(*given),
        "fast": loading.Dataset(*given, fast_loading=True),
        "cached": loading.Dataset(*given, **cache),
        "from the cache": loading.Dataset(*given, **cache),
    }
    for name, dataset in sets.items():
        label = draw(dataset, 0, 0)[0]["label"]
        assert label.dtype == np.uint8, name
        tensor = paddle.to_tensor(label).astype("int64").numpy()
        if mode == "val":
            np.testing.assert_array_equal(tensor[0], ones, err_msg=f"{depth}, {name}")
        else:
            assert np.unique(tensor).tolist() == [0, 1], f"{depth}, {name}"


def test_label_out_of_range_is_said_with_fast_loading(pictures):
    dataset = loading.Dataset("train", str(pictures), [Normalize()], 3, fast_loading=True)
    with pytest.raises(DataError, match=r"0_label\.png of image .*values out of range: 10"):
        dataset[0]


def test_worker_processes_share_the_cache(pictures, tmp_path):
    transforms = released(0.5, 1.5, 0.25, (64, 48))
    cached = loading.Dataset("train", str(pictures), transforms, 11, cache_gb=1, cache_dir=tmp_path)
    stock = datasets.Dataset(
        "train", str(pictures), transforms, 11, train_path=str(pictures / "train.txt")
    )

    def first(dataset):  # two epochs of three batches; the second finds everything
        stream = Batches(dataset, 2, num_workers=2, seed=3).start(0)
        taken = [next(stream) for _ in range(6)]
        stream.close()
        return taken

    for got, wanted in zip(first(cached), first(stock)):
        assert got.files == wanted.files
        for name in ("img", "label"):
            np.testing.assert_array_equal(got.data[name].numpy(), wanted.data[name].numpy())
    assert len(list(tmp_path.glob("*.npy"))) == 2 * len(SIZES_WH)


# --- as processes --------------------------------------------------------------------------------

TRANSFORMS = [
    {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 1.5},
    {"type": "RandomPaddingCrop", "crop_size": [64, 64]},
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomDistort"},
    {"type": "Normalize"},
]


def losses(text):
    return re.findall(r"\[TRAIN\].*?(loss: [\d.]+)", text)


def test_training_with_a_cache_is_training_without(run, toy, tmp_path):
    text, cache = {}, {"cache_gb": 1, "cache_dir": str(tmp_path / "c")}
    for name, keys in (("stock", {}), ("fast", cache)):
        (tmp_path / name).mkdir()
        more = {f"train_dataset__{key}": value for key, value in keys.items()}
        config = toy.config(tmp_path / name, train_dataset__transforms=TRANSFORMS, **more)
        text[name] = run(
            *("train", "--config", config, "--device", "cpu", "--seed", 4),
            *("--save_dir", tmp_path / name / "out", "--log_iters", 1, "--iters", 3),
        ).text
    assert len(losses(text["fast"])) == 3
    assert losses(text["fast"]) == losses(text["stock"])
    assert list((tmp_path / "c").glob("*.npy"))


def test_script_of_paddlesegs_trains_with_a_cache(run, toy, tmp_path):
    cache = {"cache_gb": 1, "cache_dir": str(tmp_path / "c")}
    sets = ("train_dataset", "val_dataset")
    keys = {f"{name}__{key}": value for name in sets for key, value in cache.items()}
    config = toy.config(tmp_path, train_dataset__transforms=TRANSFORMS, **keys)
    result = run("run", SCRIPT, config, tmp_path / "out")
    assert len(losses(result.text)) == 2
    assert "mIoU" in result.text
    # Four images of two batches, three to evaluate on, and their labels.
    assert len(list((tmp_path / "c").glob("*.npy"))) >= 2 * (4 + 3)
