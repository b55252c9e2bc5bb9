"""Records of released weights, and strict loading that runs no code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np
import paddle

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.system.array_pickle import load_arrays
from liteseg_plugin.system.checksums import check_sum
from liteseg_plugin.system.files import is_lfs_pointer

_CUT = "UnpackBigParamInfor@@"  # Paddle's table of arrays that it cut


class ReleasedWeights(NamedTuple):
    """Weights that PaddleSeg's authors released, and their metrics.

    Attributes:
        config: Name of the configuration, without ``.yml``.
        model: ``PP-LiteSeg-T`` or ``PP-LiteSeg-B``.
        backbone: ``STDC1`` or ``STDC2``.
        dataset: What was trained on.
        iterations: Length of training.
        train_wh: Crop of training, width and height in pixels.
        test_wh: Size at which the network runs in evaluation.
        miou: mIoU in percent: on Cityscapes' val set, on CamVid's test set.
        miou_flip: The same, averaged with the flipped image.
        miou_ms_flip: The same, at scales 0.75, 1.0 and 1.25 and flipped; None if not measured.
    """

    config: str
    model: str
    backbone: str
    dataset: str
    iterations: int
    train_wh: tuple[int, int]
    test_wh: tuple[int, int]
    miou: float
    miou_flip: float
    miou_ms_flip: float | None

    @property
    def url(self) -> str:
        """URL of the weights."""
        dataset = self.dataset.lower()
        return f"https://paddleseg.bj.bcebos.com/dygraph/{dataset}/{self.config}/model.pdparams"


def _cityscapes(
    model: str,
    backbone: str,
    scale: str,
    test_wh: tuple[int, int],
    miou: float,
    flip: float,
    ms_flip: float | None = None,
) -> ReleasedWeights:
    config = f"pp_liteseg_{backbone.lower()}_cityscapes_1024x512_scale{scale}_160k"
    train_wh = (1024, 512)
    return ReleasedWeights(
        config, model, backbone, "Cityscapes", 160_000, train_wh, test_wh, miou, flip, ms_flip
    )


def _camvid(model: str, backbone: str, miou: float, flip: float, ms_flip: float) -> ReleasedWeights:
    config = f"pp_liteseg_{backbone.lower()}_camvid_960x720_10k"
    size_wh = (960, 720)
    return ReleasedWeights(
        config, model, backbone, "CamVid", 10_000, size_wh, size_wh, miou, flip, ms_flip
    )


RELEASED = (
    _cityscapes("PP-LiteSeg-T", "STDC1", "0.5", (1024, 512), 73.10, 73.89),
    _cityscapes("PP-LiteSeg-T", "STDC1", "0.75", (1536, 768), 76.03, 76.74),
    _cityscapes("PP-LiteSeg-T", "STDC1", "1.0", (2048, 1024), 77.04, 77.73, 77.46),
    _cityscapes("PP-LiteSeg-B", "STDC2", "0.5", (1024, 512), 75.25, 75.65),
    _cityscapes("PP-LiteSeg-B", "STDC2", "0.75", (1536, 768), 78.75, 79.23),
    _cityscapes("PP-LiteSeg-B", "STDC2", "1.0", (2048, 1024), 79.04, 79.52, 79.85),
    _camvid("PP-LiteSeg-T", "STDC1", 73.30, 73.89, 73.66),
    _camvid("PP-LiteSeg-B", "STDC2", 75.10, 75.85, 75.48),
)
"""The eight released models, from PaddleSeg's own tables."""


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.pdparams`` file without running code in it.

    Args:
        path: The file.

    Returns:
        Arrays by parameter name.

    Raises:
        WeightsError: As :func:`read_arrays`, or if the file has no named arrays.
    """
    content = read_arrays(path)
    arrays = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, tuple) and len(value) == 2:  # (parameter's own name, array)
            value = value[1]
        if isinstance(value, np.ndarray):
            arrays[name] = value
    if not arrays:
        raise WeightsError(f"{path} has no named arrays: it is not the .pdparams file of a network")
    return arrays


def read_arrays(path: str | os.PathLike) -> Any:
    """Read a file of ``paddle.save``: plain values and arrays of numbers, nested.

    ``paddle.load`` unpickles anything, code included; this accepts only these types.

    Args:
        path: A ``.pdparams`` or ``.pdopt`` file.

    Raises:
        WeightsError: If the file is missing, is of another kind, is truncated, holds anything
            but plain values and arrays of numbers, or is not the one that a ``SHA256SUMS`` beside
            it lists.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"weights {path} is a folder; give the model.pdparams in it")
    if path.is_file():
        check_sum(path)
    try:
        if is_lfs_pointer(path):
            raise WeightsError(
                "it is a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
            )
        with path.open("rb") as file:
            return _joined(load_arrays(file))
    except FileNotFoundError:
        raise WeightsError(f"weights not found: {path}") from None
    except WeightsError as error:
        raise WeightsError(f"refused to load {path}: {error}") from None
    except Exception as error:
        raise WeightsError(
            f"{path} is not a .pdparams file, or is truncated ({type(error).__name__}: {error})"
        ) from error


