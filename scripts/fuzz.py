"""Fuzz what reads files and command lines: each must give a value, or the error that it documents.

    python scripts/fuzz.py TARGET [--seconds N] [--corpus FOLDER]

It needs atheris (https://github.com/google/atheris), a coverage-guided fuzzer: pip install atheris.
Any other error, more than 20 seconds or 2.5 GB, and any file outside of the folder of an archive
end it; the input is kept as ``crash-...`` in the working folder, and belongs into
``tests/test_fuzzing.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import pickle
import shlex
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

IN_FOLDER = {"one.png": b"png", "model.json": b"{}", "model.pdiparams": b"", "model.onnx": b""}
"""Files that a config, a list or a ``deploy.yaml`` may name."""


def pickles(data: bytes, folder: Path) -> None:
    """Read weights."""
    from liteseg_plugin.errors import WeightsError
    from liteseg_plugin.weights import read_arrays, read_state_dict

    for read in (read_arrays, read_state_dict):
        _expect(WeightsError, read, _file(folder, "model.pdparams", data))


def safetensors(data: bytes, folder: Path) -> None:
    """Read weights in the other format."""
    from liteseg_plugin.errors import WeightsError
    from liteseg_plugin.weights import read_state_dict

    _expect(WeightsError, read_state_dict, _file(folder, "model.safetensors", data))


def torch_files(data: bytes, folder: Path) -> None:
    """Read weights of PyTorch."""
    from liteseg_plugin.errors import WeightsError
    from liteseg_plugin.weights.converting import read_torch

    _expect(WeightsError, read_torch, _file(folder, "model.pth", data))


def onnx_files(data: bytes, folder: Path) -> None:
    """Look for files that an ONNX file names."""
    from liteseg_plugin.errors import ExportError
    from liteseg_plugin.runtimes.base import refuse_external_data

    _expect(ExportError, refuse_external_data, _file(folder, "some.onnx", data))


def sums(data: bytes, folder: Path) -> None:
    """Check a file against a ``SHA256SUMS``."""
    from liteseg_plugin.errors import WeightsError
    from liteseg_plugin.system.checksums import SUMS, check_sum

    _file(folder, SUMS, data)
    _expect(WeightsError, check_sum, folder / "one.png")
    (folder / SUMS).unlink()


def archives(data: bytes, folder: Path) -> None:
    """Unpack an archive, and look around."""
    from liteseg_plugin.errors import DataError
    from liteseg_plugin.system.archives import is_archive, unpack

    inside = tempfile.mkdtemp(dir=folder)
    before = {*os.listdir(folder)} | {"data"}
    path = _file(folder, "data", data)
    is_archive(path)
    _expect(DataError, unpack, path, Path(inside, "to"))
    if {*os.listdir(folder)} - before or {*os.listdir(inside)} - {"to"}:
        raise RuntimeError("the archive wrote outside of its folder")
    shutil.rmtree(inside)


def configs(data: bytes, folder: Path) -> None:
    """Read a config, and one more with ``--opts``, which is the last line."""
    from liteseg_plugin.errors import ConfigError
    from liteseg_plugin.integration.config import load

    path = _file(folder, "config.yml", data)
    _expect(ConfigError, load, str(path))
    last = data.decode("utf-8", "replace").splitlines()[-1:]
    _expect(ConfigError, load, str(path), last)


def deploy(data: bytes, folder: Path) -> None:
    """Read an exported folder."""
    from liteseg_plugin.errors import ExportError
    from liteseg_plugin.exported import ExportedModel

    _file(folder, "deploy.yaml", data)
    _expect(ExportError, ExportedModel.read, folder)


def lists(data: bytes, folder: Path) -> None:
    """Read a list, names of classes, a table of colours, and the entries of ``--map``."""
    from liteseg_plugin.datasets.classes import describe_classes
    from liteseg_plugin.datasets.importing.files import read_table
    from liteseg_plugin.datasets.lists import read_list
    from liteseg_plugin.datasets.relabel import read_map
    from liteseg_plugin.errors import ConfigError, DataError

    path = _file(folder, "labels.txt", data)
    _expect(DataError, read_list, path, folder)
    _expect(DataError, read_list, path, folder, separator=",", labelled=False)
    _expect(ConfigError, describe_classes, {"dataset_root": str(folder)}, 3)
    _expect(DataError, read_table, path)
    _expect(ValueError, read_map, data.decode("utf-8", "replace").split())


def annotations(data: bytes, folder: Path) -> None:
    """Read an annotation of another tool; the first byte chooses the format."""
    from liteseg_plugin.datasets.importing.converting import FORMATS
    from liteseg_plugin.datasets.importing.records import Options
    from liteseg_plugin.errors import DataError

    formats = {"labelme": "one.json", "coco": "one.json", "cvat": "one.xml", "yolo": "one.txt"}
    name, file = [*formats.items()][data[0] % 4] if data else ("coco", "one.json")
    inside = Path(tempfile.mkdtemp(dir=folder))
    for path in ("one.png", "images/train/one.png"):
        _file(inside, path, b"png")
    content = data[1:]
    if name == "yolo":
        head, _, content = content.partition(b"---")
        _file(inside, "data.yaml", head)
    where = inside / ("labels/train" if name == "yolo" else ".")
    path = _file(where, file, content)
    reading = _expect(DataError, FORMATS[name], path if name == "coco" else inside, Options())
    for entry in reading.annotated if reading else ():
        _expect(DataError, lambda entry=entry: [*entry.shapes((6, 8))])
    shutil.rmtree(inside)


def records(data: bytes, folder: Path) -> None:
    """Read a run's record, its curves, and the numbers of a report."""
    from liteseg_plugin.errors import DataError, WeightsError
    from liteseg_plugin.evaluation.result import Evaluation
    from liteseg_plugin.training.run import RunRecord
    from liteseg_plugin.visualization.curves import read

    _expect(DataError, Evaluation.read, _file(folder, "metrics.json", data))
    _file(folder, "run.json", data)
    _expect(WeightsError, RunRecord.read, folder)
    for name in ("metrics.csv", "train.log"):
        _expect(DataError, read, _file(folder, name, data))


