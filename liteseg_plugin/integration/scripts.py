"""Errors in plain sentences for PaddleSeg's unmodified scripts: one record each in ``ENTRIES``.

PaddleSeg's functions where a user's mistake first shows are replaced by ones that call the
functions of the plugin, which the plugin's own commands call without any replacement.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.io.dataloader.dataloader_iter import (
    _DataLoaderIterMultiProcess,
    _DataLoaderIterSingleProcess,
)
from paddleseg import core
from paddleseg.cvlibs import Config
from paddleseg.cvlibs.builder import Builder
from paddleseg.datasets import Dataset
from paddleseg.optimizers.optimizer import BaseOptimizer
from paddleseg.transforms import Compose
from paddleseg.utils import logger

from liteseg_plugin.datasets import validation
from liteseg_plugin.datasets.image_compose import format_of
from liteseg_plugin.errors import LitesegError, printable_lines
from liteseg_plugin.integration import config, samples
from liteseg_plugin.integration.entry import for_scripts, wrap, wrap_in_utils
from liteseg_plugin.system.device import paddle_devices
from liteseg_plugin.training import checkpoint, processes
from liteseg_plugin.training.run import RunRecord, Start, logged
from liteseg_plugin.training.settings import Settings
from liteseg_plugin.training.validation import check_not_empty
from liteseg_plugin.weights import load_matching_weights, load_trained, local_path

# paddleseg.core.train is the function; its module has the functions that it calls.
_loop = sys.modules["paddleseg.core.train"]
_skip_downloads = False
_raised_in_thread: LitesegError | None = None
last_config: dict[str, Any] | None = None
"""The config that the script read last."""


def skip_backbone_download() -> None:
    """Skip weights that a config names by URL: the script loads full weights after building."""
    global _skip_downloads
    _skip_downloads = True


def explain(error: BaseException) -> LitesegError | None:
    """Return the error of the plugin that Paddle's data loader hides in another one.

    In a thread it gives a SystemError about a queue; from a worker process, the text of a
    traceback.

    Returns:
        The error, or None if ``error`` has another cause.
    """
    if isinstance(error, LitesegError):
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        return type(error)(str(error).rpartition(name)[2].strip())
    if isinstance(error, SystemError) and "queue" in str(error):
        return _raised_in_thread
    return None


# --- replacements: each gets the original first --------------------------------------------------


def _read_config(original: Any, self: Config, path: str, *args: Any, **kwargs: Any) -> None:
    path = str(config.find_config(path))
    global last_config
    with config.config_errors(path):
        config.check_keys(path, kwargs.get("opts"))
        original(self, path, *args, **kwargs)
    last_config = copy.deepcopy(self.dic)  # as it was read; PaddleSeg changes it


def _find_component(original: Any, self: Builder, class_type: str) -> Any:
    config.check_component(self.comp_list, class_type)
    return original(self, class_type)


def _build_component(original: Any, self: Builder, cfg: dict) -> Any:
    if isinstance(self, config.ConfigBuilder):
        return original(self, cfg)
    return config.build_component(
        lambda cfg: original(self, cfg), self, cfg, downloads=not _skip_downloads
    )


def _group_parameters(original: Any, self: BaseOptimizer, model: paddle.nn.Layer) -> list:
    config.check_parameter_groups(self.custom_cfg, model)
    return original(self, model)


def _read_sample(original: Any, self: Dataset, index: int) -> dict:
    def check(data: dict) -> dict:
        label = data.get("label")
        if isinstance(label, np.ndarray):
            validation.check_label(
                label, data["img"].shape[:2], self.num_classes, self.ignore_index
            )
        return data

    checked = copy.copy(self)  # others may use its transforms at the same time
    checked.transforms = copy.copy(self.transforms)
    checked.transforms.transforms = [check, *self.transforms.transforms]
    return original(checked, index)


def _read_and_transform(original: Any, self: Compose, data: dict) -> dict:
    image_format = format_of(self)
    return samples.read_and_transform(lambda data: original(self, data), image_format, data)


def _set_device(original: Any, device: str) -> None:
    # The scripts ask for a GPU by default; only the user's own --device is held to.
    words = (word.partition("=")[0] for word in sys.argv)
    if any(word[:4] == "--de" and "--device".startswith(word) for word in words):
        paddle_devices().choose(device)
    original(device)


def _train(original: Any, *args: Any, **kwargs: Any) -> None:
    given = inspect.signature(original).bind(*args, **kwargs)
    given.apply_defaults()
    processes.check_batch_is_filled(given.arguments["train_dataset"], given.arguments["batch_size"])
    original(*args, **kwargs)


def _train_on_record(original: Any, *args: Any, **kwargs: Any) -> None:
    bound = inspect.signature(original).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if last_config is None:
        original(*args, **kwargs)
        return
    folder, resumed = Path(given["save_dir"]), given.get("resume_model")
    flags = {f.name: given[f.name] for f in dataclasses.fields(Settings) if f.name in given}
    record = RunRecord.of(
        {**last_config, "iters": given["iters"], "batch_size": given["batch_size"]},
        flags,
        [given["train_dataset"], *filter(None, [given["val_dataset"]])],
        Start.now(Path(resumed) if resumed else None, paddle.get_device()),
    )
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        record.write(folder, RunRecord.read(folder) if resumed else None)
    with logged(folder):
        original(*args, **kwargs)


def _evaluate(original: Any, model: Any, eval_dataset: Any, *args: Any, **kwargs: Any) -> Any:
    check_not_empty(eval_dataset)
    return original(model, eval_dataset, *args, **kwargs)


def _download(original: Any, url: str) -> str:
    return local_path(url)


def _load_partly(original: Any, model: paddle.nn.Layer, pretrained_model: str | None) -> None:
    if pretrained_model is None:
        original(model, pretrained_model)
    else:
        load_matching_weights(model, pretrained_model)


def _load_whole(original: Any, model: paddle.nn.Layer, pretrained: str | None) -> None:
    if pretrained is None:
        original(model, pretrained)
    else:
        load_trained(model, pretrained)


def _resume(original: Any, model: Any, optimizer: Any, resume_model: str | None) -> int:
    if resume_model is None:
        return original(model, optimizer, resume_model)
    folder = Path(resume_model)
    iteration = checkpoint.iteration_of(folder)
    checkpoint.restore(folder, model, optimizer)
    logger.info(f"Resumed from {resume_model}")
    return iteration


def _load_in_thread(original: Any, self: Any, *args: Any) -> None:
    global _raised_in_thread
    try:
        original(self, *args)
    except Exception as error:
        # Without this, the thread dies and the main thread waits for its batch forever.
        _raised_in_thread = explain(error)
        self._exit_thread_unexpectedly()
        if _raised_in_thread is None:
            raise


def _print_error(original: Any, kind: type, error: BaseException, trace: Any) -> None:
    explained = explain(error)
    if explained is None:
        original(kind, error, trace)
    else:
        print(f"error: {printable_lines(explained)}", file=sys.stderr)


def _check_samples() -> None:
    wrap(Dataset, "__getitem__", _read_sample)
    wrap(Compose, "__call__", _read_and_transform)


def _check_numbers_of_samples() -> None:
    for module in (_loop, core):
        wrap(module, "train", _train)
        wrap(module, "evaluate", _evaluate)


def _keep_settings() -> None:
    for module in (_loop, core):
        wrap(module, "train", _train_on_record)


def _load_without_running_code() -> None:
    wrap_in_utils("load_pretrained_model", _load_partly)
    wrap_in_utils("load_entire_model", _load_whole)
    wrap(_loop, "resume", _resume)


def _end_with_the_thread() -> None:
    for iterator in (_DataLoaderIterSingleProcess, _DataLoaderIterMultiProcess):
        wrap(iterator, "_thread_loop", _load_in_thread)


ENTRIES = (
    for_scripts(
        "config-errors",
        "Config.__init__",
        "a config that is missing, or not valid YAML, gives a traceback; one with exploding YAML "
        "aliases takes all memory",
        "the file is checked first; the error names it and files with similar names; the plugin's "
        "own configs are found by name",
        lambda: wrap(Config, "__init__", _read_config),
    ),
    for_scripts(
        "unknown-component",
        "Builder.load_component_class",
        "the error for an unknown component lists no choices",
        "it lists the registered names",
        lambda: wrap(Builder, "load_component_class", _find_component),
    ),
    for_scripts(
        "backbone-download",
        "Builder.build_component",
        "evaluation, prediction and export need the internet although full weights are given; the "
        "cause of a failed component is hidden",
        "weights named by URL are skipped where --model_path or --resume_model is given; the error "
        "names the component and the arguments that it takes",
        lambda: wrap(Builder, "build_component", _build_component),
    ),
    for_scripts(
        "parameter-groups",
        "BaseOptimizer._collect_params",
        "optimizer.custom_cfg for a part that the network lacks has no effect",
        "it is an error, which lists the parts",
        lambda: wrap(BaseOptimizer, "_collect_params", _group_parameters),
    ),
    for_scripts(
        "sample-errors",
        "Dataset.__getitem__, Compose.__call__",
        "errors do not name the image or label; labels out of range and JPEGs truncated are "
        "trained with",
        "images and labels are checked as they are read; the error names the file",
        _check_samples,
    ),
    for_scripts(
        "empty-data",
        "paddleseg.core.train, paddleseg.core.evaluate",
        "training waits forever where the images do not fill a batch; evaluation of an empty list "
        "fails obscurely",
        "both are errors before the first batch",
        _check_numbers_of_samples,
    ),
    for_scripts(
        "run-record",
        "paddleseg.core.train, Config.__init__",
        "the folder of a run does not say how it was trained",
        "config.yml, run.json and train.log are written into it, as liteseg train does",
        _keep_settings,
    ),
    for_scripts(
        "weights-errors",
        "load_pretrained_model, load_entire_model, resume",
        "weights of another network are accepted with a warning for each array; paddle.load runs "
        "code that a file holds",
        "the plugin's strict loading is used, which runs no code",
        _load_without_running_code,
    ),
    for_scripts(
        "missing-device",
        "set_device",
        "--device gpu trains on the CPU where there is no GPU",
        "a device that was given on the command line and is missing is an error",
        lambda: wrap_in_utils("set_device", _set_device),
    ),
    for_scripts(
        "download-errors",
        "download_pretrained_model",
        "a failed download gives a traceback, and a truncated one is kept",
        "the plugin downloads: it resumes, checks and says how to work offline",
        lambda: wrap_in_utils("download_pretrained_model", _download),
    ),
    for_scripts(
        "loader-thread",
        "DataLoader's _thread_loop (threads and worker processes)",
        "a sample that cannot be read makes training wait forever",
        "the loop ends with the error of the sample",
        _end_with_the_thread,
    ),
    for_scripts(
        "tracebacks",
        "sys.excepthook",
        "an error of the plugin is printed with the traceback of PaddleSeg's script",
        "its message is printed alone",
        lambda: wrap(sys, "excepthook", _print_error),
    ),
)
"""What only PaddleSeg's unmodified scripts need."""
