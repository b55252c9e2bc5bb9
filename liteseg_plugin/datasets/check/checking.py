"""Open all images and labels, and report."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from liteseg_plugin.datasets.check import conventions
from liteseg_plugin.datasets.check.channels import choose_format, format_fault, measure
from liteseg_plugin.datasets.check.looking import Look, Picture, look
from liteseg_plugin.datasets.check.report import (
    CheckReport,
    ClassCount,
    Finding,
    MinKept,
    Sample,
    Size,
)
from liteseg_plugin.datasets.check.source import DataSet
from liteseg_plugin.datasets.classes import describe_classes, numbered_classes, read_names
from liteseg_plugin.datasets.image_format import RGB, ImageFormat
from liteseg_plugin.datasets.lists import Pair
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES, Fault
from liteseg_plugin.system.parallel import process

_LEAST_PADDING = 0.01  # a share of the pixels of training crops

PIXELS_PER_KEPT = 16
"""That of losses.ohem, as a test holds; importing it here would load Paddle."""


def check(
    data: DataSet, *, samples: int = 24, workers: int | None = None, progress: bool = True
) -> CheckReport:
    """Open all images and labels, and report.

    Args:
        data: From :func:`from_folder` or :func:`from_config`.
        samples: Number of pairs to choose for a page.
        workers: Number of threads; default: one per processor.
        progress: Show a progress bar.

    Raises:
        ValueError: If the number of classes is not 1 to 256.
    """
    if data.num_classes is not None and not 1 <= data.num_classes <= 256:
        raise ValueError(
            f"num_classes must be 1 to 256, as labels are 8-bit, got {data.num_classes}"
        )
    started = time.perf_counter()
    todo = [(split.name, pair) for split in data.splits for pair in split.pairs]
    names_fault = _contradicted_names(data)

    def look_at(item: tuple[str, Pair]) -> Look:
        return look(item[1], data.num_classes or 256, data.ignore_index)

    looks = process(look_at, todo, description="check", workers=workers, progress=progress)

    errors = [_finding(names_fault)] if names_fault else []
    errors += [_finding(fault, split.name) for split in data.splits for fault in split.faults]
    warnings: list[Finding] = []
    for (name, pair), seen in zip(todo, looks):
        errors += [_finding(fault, name, pair) for fault in seen.errors]
        warnings += [_finding(fault, name, pair) for fault in seen.warnings]
    pictures = [(name, pair, s.picture) for (name, pair), s in zip(todo, looks) if s.picture]
    image_format, format_reason = _format(data, [picture for _, _, picture in pictures])
    for finding, stops in (*_odd_formats(pictures, image_format), *_repeated(pictures)):
        (errors if stops else warnings).append(finding)
    if data.whole:
        warnings += _left_over([pair for _, pair in todo])

    pixels = {split.name: np.zeros(256, np.int64) for split in data.splits}
    images = {split.name: np.zeros(256, np.int64) for split in data.splits}
    for (name, _), seen in zip(todo, looks):
        pixels[name] += seen.counts
        images[name] += seen.counts > 0
    total = sum(pixels.values(), np.zeros(256, np.int64))
    convention = _convention(data, total, looks)
    odd = None
    if convention:
        fault, certain = convention
        odd = fault.kind
        if odd == conventions.FOREGROUND:  # which stands for what is found in each file
            told = {"label-empty", "label-single-class", "label-range", "label-lossy"}
            errors, warnings = ([f for f in fs if f.kind not in told] for fs in (errors, warnings))
        (errors if certain else warnings).insert(0, _finding(fault))
    sizes = Counter(picture.size_wh for _, _, picture in pictures)
    warnings += _padded_crops(data, sizes)

    num_classes = data.num_classes
    if num_classes is None:
        used = np.flatnonzero(total)
        num_classes = int(max((v for v in used if v != data.ignore_index), default=0)) + 1
        message = (
            "the number of classes is unknown; from the largest value in the labels it is "
            f"{num_classes}. Give --num_classes, or names in {data.root}/labels.txt"
        )
        if odd == conventions.FOREGROUND:
            num_classes = min(num_classes, 2)
        if odd is None:
            warnings.append(_finding(Fault("num-classes", message)))
    named = names_fault is None
    classes, ignored_share = _classes(data, num_classes, pixels, images, named=named)
    for entry in classes:
        if odd == conventions.FOREGROUND or (odd == conventions.ONE_BASED and entry.index == 0):
            continue
        for name in ("train", "val"):
            if not entry.pixels.get(name, 1):
                message = f"class {entry.index} ({entry.info.name}) is in no label of {name}"
                warnings.append(_finding(Fault("class-absent", message), name))

    training = [p for name, _, p in pictures if name == "train" or "train" not in pixels]
    measured = [p.values for p in training if image_format.refusal(p.stored) is None]
    return CheckReport(
        data=data.root,
        images=len(todo),
        seconds=time.perf_counter() - started,
        splits={split.name: len(split.pairs) for split in data.splits},
        num_classes=num_classes,
        ignore_index=data.ignore_index,
        errors=errors,
        warnings=warnings,
        sizes=[Size(width, height, n) for (width, height), n in sizes.most_common()],
        classes=classes,
        ignored_share=ignored_share,
        min_kept=_min_kept(data, sizes),
        image_format=image_format,
        format_reason=format_reason,
        channels=measure(measured, image_format),
        samples=_samples(todo, looks, samples),
    )


def _finding(fault: Fault, split: str | None = None, pair: Pair | None = None) -> Finding:
    image, label = pair or (None, None)
    return Finding(fault.kind, split, image, label, fault.message)


def _format(data: DataSet, pictures: Sequence[Picture]) -> tuple[ImageFormat, str]:
    """Return what the images are read as, and why."""
    if data.image_format is not None:
        return data.image_format, "as the config says"
    if data.kind == "Cityscapes":
        return RGB, "as Cityscapes is"
    return choose_format([(p.stored, p.values) for p in pictures], data.channels)


def _odd_formats(
    pictures: Sequence[tuple[str, Pair, Picture]], image_format: ImageFormat
) -> Iterator[tuple[Finding, bool]]:
    """Find images whose channels or bits are not those of the others, or of the config.

    Yields:
        A finding, and whether it stops a training.
    """
    kinds = Counter(str(picture.stored) for _, _, picture in pictures)
    if not kinds:
        return
    [(kind, count)] = kinds.most_common(1)
    usual = next(picture.stored for _, _, picture in pictures if str(picture.stored) == kind)
    for name, pair, picture in pictures:
        found = format_fault(picture.stored, picture.values, usual, image_format)
        if found:
            fault, stops = found
            message = f"{pair.image}: {fault.message}"
            yield _finding(Fault(fault.kind, message), name, pair), stops
    if image_format.is_rgb and (usual.bits > 8 or usual.bands):
        message = f"{count} images have {usual}, and are read as {image_format}"
        yield _finding(Fault("image-format", message)), False


def _contradicted_names(data: DataSet) -> Fault | None:
    """Compare the number of classes with ``labels.txt``, which Cityscapes does not need."""
    names = [] if data.kind == "Cityscapes" else read_names(data.root)
    if data.num_classes is None or len(names) in (0, data.num_classes):
        return None
    message = (
        f"num_classes is {data.num_classes} ({data.num_classes_from}), but "
        f"{os.path.join(data.root, 'labels.txt')} names {len(names)} classes; correct one of them"
    )
    return Fault("num-classes", message)


def _convention(
    data: DataSet, counts: np.ndarray, looks: Sequence[Look]
) -> tuple[Fault, bool] | None:
    """Find what is odd about all labels alike.

    Returns:
        The fault, and whether it is certain; None if nothing is odd.
    """
    pairs = [pair for split in data.splits for pair in split.pairs]
    values = {value for seen in looks for value in seen.beyond} | {*np.flatnonzero(counts).tolist()}
    known = pairs, data.num_classes, data.ignore_index
    masks = conventions.foreground_fault(values, *known)
    masks = masks or conventions.grey_mask_fault(counts, pairs, data.num_classes)
    return (masks, True) if masks else conventions.one_based_fault(values, *known)


def _padded_crops(data: DataSet, sizes: Counter) -> Iterator[Finding]:
    """Find training crops that are larger than the images, and so hold padding."""
    if not data.pads or data.crop_wh is None or not sizes:
        return
    width, height = data.crop_wh
    filled = sum(min(w, width) * min(h, height) * n for (w, h), n in sizes.items())
    padding = 1 - filled / (width * height * sum(sizes.values()))
    if padding < _LEAST_PADDING:
        return
    (w, h), _ = sizes.most_common(1)[0]
    message = (
        f"crop_size [{width}, {height}] is larger than the images (most are {w}x{h}): at scale 1, "
        f"{padding:.0%} of the pixels of training crops are padding; "
        f"crop_size: [{min(w, width)}, {min(h, height)}] fits"
    )
    yield _finding(Fault("crop-padding", message))


def _repeated(pictures: Sequence[tuple[str, Pair, Picture]]) -> Iterator[tuple[Finding, bool]]:
    """Find duplicate pictures: in two splits, which stops a training, and in one."""
    places = defaultdict(list)
    for name, pair, picture in pictures:
        places[picture.digest].append((name, pair))
    for group in places.values():
        if len(group) < 2:
            continue
        where = ", ".join(f"{pair.image} ({name})" for name, pair in group[:4])
        where += f" and {len(group) - 4} more" if len(group) > 4 else ""
        if len({name for name, _ in group}) > 1:
            fault = Fault("leak", f"the same picture in more than one split: {where}")
        else:
            fault = Fault("duplicate", f"the same picture {len(group)} times: {where}")
        yield _finding(fault, *group[0]), fault.kind == "leak"


def _left_over(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Find images that no list names, in the folders of listed images."""
    named = {os.path.normpath(path) for pair in pairs for path in pair if path}
    for folder in sorted({os.path.dirname(os.path.normpath(pair.image)) for pair in pairs}):
        if not os.path.isdir(folder):
            continue
        files = (os.path.join(folder, name) for name in sorted(os.listdir(folder)))
        unnamed = [f for f in files if f.lower().endswith(IMAGE_SUFFIXES) and f not in named]
        if unnamed:
            # A name on disk may contain bytes that are not text.
            first = os.fsencode(unnamed[0]).decode(errors="replace")
            message = f"{len(unnamed)} images in {folder} are in no list, e.g. {first}"
            yield _finding(Fault("not-listed", message))