def commands(data: bytes, folder: Path) -> None:
    """Parse a command line, without running the command."""
    from liteseg_plugin.cli.flags.numbers import check_numbers
    from liteseg_plugin.errors import LitesegError

    try:
        words = shlex.split(data.decode("utf-8", "replace"))
    except ValueError:
        return
    parser = _parser()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        args = _expect(SystemExit, parser.parse_args, words)
    if args:
        _expect(LitesegError, check_numbers, args)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    target.__name__: target  # type: ignore[attr-defined]
    for target in (
        *(pickles, safetensors, sums, archives, configs, deploy, lists, annotations, records),
        *(commands, torch_files, onnx_files),
    )
}


def seeds(name: str) -> Iterator[bytes]:
    """Give inputs to start from."""
    array = {"w": np.ones((2, 3), "float32"), "s": [1, 0.5, None, (True, "a")]}
    if name == "pickles":
        for protocol in (2, 3, 4):
            yield pickle.dumps(array, protocol=protocol)
            yield pickle.dumps({"w": ("conv_0.w_0", array["w"])}, protocol=protocol)
    if name == "safetensors":
        head = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        yield len(head).to_bytes(8, "little") + head + bytes(4)
    if name == "sums":
        yield b"0" * 64 + b"  one.png\n" + b"1" * 64 + b" *two.png\n"
    if name == "archives":
        for mode in ("w:", "w:gz", "w:bz2", "w:xz"):
            with tarfile.open(fileobj=(file := io.BytesIO()), mode=mode) as tar:
                for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
                    info = tarfile.TarInfo(f"a/{'x' * 120 if kind == tarfile.REGTYPE else 'b'}")
                    info.type, info.size = kind, 3 * (kind == tarfile.REGTYPE)
                    tar.addfile(info, io.BytesIO(b"abc"))
            yield file.getvalue()
        with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/b.txt", b"abc" * 99)
            archive.mkdir("c") if hasattr(archive, "mkdir") else None
        yield file.getvalue()
    if name == "torch_files":
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            archive.writestr("m/data.pkl", _TORCH_PICKLE)
            archive.writestr("m/byteorder", "little")
            archive.writestr("m/data/0", bytes(8))
        yield file.getvalue()
    if name == "onnx_files":
        yield _ONNX
    yield from (text.encode() for text in _TEXTS.get(name, ()))


_TORCH_PICKLE = (
    b"\x80\x02}X\x03\0\0\0net}X\x20\0\0\0encoder.backbone.stages.block.0.ctorch._utils\n"
    b"_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
    b"K\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRss."
)
# A model with a graph of one initializer, whose data is in "a.bin".
_ONNX = (
    b"\x08\x08:,**\x08\x02\x10\x01B\x01wj\x11\n\x08location\x12\x05a.bin"
    b"j\x0c\n\x06length\x12\x0264p\x01"
)

