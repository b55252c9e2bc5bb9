"""What is broken between PaddleSeg and Paddle, one entry each: detected by behaviour, and mended.

Covered are paddleseg 2.8.0 and PaddleSeg's develop branch on Paddle 2.6 and 3.0 to 3.3. Nothing
here asks for a version: PaddleSeg's develop branch calls itself 0.0.0.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np
import paddle
import yaml
from paddleseg.core import train as _  # noqa: F401 - loads the modules patched below
from paddleseg.cvlibs import manager
from paddleseg.cvlibs.builder import Builder
from paddleseg.models import losses as paddleseg_losses
from paddleseg.utils import logger, metrics, utils

from liteseg_plugin.losses.ohem import OhemCrossEntropyLoss
from liteseg_plugin.metrics.confusion import calculate_area

# `paddleseg.core.train` is the function; the module of that name is where loss_computation lives.
_train_module = sys.modules["paddleseg.core.train"]


class Entry(NamedTuple):
    """One incompatibility.

    Attributes:
        name: Its name in ``liteseg doctor``.
        symptom: What a user sees without the repair.
        repair_text: What is done about it.
        reference: Where it was reported or measured.
        is_broken: Probes the stock code and tells whether the symptom shows here.
        repair: Mends it; does no harm where nothing is broken.
        always: Repair without probing first, because the probe is slow, or the repair is better
            than the original even where that works.
    """

    name: str
    symptom: str
    repair_text: str
    reference: str
    is_broken: Callable[[], bool]
    repair: Callable[[], None]
    always: bool = False


_applied: dict[str, bool] = {}


def apply() -> None:
    """Repair what is broken here. Idempotent."""
    for entry in ENTRIES:
        if entry.name not in _applied:
            _applied[entry.name] = entry.always or entry.is_broken()
            if _applied[entry.name]:
                entry.repair()


def is_active(name: str) -> bool:
    """Tell whether the repair of this name was made in this process."""
    return _applied.get(name, False)


# --- zlib ---------------------------------------------------------------------------------------


def _paddle_breaks_zlib() -> bool:
    code = "import paddle, zlib; zlib.decompress(zlib.compress(bytes(10000)))"
    # -S: without site-packages' .pth files, one of which may import zlib first; so the path is
    # handed over.
    code = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    return subprocess.run([sys.executable, "-S", "-c", code], capture_output=True).returncode != 0


# --- MKL ----------------------------------------------------------------------------------------

# MKL's own numbers for its code paths, fastest first, and what a processor must know for each.
_MKL_PATHS = {
    "7": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
    "5": {"avx2", "fma"},
}
_MKL_VARIABLE = "MKL_DEBUG_CPU_TYPE"


def mkl_path(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the path that MKL should take and does not: it asks for the vendor, not for AVX."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except (OSError, UnicodeDecodeError):
        return None  # no Linux
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    processor = {key.strip(): value.split() for key, value in pairs}
    if processor.get("vendor_id") not in (["AuthenticAMD"], ["HygonGenuine"]):
        return None
    knows = set(processor.get("flags", ()))
    return next((path for path, needs in _MKL_PATHS.items() if needs <= knows), None)


def _mkl_ignores_avx() -> bool:
    # Paddle brings an MKL of 2019; later ones do not know the variable.
    return _MKL_VARIABLE not in os.environ and mkl_path() is not None


def _tell_mkl_of_avx() -> None:
    os.environ[_MKL_VARIABLE] = mkl_path()


# --- loss ---------------------------------------------------------------------------------------


def _ohem_raises_type_error() -> bool:
    loss = paddleseg_losses.OhemCrossEntropyLoss(min_kept=1)
    try:
        loss(paddle.zeros([1, 2, 2, 2]), paddle.zeros([1, 2, 2], dtype="int64"))
    except (TypeError, ValueError):
        return True
    return False


def _register_ohem() -> None:
    manager.LOSSES.components_dict[OhemCrossEntropyLoss.__name__] = OhemCrossEntropyLoss


def _cross_entropy_raises_type_error() -> bool:
    loss = paddleseg_losses.CrossEntropyLoss()
    try:
        loss(paddle.zeros([1, 2, 2, 2]), paddle.zeros([1, 2, 2], dtype="int64"))
    except TypeError:
        return True
    return False


def _average_cross_entropy_in_float() -> None:
    def average(
        self: paddle.nn.Layer,
        logit: paddle.Tensor,
        label: paddle.Tensor,
        semantic_weights: paddle.Tensor | None,
        loss: paddle.Tensor,
    ) -> paddle.Tensor:
        labelled = label != self.ignore_index
        counted = labelled if self.avg_non_ignore else paddle.ones_like(labelled)
        counted = counted.astype("float32")
        loss = loss.reshape(counted.shape) * counted
        if semantic_weights is not None:
            loss = loss * semantic_weights
        share = paddle.ones_like(counted)
        if self.weight is not None:
            true_class = paddle.where(labelled, label, paddle.zeros_like(label))
            share = paddle.gather(self.weight, true_class.flatten()).reshape(label.shape)
        if self.top_k_percent_pixels == 1.0:
            return loss.mean() / ((counted * share).mean() + self.EPS)
        hardest = int(self.top_k_percent_pixels * loss.size)
        loss, indices = paddle.topk(loss.flatten(), hardest)
        share = paddle.gather(share.flatten(), indices).detach()
        return loss.mean() / (share.mean() + self.EPS)

    paddleseg_losses.CrossEntropyLoss._post_process_loss = average


def _dice_changes_labels() -> bool:
    label = paddle.full([1, 2, 2], 255, dtype="int64")
    paddleseg_losses.DiceLoss()(paddle.zeros([1, 2, 2, 2]), label)
    return bool((label != 255).any())


def _give_dice_labels_of_its_own() -> None:
    forward = paddleseg_losses.DiceLoss.forward

    @functools.wraps(forward)
    def forward_on_copy(
        self: paddle.nn.Layer, logits: paddle.Tensor, labels: paddle.Tensor
    ) -> paddle.Tensor:
        return forward(self, logits, labels.clone())

    paddleseg_losses.DiceLoss.forward = forward_on_copy


def _training_indexes_scalar_losses() -> bool:
    class Net(paddle.nn.Conv2D):
        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            return [super().forward(x)]

    class OnePixel(paddle.io.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            return {"img": np.ones((3, 1, 1), "float32"), "label": np.zeros((1, 1), "int64")}

    net = Net(3, 2, 1)
    loss = paddle.nn.CrossEntropyLoss(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _train_module.train(
                net,
                OnePixel(),
                optimizer=paddle.optimizer.SGD(0.1, net.parameters()),
                save_dir=folder,
                iters=1,
                batch_size=1,
                log_iters=1,
                losses={"types": [loss], "coef": [1]},
            )
        except IndexError:
            return True
    return False


def _give_losses_one_dimension() -> None:
    computation = _train_module.loss_computation

    @functools.wraps(computation)
    def loss_computation(*args: Any, **kwargs: Any) -> list[paddle.Tensor]:
        return [loss.reshape([1]) for loss in computation(*args, **kwargs)]

    _train_module.loss_computation = loss_computation


# --- evaluation ---------------------------------------------------------------------------------


def _area_raises_value_error() -> bool:
    pixel = paddle.zeros([1, 1, 1], dtype="int64")
    try:
        metrics.calculate_area(pixel, pixel, 1)
    except ValueError:
        return True
    return False


def _count_area_in_one_pass() -> None:
    original = metrics.calculate_area

    @functools.wraps(original)
    def area(pred, label, num_classes, ignore_index=255, **kwargs):
        if any(kwargs.values()):  # use_multilabel, which has no single class a pixel
            return original(pred, label, num_classes, ignore_index, **kwargs)
        return calculate_area(pred, label, num_classes, ignore_index)

    metrics.calculate_area = area


# --- backbone -----------------------------------------------------------------------------------

_skip_download = False
_building = 0


def skip_backbone_download(skip: bool = True) -> None:
    """Leave weights that a config names by URL alone: full weights are loaded after building."""
    global _skip_download
    _skip_download = skip


def _building_downloads() -> bool:
    class AttemptedError(Exception):
        pass

    def refuse(url: str) -> str:
        raise AttemptedError(url)

    download, utils.download_pretrained_model = utils.download_pretrained_model, refuse
    try:
        utils.load_pretrained_model(paddle.nn.ReLU(), "https://localhost/weights.tar.gz")
    except AttemptedError:
        return True
    finally:
        utils.download_pretrained_model = download
    return False


def _allow_skipping_downloads() -> None:
    build = Builder.build_component
    load = utils.load_pretrained_model

    @functools.wraps(build)
    def build_component(self: Builder, cfg: dict) -> Any:
        global _building
        _building += 1
        try:
            return build(self, cfg)
        finally:
            _building -= 1

    @functools.wraps(load)
    def load_pretrained_model(model: paddle.nn.Layer, pretrained_model: str | None) -> None:
        # Only while a config is built: the full weights themselves may be given by URL.
        if _skip_download and _building and urlparse(pretrained_model or "").netloc:
            logger.info(f"Left alone, as full weights are given: {pretrained_model}")
            return
        load(model, pretrained_model)

    Builder.build_component = build_component
    replace_in_utils("load_pretrained_model", load_pretrained_model)


def replace_in_utils(name: str, function: Callable[..., Any]) -> None:
    """Replace a function of ``paddleseg.utils.utils``, which the package above re-exports."""
    package = sys.modules["paddleseg.utils"]
    if getattr(package, name, None) is getattr(utils, name):
        setattr(package, name, function)
    setattr(utils, name, function)


# --- export -------------------------------------------------------------------------------------


def _export_names_missing_file() -> bool:
    spec = [paddle.static.InputSpec([1, 1], "float32")]
    with tempfile.TemporaryDirectory() as folder:
        paddle.jit.save(paddle.jit.to_static(paddle.nn.ReLU(), spec), f"{folder}/model")
        return not Path(folder, "model.pdmodel").exists()


def _repair_deploy_yaml_at_exit() -> None:
    save = paddle.jit.save

    @functools.wraps(save)
    def save_and_remember(layer: Any, path: str, *args: Any, **kwargs: Any) -> None:
        save(layer, path, *args, **kwargs)
        # PaddleSeg's script writes deploy.yaml after this, so it is mended when the script ends.
        atexit.register(repair_deploy_yaml, Path(path).parent)

    paddle.jit.save = save_and_remember


def repair_deploy_yaml(folder: Path) -> None:
    """Let the ``deploy.yaml`` of an exported folder name the model file that is there."""
    path = folder / "deploy.yaml"
    if not path.is_file():
        return
    from liteseg_plugin.system.text import read_yaml

    content = read_yaml(path)
    model = folder / content["Deploy"]["model"]
    if not model.exists() and model.with_suffix(".json").exists():
        content["Deploy"]["model"] = model.with_suffix(".json").name
        path.write_text(yaml.safe_dump(content), encoding="utf-8")


# --- inference ----------------------------------------------------------------------------------


def _memory_optimisation_raises() -> bool:
    spec = [paddle.static.InputSpec([1, 1], "float32")]
    with tempfile.TemporaryDirectory() as folder:
        net = paddle.nn.Sequential(paddle.nn.Linear(1, 1), paddle.nn.ReLU())
        paddle.jit.save(paddle.jit.to_static(net, spec), f"{folder}/model")
        [model] = (p for p in Path(folder).iterdir() if p.suffix in (".json", ".pdmodel"))
        config = paddle.inference.Config(str(model), f"{folder}/model.pdiparams")
        config.disable_glog_info()
        _optimise_memory(config)
        try:
            paddle.inference.create_predictor(config)
        except Exception:
            return True
    return False


_optimise_memory = paddle.inference.Config.enable_memory_optim


def _switch_to_new_format_for_memory_optimisation() -> None:
    @functools.wraps(_optimise_memory)
    def enable_memory_optim(self: paddle.inference.Config, *args: Any) -> None:
        if self.prog_file().endswith(".json"):
            self.enable_new_ir(True)
            self.enable_new_executor(True)
        _optimise_memory(self, *args)

    # On the class itself, as scripts have imported it before PaddleSeg.
    paddle.inference.Config.enable_memory_optim = enable_memory_optim


ENTRIES = (
    Entry(
        "zlib-first",
        "Python crashes (segmentation fault) where zlib is loaded after Paddle",
        "import zlib before Paddle, as importing this package does",
        "stack facts: Paddle 2.6.2's wheel exports a zlib of its own",
        _paddle_breaks_zlib,
        lambda: None,
        always=True,
    ),
    Entry(
        "mkl-amd",
        "training on an AMD processor is about three times slower than it need be",
        "MKL_DEBUG_CPU_TYPE names MKL's path for AVX2 or AVX-512, unless it is set already",
        "measured (docs/training.md); MKL's paths other than the slowest ask for Intel",
        _mkl_ignores_avx,
        _tell_mkl_of_avx,
    ),
    Entry(
        "ohem-dtype",
        "training stops: TypeError, OhemCrossEntropyLoss adds float32 and int64",
        "the plugin's OhemCrossEntropyLoss is registered instead",
        "paddleseg 2.8.0 on Paddle 3",
        _ohem_raises_type_error,
        _register_ohem,
        always=True,
    ),
    Entry(
        "cross-entropy-dtype",
        "training stops: TypeError, CrossEntropyLoss multiplies float32 and int64",
        "its average is computed in float32",
        "paddleseg 2.8.0 on Paddle 3",
        _cross_entropy_raises_type_error,
        _average_cross_entropy_in_float,
    ),
    Entry(
        "dice-labels",
        "DiceLoss turns ignored pixels into class 0 for losses after it, and stops those before it",
        "it works on a copy of the labels",
        "paddleseg 2.8.0 and develop",
        _dice_changes_labels,
        _give_dice_labels_of_its_own,
    ),
    Entry(
        "scalar-losses",
        "training stops at its first log line: IndexError, too many indices for a 0-D loss",
        "loss_computation gives losses of shape (1,)",
        "paddleseg 2.8.0 on Paddle 2.6 and 3",
        _training_indexes_scalar_losses,
        _give_losses_one_dimension,
        always=True,
    ),
    Entry(
        "calculate-area",
        "evaluation stops: ValueError, 0-D tensors cannot be concatenated (or it is slow)",
        "pixels are counted by one bincount instead of one pass a class",
        "paddleseg 2.8.0 on Paddle 2.6 and 3",
        _area_raises_value_error,
        _count_area_in_one_pass,
        always=True,
    ),
    Entry(
        "backbone-download",
        "evaluation, prediction and export need the network although full weights are given",
        "weights named by URL are left alone where --model_path or --resume_model is given",
        "paddleseg 2.8.0 and develop",
        _building_downloads,
        _allow_skipping_downloads,
        always=True,
    ),
    Entry(
        "deploy-yaml",
        "PaddleSeg's deploy/python/infer.py finds no model: deploy.yaml names model.pdmodel",
        "deploy.yaml names the file that Paddle wrote (model.json)",
        "PaddleSeg issues 3909, 3932, 3868",
        _export_names_missing_file,
        _repair_deploy_yaml_at_exit,
        always=True,
    ),
    Entry(
        "inference-memory",
        "Paddle Inference refuses a model.json once memory optimisation is on, as PaddleSeg's "
        "deploy/python/infer.py has it",
        "the switches for Paddle 3's model format are set with it",
        "stack facts: enable_memory_optim() without enable_new_ir(True) raises",
        _memory_optimisation_raises,
        _switch_to_new_format_for_memory_optimisation,
        always=True,
    ),
)
"""Every known incompatibility, in the order of repair."""