def _joined(content: Any) -> Any:
    """Join what ``paddle.save`` cuts in pickles of protocols 2 and 3: arrays of 1 GiB and more."""
    if not isinstance(content, dict) or _CUT not in content:
        return content
    for name, cut in content.pop(_CUT).items():
        parts = [content.pop(part) for part in cut["slices"]]
        content[name] = np.concatenate(parts).reshape(cut["OriginShape"])
    return content


def local_path(path_or_url: str) -> str:
    """Return the path of weights; those given by URL are downloaded into PaddleSeg's cache.

    Args:
        path_or_url: A file, or the URL of one.

    Raises:
        WeightsError: If the download fails.
    """
    if not urlparse(path_or_url).netloc:
        return path_or_url
    from paddleseg.utils import utils

    with download_errors(path_or_url):
        return utils.download_pretrained_model(path_or_url)


@contextlib.contextmanager
def download_errors(url: str) -> Iterator[None]:
    """Turn errors of a download into one that says how to work offline.

    Raises:
        WeightsError: If the block raises a network or file error.
    """
    import requests

    try:
        yield
    except (requests.RequestException, OSError) as error:
        raise WeightsError(
            f"cannot download {url} ({type(error).__name__}). To work offline, download it "
            "elsewhere and name the local file: --model_path PATH for full weights, --opts "
            "model.backbone.pretrained=PATH for a backbone. To start from random weights instead: "
            "--opts model.backbone.pretrained=None model.backbone_init=kaiming"
        ) from error


def load_trained(model: paddle.nn.Layer, path_or_url: str) -> None:
    """Load the weights that a network was trained to: its own strictly, PaddleSeg's what fits.

    Args:
        model: The network. Every array of a :class:`PPLiteSeg` must be in the file; PaddleSeg's
            own networks may lack some, which is logged.
        path_or_url: A ``.pdparams`` file, or the URL of one.

    Raises:
        WeightsError: As :func:`load_weights` or :func:`load_matching_weights`.
    """
    from liteseg_plugin.models.pp_liteseg import PPLiteSeg

    load = load_weights if isinstance(model, PPLiteSeg) else load_matching_weights
    load(model, path_or_url)


