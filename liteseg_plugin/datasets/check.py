"""Look at a whole data set before a training does.

:func:`check` opens every image and label the way training opens them, and collects what is wrong
instead of stopping at the first fault.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from liteseg_plugin.datasets.base import SPLIT_NAMES
from liteseg_plugin.datasets.classes import describe_classes, read_names
from liteseg_plugin.datasets.validation import (
    IMAGE_SUFFIXES,
    Fault,
    Pair,
    about,
    check_image_file,
    label_faults,
    orientation_faults,
    read_image,
    read_label_and_depth,
    read_list,
)
from liteseg_plugin.errors import DataError, printable
from liteseg_plugin.system.parallel import per_second, process

if TYPE_CHECKING:
    from paddleseg.cvlibs import SegBuilder

PIXELS_PER_KEPT = 16
"""That of losses.py, as a test holds; importing it here would load Paddle."""
WEIGHT_FORMULA = "ENet (arXiv 1606.02147): 1 / ln(1.02 + share of the labelled pixels)"


@dataclass
class Split:
    """Images and labels of one split, and what is wrong with its list."""

    name: str
    pairs: list[Pair]
    faults: list[Fault] = field(default_factory=list)


@dataclass
class DataSet:
    """What to check.

    Attributes:
        root: The folder.
        splits: Its splits.
        ignore_index: Label of pixels that do not count.
        num_classes: Number of classes; None: one more than the largest value in the labels.
        kind: The config's type of data set.
        batch_size: Images of a training batch in one process, if known.
        crop_wh: Width and height of a training crop in pixels, if known.
        whole: Whether the splits are all there are, so that an image in none is left over.
    """

    root: str
    splits: list[Split]
    ignore_index: int = 255
    num_classes: int | None = None
    kind: str = "Dataset"
    batch_size: int | None = None
    crop_wh: tuple[int, int] | None = None
    whole: bool = False


def from_folder(
    root: str | os.PathLike,
    *,
    separator: str = " ",
    num_classes: int | None = None,
    ignore_index: int = 255,
    batch_size: int | None = None,
) -> DataSet:
    """Find the lists `train`, `val` and `test` (`.txt` or `.list`) of a folder.

    Args:
        root: The folder.
        separator: What stands between image and label in a line.
        num_classes: Number of classes; by default that of the lines of `labels.txt`, or 19 for
            Cityscapes' tree.
        ignore_index: Label of pixels that do not count.
        batch_size: For the suggested `min_kept`.

    Raises:
        DataError: If there is no list, or one cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"no such folder: {root}")
    splits = []
    for name in SPLIT_NAMES:
        for path in (Path(root, f"{name}.txt"), Path(root, f"{name}.list")):
            if path.is_file():
                pairs, faults = read_list(path, root, separator=separator, labelled=name != "test")
                if not pairs and not faults and name != "test":
                    faults = [Fault("list", f"the list {path} of data set {root} is empty")]
                splits.append(Split(name, pairs, faults))
                break
    if not splits:
        raise DataError(
            f"no list train, val or test (.txt or .list) in {root}; `liteseg data split {root}` "
            "makes them for folders of images and labels"
        )
    is_cityscapes = Path(root, "leftImg8bit").is_dir() and Path(root, "gtFine").is_dir()
    kind = "Cityscapes" if is_cityscapes else "Dataset"
    if num_classes is None:
        num_classes = 19 if is_cityscapes else len(read_names(root)) or None
    return DataSet(
        str(root), splits, ignore_index, num_classes, kind, batch_size=batch_size, whole=True
    )


def from_config(builder: SegBuilder) -> DataSet:
    """Take `train_dataset` and `val_dataset` of a config.

    Args:
        builder: PaddleSeg's builder of the config.

    Raises:
        DataError: If a list cannot be used.
    """
    config = builder.config
    parts = {"train": (config.train_dataset_cfg, "train_dataset")}
    parts["val"] = (config.val_dataset_cfg, "val_dataset")
    datasets = {name: getattr(builder, part) for name, (cfg, part) in parts.items() if cfg}
    one = next(iter(datasets.values()))
    crop_wh = None
    for transform in config.train_dataset_cfg.get("transforms", []):
        size = transform.get("crop_size", transform.get("target_size"))
        crop_wh = tuple(size) if isinstance(size, (list, tuple)) else crop_wh
    return DataSet(
        root=str(one.dataset_root),
        splits=[
            Split(name, [Pair(*pair) for pair in dataset.file_list])
            for name, dataset in datasets.items()
        ],
        ignore_index=one.ignore_index,
        num_classes=one.num_classes,
        kind=type(one).__name__,
        batch_size=config.batch_size,
        crop_wh=crop_wh,
    )


