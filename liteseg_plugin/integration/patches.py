"""PaddleSeg's silent or obscure failures, said in one sentence that names the thing.

:func:`install` wraps the places of PaddleSeg where a user's mistake first shows (config, builder,
samples, weights, download), so that every route (a PaddleSeg script, ``liteseg train``) says the
same. The wrapped code decides; nothing that works is refused, but what would go on silently wrong.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import paddle
import requests
import yaml
from paddle.io.dataloader.dataloader_iter import (
    _DataLoaderIterMultiProcess,
    _DataLoaderIterSingleProcess,
)
from paddleseg import core as _  # noqa: F401 - loads the modules wrapped below
from paddleseg.cvlibs import Config
from paddleseg.cvlibs.builder import Builder
from paddleseg.datasets import Dataset
from paddleseg.optimizers.optimizer import BaseOptimizer
from paddleseg.transforms import Compose
from paddleseg.utils import logger, utils

from liteseg_plugin.datasets import validation
from liteseg_plugin.errors import (
    ConfigError,
    DataError,
    LitesegError,
    WeightsError,
    printable_lines,
)
from liteseg_plugin.integration.compat import replace_in_utils
from liteseg_plugin.models.pp_liteseg import PPLiteSeg
from liteseg_plugin.system.text import read_yaml
from liteseg_plugin.training import checkpoint, processes
from liteseg_plugin.weights import load_matching_weights, load_weights

_installed = False
_raised_in_thread: LitesegError | None = None


def install() -> None:
    """Wrap PaddleSeg's functions, once."""
    global _installed
    if _installed:
        return
    _installed = True
    _wrap(Config, "__init__", _read_config)
    _wrap(Builder, "load_component_class", _find_component)
    _wrap(Builder, "build_component", _build)
    _wrap(BaseOptimizer, "_collect_params", _group_parameters)
    # For prediction, and data sets of PaddleSeg's such as OpticDiscSeg: the plugin's own Dataset
    # and Cityscapes read and check by themselves.
    _wrap(Dataset, "__getitem__", _read_sample)
    _wrap(Compose, "__call__", _read_and_transform)
    loop = sys.modules["paddleseg.core.train"]  # paddleseg.core.train itself is the function
    for module in (loop, sys.modules["paddleseg.core"]):
        _wrap(module, "train", _train)
        _wrap(module, "evaluate", _evaluate)
    _wrap(loop, "resume", _resume)
    for name, wrapper in (
        ("download_pretrained_model", _download),
        ("load_pretrained_model", _load_partly),
        ("load_entire_model", _load_whole),
    ):
        replace_in_utils(name, _wrapped(getattr(utils, name), wrapper))
    for iterator in (_DataLoaderIterSingleProcess, _DataLoaderIterMultiProcess):
        _wrap(iterator, "_thread_loop", _load_in_thread)
    _wrap(sys, "excepthook", _excepthook)


def explain(error: BaseException) -> LitesegError | None:
    """Return the error behind ``error`` that was made for people, if there is one.

    Paddle's data loader hides it: in a thread it gives a SystemError about a queue, from a worker
    process the text of a traceback.
    """
    if isinstance(error, LitesegError):
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        return type(error)(str(error).rpartition(name)[2].strip())
    if isinstance(error, SystemError) and "queue" in str(error):
        return _raised_in_thread
    return None


# --- wrappers: each gets the original first ------------------------------------------------------


def _read_config(original: Callable[..., None], self: Config, path: str, *args: Any, **kw: Any):
    if not Path(path).is_file():
        known = [str(p) for p in Path(path).parent.glob("*.y*ml")]
        close = difflib.get_close_matches(str(path), known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"config not found: {path}{hint}")
    _check_config_file(Path(path))
    try:
        original(self, path, *args, **kw)
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is no valid YAML: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"config {path}: its _base_ {error.filename} does not exist") from error
    except (AssertionError, RuntimeError, TypeError, AttributeError) as error:
        reason = error.__context__ or error
        raise ConfigError(f"config {path}: {reason}") from error