def load_weights(model: paddle.nn.Layer, path_or_url: str | os.PathLike) -> None:
    """Load full weights; every array of the network must be in the file, in its shape.

    ``_scale`` alone may be missing, as in some released files; it is 1.

    Args:
        model: The network.
        path_or_url: A ``.pdparams`` file, or the URL of one.

    Raises:
        WeightsError: If the file cannot be read, names and shapes are not the network's, or a
            value is not finite; the message names them.
    """
    path = local_path(os.fspath(path_or_url))
    arrays: dict[str, Any] = read_state_dict(path)
    target = model.state_dict()
    for name, tensor in target.items():
        if name.endswith("._scale") and name not in arrays:
            arrays[name] = np.ones(tensor.shape, "float32")
    arrays = {name: _as_float32(array) for name, array in arrays.items()}
    problems = [
        _listing("missing", [name for name in target if name not in arrays]),
        _listing("not of this network", [name for name in arrays if name not in target]),
        _listing(
            "of another shape",
            [
                f"{name} {list(arrays[name].shape)} instead of {list(tensor.shape)}"
                for name, tensor in target.items()
                if name in arrays and list(arrays[name].shape) != list(tensor.shape)
            ],
        ),
        _listing(
            "of another type",
            [
                f"{name} {arrays[name].dtype}"
                for name, tensor in target.items()
                if name in arrays and f"paddle.{arrays[name].dtype}" != str(tensor.dtype)
            ],
        ),
    ]
    if any(problems):
        raise WeightsError(
            f"weights {path} do not fit {type(model).__name__} ({len(target)} arrays):\n"
            + "\n".join(filter(None, problems))
            + "\nGive the config that they were trained with (backbone, num_classes, arm_type)."
        )
    _require_finite(arrays, path)
    model.set_state_dict(arrays)


def load_matching_weights(model: paddle.nn.Layer, path_or_url: str | os.PathLike) -> int:
    """Load the arrays of a file that a network has under the same name and shape.

    This is for weights to start training from: a backbone's, or those of other classes.

    Args:
        model: The network.
        path_or_url: A ``.pdparams`` file, or the URL of one.

    Returns:
        How many arrays were loaded.

    Raises:
        WeightsError: If the file cannot be read, nothing in it fits, or a value that fits is not
            finite.
    """
    from paddleseg.utils import logger

    path = local_path(os.fspath(path_or_url))
    arrays = read_state_dict(path)
    target = model.state_dict()
    fitting: dict[str, Any] = {
        name: _as_float32(arrays[name])
        for name, tensor in target.items()
        if name in arrays and list(arrays[name].shape) == list(tensor.shape)
    }
    if not fitting:
        raise WeightsError(
            f"none of the {len(target)} arrays of {type(model).__name__} is in {path}: these are "
            f"the weights of another network (it has {', '.join([*arrays][:3])}, ...)"
        )
    reshaped = [
        f"{name} {list(arrays[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in target.items()
        if name in arrays and name not in fitting
    ]
    left = [
        _listing("missing", [name for name in target if name not in arrays]),
        _listing("of another shape (other classes?)", reshaped),
    ]
    if any(left):
        logger.warning(
            f"{path} has {len(fitting)} of the {len(target)} arrays of {type(model).__name__}; "
            "the others start from random weights:\n" + "\n".join(filter(None, left))
        )
    _require_finite(fitting, path)
    model.set_state_dict({**target, **fitting})
    logger.info(f"Loaded {len(fitting)} of {len(target)} arrays from {path_or_url}")
    return len(fitting)


def _as_float32(array: np.ndarray) -> np.ndarray:
    """Return weights in the type of the network: some tools store halves or doubles.

    Paddle stores bfloat16 as uint16, and no network here has integers of 16 bits.
    """
    if array.dtype == np.uint16:
        return (array.astype("uint32") << 16).view("float32")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused
        return array.astype("float32") if array.dtype.kind == "f" else array


def _require_finite(arrays: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Refuse NaN and infinity, with which a network gives class 0 everywhere."""
    invalid = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if invalid:
        raise WeightsError(
            f"weights {path} hold NaN or infinity:\n{_listing('not finite', invalid)}\n"
            "Use an earlier checkpoint, and train from it with a lower learning rate."
        )


def _listing(title: str, names: list[str], shown: int = 4) -> str:
    if not names:
        return ""
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"  {len(names)} {title}: {', '.join(names[:shown])}{more}"