class _Look(NamedTuple):
    """What one image and its label gave."""

    errors: list[Fault]
    warnings: list[Fault]
    size_wh: tuple[int, int] | None
    digest: bytes | None
    counts: np.ndarray


def check(
    data: DataSet, *, samples: int = 24, workers: int | None = None, progress: bool = True
) -> dict:
    """Open everything, and report.

    Args:
        data: From :func:`from_folder` or :func:`from_config`.
        samples: Number of pairs to choose for a page.
        workers: Number of threads; by default that of the processors.
        progress: Show a progress bar.

    Returns:
        A document for JSON. `ok` says that there are no `errors`; these and the `warnings` hold
        `kind`, `split`, `image`, `label` and `message`. `classes` hold name, colour, pixels and
        images by split, share of the labelled pixels and suggested weight; the rest names itself.

    Raises:
        ValueError: If the number of classes is not 1 to 256.
    """
    if data.num_classes is not None and not 1 <= data.num_classes <= 256:
        raise ValueError(f"num_classes is 1 to 256, as labels are 8-bit, got {data.num_classes}")
    started = time.perf_counter()
    todo = [(split.name, pair) for split in data.splits for pair in split.pairs]
    range_limit = data.num_classes or 256

    def look(item: tuple[str, Pair]) -> _Look:
        return _look(item[1], range_limit, data.ignore_index)

    looks = process(look, todo, description="check", workers=workers, progress=progress)

    errors = [_entry(fault, split.name) for split in data.splits for fault in split.faults]
    warnings = []
    for (name, pair), seen in zip(todo, looks):
        errors += [_entry(fault, name, pair) for fault in seen.errors]
        warnings += [_entry(fault, name, pair) for fault in seen.warnings]
    leaks, twins = _repeated(todo, looks)
    errors += leaks
    warnings += twins
    if data.whole:
        warnings += _left_over(data)

    totals = {split.name: np.zeros(256, np.int64) for split in data.splits}
    images = {split.name: np.zeros(256, np.int64) for split in data.splits}
    for (name, _), seen in zip(todo, looks):
        totals[name] += seen.counts
        images[name] += seen.counts > 0
    num_classes = data.num_classes
    if num_classes is None:
        used = np.flatnonzero(sum(totals.values()))
        num_classes = int(max((v for v in used if v != data.ignore_index), default=0)) + 1
        warnings.append(
            _entry(
                Fault(
                    "num-classes",
                    f"the number of classes is not known; the largest value in the labels makes it "
                    f"{num_classes}. Give --num_classes, or names in {data.root}/labels.txt",
                )
            )
        )
    classes, ignored_share = _classes(data, num_classes, totals, images)
    for entry in classes:
        absent = [name for name in ("train", "val") if not entry["pixels"].get(name, 1)]
        for name in absent:
            message = f"class {entry['index']} ({entry['name']}) is in no label of {name}"
            warnings.append(_entry(Fault("class-absent", message), name))

    sizes = Counter(seen.size_wh for seen in looks if seen.size_wh)
    seconds = time.perf_counter() - started
    return {
        "ok": not errors,
        "data": data.root,
        "images": len(todo),
        "seconds": round(seconds, 3),
        "images_per_second": round(per_second(len(todo), seconds), 1),
        "splits": {split.name: len(split.pairs) for split in data.splits},
        "num_classes": num_classes,
        "ignore_index": data.ignore_index,
        "errors": errors,
        "warnings": warnings,
        "sizes": [{"width": w, "height": h, "images": n} for (w, h), n in sizes.most_common()],
        "classes": classes,
        "ignored_share": ignored_share,
        "weight_formula": WEIGHT_FORMULA,
        "min_kept": _min_kept(data, sizes),
        "samples": _samples(todo, looks, samples),
    }


