"""Images other than RGB of 8 bits in PaddleSeg's unmodified scripts.

Its ``train.py`` and ``val.py`` read them through the plugin's data sets. Its ``predict.py``,
``export.py`` and ``deploy/python/infer.py`` take three channels, whatever the config says.
"""

from __future__ import annotations

import atexit
import copy
import inspect
from pathlib import Path
from typing import Any

import paddle
import yaml
from paddleseg import core
from paddleseg.deploy.infer import DeployConfig

from liteseg_plugin.datasets.image_compose import compose
from liteseg_plugin.datasets.image_format import ImageFormat
from liteseg_plugin.integration import scripts
from liteseg_plugin.integration.entry import for_scripts, wrap
from liteseg_plugin.system.text import read_yaml


def _format() -> ImageFormat:
    """Return the format of the images of the config that the script read last."""
    config = scripts.last_config or {}
    return ImageFormat.of_config(config.get("val_dataset") or {}, config.get("model") or {})


def _predict(original: Any, *args: Any, **kwargs: Any) -> None:
    given = inspect.signature(original).bind(*args, **kwargs)
    given.arguments["transforms"] = compose(given.arguments["transforms"].transforms, _format())
    original(*given.args, **given.kwargs)


def _to_static(original: Any, function: Any = None, input_spec: Any = None, **kwargs: Any) -> Any:
    specs = [copy.copy(spec) for spec in input_spec or ()]
    for spec in specs:
        if len(spec.shape) == 4 and spec.shape[1] == 3:
            spec.shape = (spec.shape[0], _format().channels, *spec.shape[2:])
    return original(function, specs or input_spec, **kwargs)


def _save(original: Any, layer: Any, path: str, *args: Any, **kwargs: Any) -> None:
    original(layer, path, *args, **kwargs)
    if not _format().is_rgb:
        # The script writes deploy.yaml after this.
        atexit.register(_describe_images, Path(path).parent / "deploy.yaml", _format())


def _describe_images(path: Path, image_format: ImageFormat) -> None:
    """Write what images a model takes into the ``deploy.yaml`` of PaddleSeg's ``export.py``."""
    if path.is_file():
        content = read_yaml(path)
        content["Deploy"]["input_shape"][1] = image_format.channels
        content["liteseg"] = {"image": image_format.to_json()}
        path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _read_deploy_yaml(original: Any, self: DeployConfig, path: str) -> None:
    original(self, path)
    entry = (self.dic.get("liteseg") or {}).get("image") or {}
    channels = self.dic["Deploy"].get("input_shape", (None, 3))[1]
    image_format = ImageFormat.from_json(entry, channels)
    self._transforms = compose(self._transforms.transforms, image_format)


def _follow_the_config() -> None:
    wrap(core, "predict", _predict)
    wrap(paddle.jit, "to_static", _to_static)
    wrap(paddle.jit, "save", _save)
    wrap(DeployConfig, "__init__", _read_deploy_yaml)


ENTRIES = (
    for_scripts(
        "image-channels",
        "paddleseg.core.predict, paddle.jit.to_static, paddle.jit.save, DeployConfig.__init__",
        "predict.py, export.py and deploy/python/infer.py take RGB of 8 bits, also for a model of "
        "other images (PaddleSeg issue 3907)",
        "they take the images of the config",
        _follow_the_config,
    ),
)
"""What only PaddleSeg's unmodified scripts need."""
