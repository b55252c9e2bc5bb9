"""Strict loading of weights that runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.system.array_pickle import load_arrays
from liteseg_plugin.system.checksums import check_sum
from liteseg_plugin.system.files import is_lfs_pointer
from liteseg_plugin.weights.fetching import local_path
from liteseg_plugin.weights.records import similar

_CUT = "UnpackBigParamInfor@@"  # Paddle's table of arrays that it cut


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.pdparams`` or ``.safetensors`` file, by name, and run no code in it.

    Raises:
        WeightsError: As :func:`read_arrays`, or if the file has no named arrays.
    """
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(Path(path))
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


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read a format that holds no code, and whose library checks its bounds."""
    if not path.is_file():
        raise WeightsError(f"weights not found: {path}")
    check_sum(path)
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise WeightsError("safetensors is not installed: pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:  # of the library, which has its own types
        raise WeightsError(f"{path} is not a safetensors file, or is truncated: {error}") from error


def read_arrays(path: str | os.PathLike) -> Any:
    """Read a file of ``paddle.save`` (``.pdparams``, ``.pdopt``): plain values and arrays, nested.

    ``paddle.load`` unpickles anything, code included; this accepts only these types.

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
        raise WeightsError(f"weights not found: {path}{similar(path.name)}") from None
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


def load_trained(model: paddle.nn.Layer, path_or_url: str) -> None:
    """Load the weights that a network was trained to: its own strictly, PaddleSeg's what fits.

    Args:
        model: The network. Every array of a :class:`PPLiteSeg` must be in the file; PaddleSeg's
            own networks may lack some, which is logged.
        path_or_url: A ``.pdparams`` file, the URL of one, or the name of released weights.

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
        path_or_url: A ``.pdparams`` file, the URL of one, or the name of released weights.

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
    arrays = {name: as_float32(array) for name, array in arrays.items()}
    problems = [
        _listing("missing", [name for name in target if name not in arrays]),
        _listing("not of this network", [name for name in arrays if name not in target]),
        _listing("of another shape", _reshaped(arrays, target)),
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


def load_matching_weights(
    model: paddle.nn.Layer, path_or_url: str | os.PathLike, *, adapt_channels: bool = False
) -> int:
    """Load the arrays of a file that a network has under the same name and shape.

    This is for weights to start training from: a backbone's, or those of other classes.

    Args:
        model: The network.
        path_or_url: A ``.pdparams`` file, the URL of one, or the name of released weights.
        adapt_channels: Whether a convolution of three channels becomes one of the network's
            number, by :func:`for_channels`.

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
    if adapt_channels:
        for name, tensor in target.items():
            shape, of_file = list(tensor.shape), list(arrays[name].shape) if name in arrays else []
            if len(shape) == 4 and of_file == [shape[0], 3, *shape[2:]] != shape:
                arrays[name], rule = for_channels(as_float32(arrays[name]), shape[1])
                logger.info(f"{name}, of 3 channels, becomes one of {shape[1]}: {rule}")
    fitting: dict[str, Any] = {
        name: as_float32(arrays[name])
        for name, tensor in target.items()
        if name in arrays and list(arrays[name].shape) == list(tensor.shape)
    }
    if not fitting:
        raise WeightsError(
            f"none of the {len(target)} arrays of {type(model).__name__} is in {path}: these are "
            f"the weights of another network (it has {', '.join([*arrays][:3])}, ...)"
        )
    left = [
        _listing("missing", [name for name in target if name not in arrays]),
        _listing("of another shape (other classes?)", _reshaped(arrays, target)),
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


def for_channels(weight: np.ndarray, channels: int) -> tuple[np.ndarray, str]:
    """Return the first convolution of a network of RGB images for images of other channels.

    Args:
        weight: (C_out, 3, k, k).
        channels: Number of channels.

    Returns:
        (C_out, channels, k, k), and what was done, in words.
    """
    if channels == 1:
        rule = "the sum of the three, so that grey gives what RGB of equal channels gives"
        return weight.sum(axis=1, keepdims=True), rule
    rule = f"each is the mean of the three times 3/{channels}, so that features keep their size"
    return np.repeat(weight.mean(axis=1, keepdims=True) * (3 / channels), channels, axis=1), rule


def _reshaped(arrays: Mapping[str, np.ndarray], target: Mapping[str, Any]) -> list[str]:
    """Describe the arrays that the network has in another shape."""
    return [
        f"{name} {list(arrays[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in target.items()
        if name in arrays and list(arrays[name].shape) != list(tensor.shape)
    ]


def as_float32(array: np.ndarray) -> np.ndarray:
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


def _listing(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - 4} more" if len(names) > 4 else ""
    return f"  {len(names)} {title}: {', '.join(names[:4])}{more}"