def _look(pair: Pair, num_classes: int, ignore_index: int) -> _Look:
    errors, warnings, size_wh, digest = [], [], None, None
    counts = np.zeros(256, np.int64)
    opened = []
    for path, read in ((pair.image, read_image), (pair.label, read_label_and_depth)):
        try:
            opened.append(None if path is None else read(path))
        except DataError as error:
            kind = "unreadable" if os.path.isfile(path) else "missing"
            errors.append(Fault(kind, str(error)))
            opened.append(None)
        except Exception as error:  # out of memory, a hostile file: an entry, and on to the next
            errors.append(Fault("unreadable", f"{path}: {type(error).__name__}: {error}"))
            opened.append(None)
    image, (label, depth) = opened[0], opened[1] or (None, None)
    if image is not None and pair.label is not None:
        found = orientation_faults(check_image_file(pair.image))
        errors += [Fault(f.kind, about(pair.image, None, f.message)) for f in found]
    if image is not None:
        size_wh = (image.shape[1], image.shape[0])
        digest = hashlib.sha1(image, usedforsecurity=False).digest() + repr(size_wh).encode()
    if label is None:
        return _Look(errors, warnings, size_wh, digest, counts)

    size_hw = label.shape[:2] if image is None else image.shape[:2]
    found = list(label_faults(label, size_hw, num_classes, ignore_index))
    errors += [Fault(f.kind, about(pair.image, pair.label, f.message)) for f in found]
    if label.ndim == 2:
        counts = _histogram(label)
        used = [v for v in np.flatnonzero(counts) if v != ignore_index]
        warnings += [
            Fault(f.kind, about(pair.image, pair.label, f.message))
            for f in _oddities(used, pair.label, ignore_index, depth)
        ]
    return _Look(errors, warnings, size_wh, digest, counts)


def _oddities(
    used: Sequence[int], label: str, ignore_index: int, depth: str | None
) -> Iterator[Fault]:
    if not used:
        yield Fault("label-empty", f"the label is empty, all of it is {ignore_index}")
    elif len(used) == 1:
        yield Fault("label-single-class", f"the label holds one class only, {used[0]}")
    if label.lower().endswith((".jpg", ".jpeg")):
        yield Fault(
            "label-lossy", "the label is a JPEG, whose values are not those that were saved"
        )
    if depth:
        yield Fault(
            "label-depth",
            f"the label is a {depth} image; the plugin reads its values, but PaddleSeg without it "
            "reads others or stops: save 8-bit labels to train elsewhere",
        )


def _histogram(label: np.ndarray) -> np.ndarray:
    """Count the values 0 to 255 of a label (H, W)."""
    if label.dtype != np.uint8:
        label = label[(label >= 0) & (label < 256)].astype(np.uint8)
    return np.bincount(label.ravel(), minlength=256)


def _entry(fault: Fault, split: str | None = None, pair: Pair | None = None) -> dict:
    return {
        "kind": fault.kind,
        "split": split,
        "image": pair and pair.image,
        "label": pair and pair.label,
        "message": fault.message,
    }


def _repeated(
    todo: Sequence[tuple[str, Pair]], looks: Sequence[_Look]
) -> tuple[list[dict], list[dict]]:
    """Find pictures that are there more than once: in two splits, and in one."""
    places = defaultdict(list)
    for (name, pair), seen in zip(todo, looks):
        if seen.digest is not None:
            places[seen.digest].append((name, pair))
    leaks, twins = [], []
    for group in places.values():
        if len(group) < 2:
            continue
        where = ", ".join(f"{pair.image} ({name})" for name, pair in group[:4])
        where += f" and {len(group) - 4} more" if len(group) > 4 else ""
        name, pair = group[0]
        if len({name for name, _ in group}) > 1:
            message = f"the same picture in more than one split: {where}"
            leaks.append(_entry(Fault("leak", message), name, pair))
        else:
            message = f"the same picture {len(group)} times: {where}"
            twins.append(_entry(Fault("duplicate", message), name, pair))
    return leaks, twins


