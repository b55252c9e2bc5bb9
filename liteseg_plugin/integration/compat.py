"""Repairs of Paddle, and of how PaddleSeg exports and infers, as records in ``ENTRIES``.

They are detected by behaviour and cover paddleseg 2.8.0 and PaddleSeg's develop branch on Paddle
2.6 and 3.0 to 3.3. Versions are never compared: PaddleSeg's develop branch calls itself 0.0.0.
"""

from __future__ import annotations

import atexit
import copy
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import yaml
from paddleseg.transforms import ResizeByShort
from paddleseg.utils import download, metrics, progbar

from liteseg_plugin.errors import DataError
from liteseg_plugin.integration import old_format
from liteseg_plugin.integration.entry import Entry, wrap
from liteseg_plugin.system import archives
from liteseg_plugin.system.pixels import check_pixels
from liteseg_plugin.system.progress import ProgressBar
from liteseg_plugin.system.text import read_yaml

# --- zlib ---------------------------------------------------------------------------------------


def _paddle_breaks_zlib() -> bool:
    code = "import paddle, zlib; zlib.decompress(zlib.compress(bytes(10000)))"
    # -S: without site-packages' .pth files, one of which may import zlib first; so the path is
    # passed on.
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
    os.environ[_MKL_VARIABLE] = mkl_path() or ""


# --- export -------------------------------------------------------------------------------------


def _export_names_missing_file() -> bool:
    spec = [paddle.static.InputSpec([1, 1], "float32")]
    with tempfile.TemporaryDirectory() as folder:
        paddle.jit.save(paddle.jit.to_static(paddle.nn.ReLU(), spec), f"{folder}/model")
        return not Path(folder, "model.pdmodel").exists()


def _repair_deploy_yaml_at_exit() -> None:
    def save(original: Any, layer: Any, path: str, *args: Any, **kwargs: Any) -> None:
        original(layer, path, *args, **kwargs)
        # PaddleSeg's script writes deploy.yaml after this, so it is repaired when the script ends.
        atexit.register(repair_deploy_yaml, Path(path).parent)

    wrap(paddle.jit, "save", save)


def repair_deploy_yaml(folder: Path) -> None:
    """Make the ``deploy.yaml`` of an exported folder name the existing model file."""
    path = folder / "deploy.yaml"
    if not path.is_file():
        return
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
    def enable_memory_optim(original: Any, self: paddle.inference.Config, *args: Any) -> None:
        if self.prog_file().endswith(".json"):
            self.enable_new_ir(True)
            self.enable_new_executor(True)
        original(self, *args)

    # On the class itself, as scripts have imported it before PaddleSeg.
    wrap(paddle.inference.Config, "enable_memory_optim", enable_memory_optim)


# --- transforms ---------------------------------------------------------------------------------


def _short_side_remembers() -> bool:
    resize = ResizeByShort(4, max_size=8)
    resize({"img": np.zeros((4, 16, 3), np.uint8), "trans_info": []})
    return resize.short_size != 4


def _resize_each_image_alone() -> None:
    def call(original: Any, self: ResizeByShort, data: dict) -> dict:
        height, width = data["img"].shape[:2]
        scale = min(self.short_size / min(height, width), self.max_size / max(height, width))
        check_pixels("the image after ResizeByShort", round(width * scale), round(height * scale))
        return original(copy.copy(self), data)

    wrap(ResizeByShort, "__call__", call)


# --- progress -----------------------------------------------------------------------------------


def _standard_error_is_a_log() -> bool:
    return sys.stderr is not None and not sys.stderr.isatty()


def _write_sparse_progress() -> None:
    progbar.Progbar = ProgressBar


# --- archives -----------------------------------------------------------------------------------


