"""Released weights as records, and loading of weights that runs no code and hides no mismatch."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle

from liteseg_plugin.errors import WeightsError


class ReleasedWeights(NamedTuple):
    """Weights that PaddleSeg's authors released, and what they measured.

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
        """Where the weights can be had."""
        dataset = self.dataset.lower()
        return f"https://paddleseg.bj.bcebos.com/dygraph/{dataset}/{self.config}/model.pdparams"


def _cityscapes(
    model: str, backbone: str, scale: str, test_wh: tuple[int, int], *miou: float | None
) -> ReleasedWeights:
    config = f"pp_liteseg_{backbone.lower()}_cityscapes_1024x512_scale{scale}_160k"
    return ReleasedWeights(
        config, model, backbone, "Cityscapes", 160_000, (1024, 512), test_wh, *miou
    )


def _camvid(model: str, backbone: str, *miou: float) -> ReleasedWeights:
    config = f"pp_liteseg_{backbone.lower()}_camvid_960x720_10k"
    return ReleasedWeights(config, model, backbone, "CamVid", 10_000, (960, 720), (960, 720), *miou)


RELEASED = (
    _cityscapes("PP-LiteSeg-T", "STDC1", "0.5", (1024, 512), 73.10, 73.89, None),
    _cityscapes("PP-LiteSeg-T", "STDC1", "0.75", (1536, 768), 76.03, 76.74, None),
    _cityscapes("PP-LiteSeg-T", "STDC1", "1.0", (2048, 1024), 77.04, 77.73, 77.46),
    _cityscapes("PP-LiteSeg-B", "STDC2", "0.5", (1024, 512), 75.25, 75.65, None),
    _cityscapes("PP-LiteSeg-B", "STDC2", "0.75", (1536, 768), 78.75, 79.23, None),
    _cityscapes("PP-LiteSeg-B", "STDC2", "1.0", (2048, 1024), 79.04, 79.52, 79.85),
    _camvid("PP-LiteSeg-T", "STDC1", 73.30, 73.89, 73.66),
    _camvid("PP-LiteSeg-B", "STDC2", 75.10, 75.85, 75.48),
)
"""The eight released models, from PaddleSeg's own tables."""


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a ``.pdparams`` file without running code that may be in it.

    ``paddle.load`` unpickles whatever a file holds; this admits arrays and their names only.

    Args:
        path: The file.

    Returns:
        Arrays by parameter name.

    Raises:
        WeightsError: If the file is missing, is no weights file, is cut short, or holds anything
            but arrays.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"weights {path} is a folder; give the model.pdparams in it")
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except FileNotFoundError:
        raise WeightsError(f"weights not found: {path}") from None
    except WeightsError as error:
        raise WeightsError(f"refused to load {path}: {error}") from None
    except Exception as error:
        raise WeightsError(
            f"{path} is no .pdparams file, or is cut short ({type(error).__name__}: {error})"
        ) from error
    arrays = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, tuple) and len(value) == 2:  # (parameter's own name, array)
            value = value[1]
        if isinstance(value, np.ndarray):
            arrays[name] = value
    if not arrays:
        raise WeightsError(f"{path} holds no arrays by name: it is no .pdparams file of a network")
    return arrays


def load_weights(model: paddle.nn.Layer, path: str | os.PathLike) -> None:
    """Load full weights; every array of the network must be in the file, in its shape.

    ``_scale`` alone may be missing, as in some released files; it is 1.

    Args:
        model: The network.
        path: A ``.pdparams`` file.

    Raises:
        WeightsError: If the file cannot be read, or names and shapes are not the network's; the
            message names them.
    """
    arrays = read_state_dict(path)
    target = model.state_dict()
    for name, tensor in target.items():
        if name.endswith("._scale") and name not in arrays:
            arrays[name] = np.ones(tensor.shape, "float32")
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
    ]
    if any(problems):
        raise WeightsError(
            f"weights {path} do not fit {type(model).__name__} ({len(target)} arrays):\n"
            + "\n".join(filter(None, problems))
            + "\nGive the config that they were trained with (backbone, num_classes, arm_type)."
        )
    model.set_state_dict(arrays)


def load_matching_weights(model: paddle.nn.Layer, path: str | os.PathLike) -> int:
    """Load the arrays of a file that a network has under the same name and shape.

    This is for weights to start training from: a backbone's, or those of other classes.

    Args:
        model: The network.
        path: A ``.pdparams`` file.

    Returns:
        How many arrays were loaded.

    Raises:
        WeightsError: If the file cannot be read, or nothing in it fits.
    """
    from paddleseg.utils import logger

    arrays = read_state_dict(path)
    target = model.state_dict()
    fitting = {
        name: arrays[name]
        for name, tensor in target.items()
        if name in arrays and list(arrays[name].shape) == list(tensor.shape)
    }
    if not fitting:
        raise WeightsError(
            f"none of the {len(target)} arrays of {type(model).__name__} is in {path}: these are "
            f"the weights of another network (it has {', '.join([*arrays][:3])}, ...)"
        )
    for name in target.keys() - fitting.keys():
        logger.warning(f"{path} does not fit {name}, which keeps its first values")
    model.set_state_dict({**target, **fitting})
    return len(fitting)


def _listing(title: str, names: list[str], shown: int = 4) -> str:
    if not names:
        return ""
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"  {len(names)} {title}: {', '.join(names[:shown])}{more}"


class _ArrayUnpickler(pickle.Unpickler):
    _ADMITTED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise WeightsError(f"it asks for {module}.{name}, which is no array")
        # Files written under NumPy 2 name modules that NumPy 1 has under the older name.
        if module.startswith("numpy._core") and not hasattr(np, "_core"):
            module = module.replace("numpy._core", "numpy.core")
        return super().find_class(module, name)