def _left_over(data: DataSet) -> Iterator[dict]:
    """Find images that no list names, in the folders of those that are named."""
    pairs = [pair for split in data.splits for pair in split.pairs]
    named = {os.path.normpath(path) for pair in pairs for path in pair if path}
    for folder in sorted({os.path.dirname(os.path.normpath(pair.image)) for pair in pairs}):
        if not os.path.isdir(folder):
            continue
        files = (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
        unnamed = [f for f in files if f.lower().endswith(IMAGE_SUFFIXES) and f not in named]
        if unnamed:
            # A name on disk may hold bytes that are no text.
            first = os.fsencode(unnamed[0]).decode(errors="replace")
            message = f"{len(unnamed)} images in {folder} are in no list, e.g. {first}"
            yield _entry(Fault("not-listed", message))


def _classes(
    data: DataSet, num_classes: int, totals: dict[str, np.ndarray], images: dict[str, np.ndarray]
) -> tuple[list[dict], float]:
    """Count pixels by class; the share of ignored pixels comes second."""
    # What training sees, or where there is no such list what there is.
    seen = totals.get("train", sum(totals.values()))
    valued = seen[:num_classes].copy()
    if 0 <= data.ignore_index < num_classes:
        valued[data.ignore_index] = 0
    shares = valued / max(valued.sum(), 1)
    weights = 1 / np.log(1.02 + shares)
    config = {"dataset_root": data.root, "type": data.kind, "ignore_index": data.ignore_index}
    described = describe_classes(config, num_classes)
    classes = [
        {
            "index": index,
            **entry.to_json(),
            "pixels": {name: int(total[index]) for name, total in totals.items()},
            "images": {name: int(count[index]) for name, count in images.items()},
            "share": float(shares[index]),
            "weight": round(float(weights[index]), 3),
        }
        for index, entry in enumerate(described)
    ]
    ignored = seen[data.ignore_index] if 0 <= data.ignore_index < 256 else 0
    return classes, float(ignored / max(seen.sum(), 1))


def _min_kept(data: DataSet, sizes: Counter) -> dict | None:
    """Suggest OHEM's `min_kept`: a sixteenth of the pixels of a batch."""
    size_wh = data.crop_wh or (sizes.most_common(1)[0][0] if sizes else None)
    if size_wh is None:
        return None
    per_image = size_wh[0] * size_wh[1] // PIXELS_PER_KEPT
    return {
        "width": size_wh[0],
        "height": size_wh[1],
        "batch_size": data.batch_size,
        "per_image": per_image,
        "value": data.batch_size and per_image * data.batch_size,
    }


def _samples(todo: Sequence[tuple[str, Pair]], looks: Sequence[_Look], count: int) -> list[dict]:
    """Choose pairs that can be shown, evenly over the splits."""
    fit = [
        {"split": name, "image": pair.image, "label": pair.label}
        for (name, pair), seen in zip(todo, looks)
        if pair.label is not None and not seen.errors
    ]
    places = np.linspace(0, len(fit) - 1, min(count, len(fit))).round().astype(int)
    return [fit[place] for place in places]


def summary(report: dict, *, shown: int = 5) -> str:
    """Say what :func:`check` found, on a terminal.

    Args:
        report: Its result.
        shown: Number of messages of one kind; of the rest only the number is given.
    """
    counts = ", ".join(f"{name} {n}" for name, n in report["splits"].items())
    lines = [
        f"{printable(report['data'])}: {report['images']} images ({counts}) in "
        f"{report['seconds']:.1f} s, {report['images_per_second']:.0f} a second"
    ]
    sizes = [f"{s['width']}x{s['height']} ({s['images']})" for s in report["sizes"]]
    lines.append(f"sizes: {', '.join(sizes[:6])}{' ...' if len(sizes) > 6 else ''}")
    lines.append(f"{'class':>6} {'name':16}{'share':>9}{'images':>8}{'weight':>8}")
    for entry in report["classes"]:
        lines.append(
            f"{entry['index']:6} {printable(entry['name'])[:16]:16}{entry['share']:9.3%}"
            f"{sum(entry['images'].values()):8}{entry['weight']:8.2f}"
        )
    lines.append(f"ignored ({report['ignore_index']}): {report['ignored_share']:.1%} of the pixels")
    lines.append(f"weights: {report['weight_formula']}")
    kept = report["min_kept"]
    if kept:
        value = kept["value"] or f"{kept['per_image']} for each image of a batch"
        lines.append(
            f"min_kept of OHEM: {value} (a sixteenth of the pixels at "
            f"{kept['width']}x{kept['height']}"
            + (f", batch {kept['batch_size']})" if kept["value"] else ")")
        )
    for severity in ("errors", "warnings"):
        lines.append(f"{severity}: {len(report[severity])}")
        by_kind = defaultdict(list)
        for entry in report[severity]:
            by_kind[entry["kind"]].append(entry["message"])
        for kind, messages in by_kind.items():
            lines += [f"  {kind}: {printable(message)}" for message in messages[:shown]]
            if len(messages) > shown:
                lines.append(f"  {kind}: {len(messages) - shown} more (--json or --html: all)")
    return "\n".join(lines)