def _unpacks_links() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(f"{folder}/a.tar", "w") as file:
            for name, kind in (("a", tarfile.DIRTYPE), ("a/link", tarfile.SYMTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, folder
                file.addfile(member)
        try:
            _uncompress(f"{folder}/a.tar", folder, False, False)
        except Exception:
            return False
    return True


_uncompress = download._uncompress_file


def _unpack(path: str, folder: str, delete_file: bool, print_progress: bool) -> str:
    """Unpack an archive, and return the first part of its first name, as PaddleSeg's does."""
    names = archives.unpack(path, folder)
    if not names:
        raise DataError(f"{path} is an empty archive")
    if delete_file:
        os.remove(path)
    return names[0].split("/")[0]


def _unpack_within_bounds() -> None:
    download._uncompress_file = _unpack


ENTRIES = (
    Entry(
        "zlib-first",
        "nothing: zlib is imported first",
        "Python crashes (segmentation fault) if zlib is loaded after Paddle",
        "import zlib before Paddle, as importing this package does",
        "measured: Paddle 2.6.2's wheel exports its own zlib",
        _paddle_breaks_zlib,
        lambda: None,
        always=True,
    ),
    Entry(
        "late-imports",
        "scikit-learn, httpx, requests and paddle.utils.cpp_extension, as Paddle and PaddleSeg see "
        "them; functions of scipy.ndimage and scipy.optimize",
        "every import of PaddleSeg takes more than twice as long: with these it loads pandas, rich "
        "and setuptools",
        "they are loaded when --auc_roc, a download, a compiled operator or a loss of another "
        "model needs them, if this package is imported before Paddle and PaddleSeg",
        "measured: 3.9 s of processor time become 1.7",
        lambda: hasattr(metrics, "skmetrics"),
        lambda: None,  # integration.import_hook has done it
        always=True,
    ),
    Entry(
        "mkl-amd",
        "the environment variable MKL_DEBUG_CPU_TYPE, where it is not set",
        "training on an AMD processor is about three times slower than necessary",
        "MKL_DEBUG_CPU_TYPE names MKL's path for AVX2 or AVX-512, unless it is set already",
        "measured (docs/training.md); MKL's paths other than the slowest ask for Intel",
        _mkl_ignores_avx,
        _tell_mkl_of_avx,
    ),
    Entry(
        "deploy-yaml",
        "paddle.jit.save",
        "PaddleSeg's deploy/python/infer.py fails: deploy.yaml names model.pdmodel",
        "deploy.yaml names the file that Paddle wrote (model.json)",
        "PaddleSeg issues 3909, 3932, 3868",
        _export_names_missing_file,
        _repair_deploy_yaml_at_exit,
        always=True,
        scripts_only=True,
    ),
    Entry(
        "inference-memory",
        "paddle.inference.Config.enable_memory_optim",
        "Paddle Inference refuses a model.json once memory optimisation is on, as PaddleSeg's "
        "deploy/python/infer.py has it",
        "the switches for Paddle 3's model format are set with it",
        "measured: enable_memory_optim() without enable_new_ir(True) raises",
        _memory_optimisation_raises,
        _switch_to_new_format_for_memory_optimisation,
        always=True,
    ),
    Entry(
        "old-format",
        "paddle.argmax, matmul, sum and eight more, where FLAGS_enable_pir_api is 0",
        "a model cannot be exported to model.pdmodel: argument (position 1) must be Value, but got "
        "Variable",
        "they write Paddle 2's operators, as earlier Paddles do",
        "measured: Paddle 3.3.1",
        old_format.lacks_functions,
        old_format.complete,
    ),
    Entry(
        "short-side",
        "paddleseg.transforms.ResizeByShort.__call__",
        "after an image whose long side reached max_size, later images become smaller, too; a thin "
        "image of few bytes takes all memory",
        "each image is resized by itself, within --max_pixels",
        "paddleseg 2.8.0 and develop",
        _short_side_remembers,
        _resize_each_image_alone,
        always=True,
    ),
    Entry(
        "progress-bar",
        "paddleseg.utils.progbar.Progbar",
        "evaluation writes hundreds of lines of progress into a log",
        "a line every 30 seconds, where standard error is not a terminal",
        "paddleseg 2.8.0 and develop",
        _standard_error_is_a_log,
        _write_sparse_progress,
    ),
    Entry(
        "archives",
        "paddleseg.utils.download._uncompress_file",
        "an archive that PaddleSeg downloads can write links, and as much as the disk has; before "
        "Python 3.14, outside of its folder",
        "it is unpacked member by member within bounds; other paths, links and devices are errors",
        "paddleseg 2.8.0 and develop",
        _unpacks_links,
        _unpack_within_bounds,
        always=True,
    ),
)
"""Repairs that are not about training."""