def _classes(
    data: DataSet,
    num_classes: int,
    totals: dict[str, np.ndarray],
    images: dict[str, np.ndarray],
    *,
    named: bool,
) -> tuple[list[ClassCount], float]:
    """Count pixels by class; the share of ignored pixels comes second."""
    # The training split, or all splits if there is none.
    seen = totals.get("train", np.sum([*totals.values()], axis=0))
    valued = seen[:num_classes].copy()
    if 0 <= data.ignore_index < num_classes:
        valued[data.ignore_index] = 0
    shares = valued / max(valued.sum(), 1)
    weights = 1 / np.log(1.02 + shares)
    if shares.any():  # a mean of 1 over the labelled pixels keeps the size of the loss
        weights /= (shares * weights).sum()
    config = {"dataset_root": data.root, "type": data.kind, "ignore_index": data.ignore_index}
    described = describe_classes(config, num_classes) if named else numbered_classes(num_classes)
    classes = [
        ClassCount(
            index=index,
            info=info,
            pixels={name: int(total[index]) for name, total in totals.items()},
            images={name: int(count[index]) for name, count in images.items()},
            share=float(shares[index]),
            weight=round(float(weights[index]), 3),
        )
        for index, info in enumerate(described)
    ]
    ignored = seen[data.ignore_index] if 0 <= data.ignore_index < 256 else 0
    return classes, float(ignored / max(seen.sum(), 1))


def _min_kept(data: DataSet, sizes: Counter) -> MinKept | None:
    """Suggest OHEM's `min_kept`: a sixteenth of the pixels of a batch."""
    size_wh = data.crop_wh or (sizes.most_common(1)[0][0] if sizes else None)
    if size_wh is None:
        return None
    width, height = size_wh
    per_image = width * height // PIXELS_PER_KEPT
    value = data.batch_size and per_image * data.batch_size
    return MinKept(width, height, data.batch_size, per_image, value)


def _samples(todo: Sequence[tuple[str, Pair]], looks: Sequence[Look], count: int) -> list[Sample]:
    """Choose pairs that can be shown, evenly over the splits."""
    fit = [
        Sample(name, pair.image, pair.label)
        for (name, pair), seen in zip(todo, looks)
        if pair.label is not None and not seen.errors
    ]
    places = np.linspace(0, len(fit) - 1, min(count, len(fit))).round().astype(int)
    return [fit[place] for place in places]