def _check_config_file(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a config that YAML's aliases make too large, or that is its own ``_base_``.

    Raises:
        ConfigError: If it, or a ``_base_`` of it, is such a file or is no YAML.
    """
    if path.resolve() in above:
        raise ConfigError(f"config {path} is its own _base_")
    try:
        content = read_yaml(path, yaml.FullLoader)
    except ConfigError as error:
        raise ConfigError(f"config {error}") from error
    except OSError:
        return  # PaddleSeg's own reading says which
    bases = content.get("_base_") if isinstance(content, dict) else None
    for base in [bases] if isinstance(bases, str) else bases or ():
        if isinstance(base, str):
            _check_config_file(path.parent / base, (*above, path.resolve()))


def _find_component(original: Callable[..., Any], self: Builder, class_type: str):
    for registry in self.comp_list:
        if class_type in registry.components_dict:
            return original(self, class_type)
    everything = {name: r.name for r in self.comp_list for name in r.components_dict}
    close = difflib.get_close_matches(str(class_type), everything, n=5, cutoff=0.5)
    registries = {everything[name] for name in close} or {r.name for r in self.comp_list}
    choices = "; ".join(
        f"{r.name}: {', '.join(sorted(r.components_dict))}"
        for r in self.comp_list
        if r.name in registries
    )
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(f"unknown component {class_type!r}; {hint}Choices are {choices}")


def _build(original: Callable[..., Any], self: Builder, cfg: dict):
    try:
        return original(self, cfg)
    except RuntimeError as error:
        cause = error.__context__
        if cause is None:
            raise
        if isinstance(cause, LitesegError):
            raise cause from None
        name = cfg.get("type")
        if isinstance(cause, TypeError) and "argument" in str(cause):
            accepted = _accepted_arguments(self.load_component_class(name))
            raise ConfigError(f"{name}: {cause}. It takes {accepted}") from cause
        raise ConfigError(f"{name}: {cause}") from cause


def _accepted_arguments(component: Any) -> str:
    names: list[str] = []
    for part in inspect.getmro(component) if inspect.isclass(component) else (component,):
        if inspect.isclass(part) and "__init__" not in vars(part):
            continue
        parameters = inspect.signature(part).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return ", ".join(names) or "the arguments that its documentation lists"


def _group_parameters(original: Callable[..., list], self: BaseOptimizer, model: paddle.nn.Layer):
    """Refuse rates for parts that there are not, which PaddleSeg leaves at the common rate."""
    names = [*dict(model.named_parameters())]
    for group in self.custom_cfg or ():
        part = group.get("name")
        if not part or not any(part in name for name in names):
            raise ConfigError(
                f"optimizer.custom_cfg: no parameter's name has {part!r} in it; the parts of "
                f"{type(model).__name__} are {', '.join(dict(model.named_children()))}"
            )
    return original(self, model)


def _read_sample(original: Callable[..., dict], self: Dataset, index: int):
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


def _read_and_transform(original: Callable[..., dict], self: Compose, data: dict):
    image, label = data.get("img"), data.get("label")
    if not isinstance(image, str):
        return original(self, data)
    flag, labelled = self.read_flag, label is not None
    data["img"] = validation.read_image(image, flag, labelled=labelled).astype(np.float32)
    if isinstance(label, str):
        data["label"] = validation.read_label(label)
    try:
        return original(self, data)
    except Exception as error:
        what = error if isinstance(error, LitesegError) else f"{type(error).__name__}: {error}"
        raise DataError(
            validation.about(image, label if isinstance(label, str) else None, what)
        ) from error


def _train(original: Callable[..., None], *args: Any, **kw: Any):
    values = inspect.signature(original).bind(*args, **kw)
    values.apply_defaults()
    processes.check_batch_is_filled(
        values.arguments["train_dataset"], values.arguments["batch_size"]
    )
    return original(*args, **kw)


def _evaluate(original: Callable[..., Any], model: Any, eval_dataset: Any, *a: Any, **kw):
    if len(eval_dataset) == 0:
        raise DataError("there are no images to evaluate on: the list of val_dataset is empty")
    return original(model, eval_dataset, *a, **kw)


def _download(original: Callable[..., str], url: str):
    try:
        return original(url)
    except (requests.RequestException, OSError) as error:
        raise WeightsError(
            f"cannot download {url} ({type(error).__name__}). To work offline, download it "
            "elsewhere and name the local file: --model_path PATH for full weights, --opts "
            "model.backbone.pretrained=PATH for a backbone (None: start from random weights)"
        ) from error


def _load_partly(original: Callable[..., None], model: paddle.nn.Layer, pretrained: str | None):
    if pretrained is None:
        return original(model, pretrained)
    loaded = load_matching_weights(model, local_path(pretrained))
    logger.info(f"Loaded {loaded} of {len(model.state_dict())} arrays from {pretrained}")


def _resume(original: Callable[..., int], model: Any, optimizer: Any, resume_model: str | None):
    if resume_model is None:
        return original(model, optimizer, resume_model)
    # Not the original, whose paddle.load runs whatever code a file holds.
    folder = Path(resume_model)
    iteration = checkpoint.iteration_of(folder)
    checkpoint.restore(folder, model, optimizer)
    logger.info(f"Resumed from {resume_model}")
    return iteration


def _load_whole(original: Callable[..., None], model: paddle.nn.Layer, pretrained: str | None):
    if pretrained is None or not isinstance(model, PPLiteSeg):
        return original(model, pretrained)
    load_weights(model, local_path(pretrained))


def local_path(path_or_url: str) -> str:
    """Return the path of weights, which are downloaded into PaddleSeg's cache if given by URL."""
    is_url = urlparse(path_or_url).netloc
    return utils.download_pretrained_model(path_or_url) if is_url else path_or_url


def _load_in_thread(original: Callable[..., None], self: Any, *args: Any):
    global _raised_in_thread
    try:
        original(self, *args)
    except Exception as error:
        # Left to itself, the thread dies and the main thread waits for its batch for ever.
        _raised_in_thread = explain(error)
        self._exit_thread_unexpectedly()
        if _raised_in_thread is None:
            raise


def _excepthook(original: Callable[..., None], kind: type, error: BaseException, trace: Any):
    explained = explain(error)
    if explained is None:
        original(kind, error, trace)
    else:
        print(f"error: {printable_lines(explained)}", file=sys.stderr)


def _wrapped(original: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kw: Any) -> Any:
        return wrapper(original, *args, **kw)

    return call


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    setattr(owner, name, _wrapped(getattr(owner, name), wrapper))