_TEXTS = {
    "configs": (
        "batch_size: 4\niters: 10\nmodel:\n  type: PPLiteSeg\n  backbone: &b {type: STDC1}\n"
        "  more: *b\nlr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}\niters=5",
        "_base_: config.yml\n<<: {a: 1}\ntrain_dataset.transforms.0.type=Normalize",
        "_base_: [one.png, a/b]\nx: !!python/name:os.system 2026-01-01\nmodel.type=A",
    ),
    "deploy": (
        "Deploy:\n  model: model.json\n  params: model.pdiparams\n  input_shape: [-1, 3, -1, -1]\n"
        "  output_op: argmax\n  output_dtype: int32\n  transforms:\n  - type: Normalize\n"
        "    mean: [0.5, 0.5, 0.5]\n    std: [0.5, 0.5, 0.5]\n  - {type: Resize, target_size: "
        "[8, 8]}\nliteseg:\n  onnx: model.onnx\n  evaluation_scale: 0.5\n  classes:\n"
        "  - {name: road, color_rgb: [1, 2, 3]}\n  sha256: {model.json: 00}\n  "
        "provenance: {a: 1}\n",
    ),
    "lists": (
        "images/a.png labels/a.png\nb.png,c.png\n#804080 road\n",
        "road,128,64,128\nsky: 1 2 3\ncar 9;9;9",
        "0=255 1-3=0-2 128-130=1",
    ),
    "annotations": (
        '\0{"imagePath": "one.png", "imageHeight": 6, "imageWidth": 8, "shapes": [{"label": "a", '
        '"points": [[0, 0], [5, 0], [5, 5]], "shape_type": "polygon"}, {"label": "b", "points": '
        '[[1, 1], [3, 3]], "shape_type": "circle"}]}',
        '\1{"images": [{"id": 1, "file_name": "one.png", "width": 8, "height": 6}], "categories": '
        '[{"id": 3, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 3, '
        '"segmentation": [[0, 0, 5, 0, 5, 5]]}, {"id": 2, "image_id": 1, "category_id": 3, '
        '"segmentation": {"counts": [3, 5, 40], "size": [6, 8]}}]}',
        '\2<annotations><meta><task><labels><label><name>a</name><color>#ff0000</color></label>'
        '</labels></task></meta><image id="0" name="one.png" width="8" height="6"><polygon '
        'label="a" points="0,0;5,0;5,5" z_order="0"/><mask label="a" rle="1,2,3" left="1" top="1" '
        'width="2" height="3"/><box label="a" xtl="0" ytl="0" xbr="3" ybr="3"/></image>'
        "</annotations>",
        "\3names: [a, b]\ntrain: images/train\n---0 0.1 0.1 0.9 0.1 0.9 0.9\n1 0.5 0.5 0.2 0.2\n",
    ),
    "records": (
        json.dumps({"config": {}, "settings": {}, "processes": 1, "train_list": {"images": 1,
                    "sha256": "0"}, "val_list": None, "starts": []}),
        "iteration,loss,lr,miou\n1,0.5,0.01,\n2,0.4,0.01,0.5\n",
        "[TRAIN] epoch: 1, iter: 10/20, loss: 0.5000, lr: 0.010000, batch_cost: 0.1\n[EVAL] "
        "#Images: 3 mIoU: 0.5000 Acc: 0.9\n",
        '{"format": 1, "classes": [], "confusion": [[1]], "images": []}',
    ),
    "commands": (
        "train --config a.yml --iters 3 --learning_rate 1e-3 --do_eval --opts a.b=1 c=2",
        "infer --config deploy.yaml --image_path a --runtime paddle --device gpu:0 --max_pixels 9",
        "data relabel a b --map 0=255 1-3=0-2 --workers 2",
        "data import coco a b --classes x y --ratio 0.7 0.3",
        "launch --nproc_per_node 2 train --config a.yml",
        "weights convert a b.safetensors --json",
        "benchmark --config deploy.yaml --size 1024 512 --runtimes paddle openvino",
    ),
}  # fmt: skip


def _expect(error: type[Exception], call: Callable, *args: object, **kwargs: object):
    try:
        return call(*args, **kwargs)
    except error:
        return None


@functools.lru_cache
def _parser():
    from liteseg_plugin.cli import create_parser

    return create_parser()


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def prepare(folder: Path, name: str) -> None:
    """Write what inputs may name, and run the target on its seeds, which imports what it needs."""
    for file, content in IN_FOLDER.items():
        _file(folder, file, content)
    for seed in seeds(name):
        TARGETS[name](seed, folder)


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder of inputs, which grows")
    args = parser.parse_args()
    try:
        import atheris
    except ImportError:
        raise SystemExit("it needs atheris: pip install atheris") from None
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, \
            tempfile.TemporaryDirectory() as fresh:  # fmt: skip
        with atheris.instrument_imports(include=["liteseg_plugin", "yaml", "tarfile"]):
            prepare(Path(folder), args.target)
        corpus = args.corpus or Path(fresh)
        for number, seed in enumerate(seeds(args.target)):
            _file(corpus, f"seed-{number}", seed)
        target = TARGETS[args.target]
        flags = {
            "max_total_time": args.seconds, "timeout": 20, "rss_limit_mb": 2500, "max_len": 4096,
            "print_final_stats": 1, "verbosity": 1,
        }  # fmt: skip
        options = [f"-{name}={value}" for name, value in flags.items()]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: target(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
