"""A config for a data set, made from what a check measured; each choice with its reason."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from typing import Any

from liteseg_plugin.datasets.base import IGNORE_INDEX
from liteseg_plugin.datasets.check import PIXELS_PER_KEPT, CheckReport, DataSet
from liteseg_plugin.datasets.lists import find_list
from liteseg_plugin.errors import DataError, printable

PASSES = 40
"""Times that a training uses each image, if no budget is given."""

_FEWEST_ITERATIONS = 500
_CROP_SHARE = 2 / 3  # of each side: that of the recipe in docs/training.md
_MOST_CROP_PIXELS = 1024 * 512  # the crop of the released Cityscapes recipes
_MOST_BATCH_PIXELS = 4 * _MOST_CROP_PIXELS  # takes 2.4 GB of memory in float32
_CROP_STEP = 16
_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """The choices of a config.

    Attributes:
        report: What was measured.
        data: What was checked.
        backbone: ``STDC1`` or ``STDC2``.
        weights: File of weights to start from; None for random ones.
        crop_wh: Width and height of a training crop in pixels.
        batch_size: Images of a batch.
        iters: Optimiser steps.
        budget: Why so many, in words.
    """

    report: CheckReport
    data: DataSet
    backbone: str
    weights: str | None
    crop_wh: tuple[int, int]
    batch_size: int
    iters: int
    budget: str

    @property
    def scales(self) -> tuple[float, float]:
        """Factors of random scaling: the smallest quarter at which the crop fits, and 1 more."""
        size = self.report.sizes[0]
        fits = max(self.crop_wh[0] / size.width, self.crop_wh[1] / size.height)
        smallest = min(1.0, max(0.25, math.ceil(fits * 4 - 1e-6) / 4))
        return smallest, smallest + 1

    def within(self, minutes: float, seconds: float) -> Plan:
        """Return the plan with as many iterations of so many seconds as minutes allow.

        Raises:
            ValueError: If not one iteration fits.
        """
        iters = int(minutes * 60 / seconds)
        if iters < 1:
            raise ValueError(f"--minutes {minutes:g}: one iteration takes {seconds:.1f} s")
        passes = iters * self.batch_size / self.report.splits["train"]
        budget = f"{minutes:g} minutes at {seconds:.2f} s each here; {passes:.1f} passes"
        return replace(self, iters=iters, budget=budget)

    def to_json(self) -> dict[str, Any]:
        """Return the choices as JSON writes them."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "num_classes": self.report.num_classes,
            "crop_wh": [*self.crop_wh],
            "scales": [*self.scales],
            "batch_size": self.batch_size,
            "iters": self.iters,
            "budget": self.budget,
        }

    def summary(self) -> str:
        """Return the choices in a line."""
        return (
            "{num_classes} classes, crop {crop_wh[0]}x{crop_wh[1]}, scales {scales[0]:g} to "
            "{scales[1]:g}, batch {batch_size}, {iters} iterations ({budget})"
        ).format(**self.to_json())

    def text(self) -> str:
        """Return the config as YAML, with comments."""
        sections = (_head, _schedule, _train_dataset, _val_dataset, _model, _optimizer, _loss)
        return "\n".join(section(self) for section in sections)


def plan(
    report: CheckReport,
    data: DataSet,
    *,
    backbone: str = "STDC1",
    weights: str | None = None,
    crop_wh: tuple[int, int] | None = None,
    batch_size: int | None = None,
    iters: int | None = None,
) -> Plan:
    """Choose a config for a data set.

    Args:
        report: Of its check.
        data: Of ``check.from_folder``.
        backbone: ``STDC1`` (PP-LiteSeg-T) or ``STDC2`` (B).
        weights: File of weights of PP-LiteSeg to start from; by default random ones.
        crop_wh: Width and height of a crop; by default two thirds of the usual image.
        batch_size: Images of a batch; by default 8, fewer if they are large or few.
        iters: Optimiser steps; by default those of ``PASSES`` passes over the images.

    Raises:
        DataError: If the check found errors, or ``train`` or ``val`` has no images.
        ValueError: If a size or number is not positive.
    """
    for name, value in (("--batch_size", batch_size), ("--iters", iters), ("--crop", crop_wh)):
        if value is not None and (min(value) if isinstance(value, tuple) else value) < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    if report.errors:
        raise DataError(
            f"{data.root} has {len(report.errors)} errors, the first: {report.errors[0].message}; "
            f"correct them: liteseg data check {data.root}"
        )
    for split in ("train", "val"):
        if not report.splits.get(split):
            raise DataError(
                f"{data.root} has no {split} list with images; `liteseg data split` writes lists"
            )
    if weights is not None and not os.path.isfile(weights):
        raise DataError(f"weights not found: {weights}")
    size = report.sizes[0]
    crop_wh = crop_wh or _crop(size.width, size.height)
    images = report.splits["train"]
    most = min(_BATCH, _MOST_BATCH_PIXELS // (crop_wh[0] * crop_wh[1]), images)
    batch = batch_size or max(1, most)
    budget = "as asked for"
    if not iters:
        iters = max(_FEWEST_ITERATIONS, math.ceil(PASSES * images / batch))
        budget = f"{PASSES} passes over {images} images, at least {_FEWEST_ITERATIONS}"
    return Plan(report, data, backbone, weights, crop_wh, batch, iters, budget)


def _crop(width: int, height: int) -> tuple[int, int]:
    share = min(_CROP_SHARE, math.sqrt(_MOST_CROP_PIXELS / (width * height)))
    steps = (max(1, round(side * share / _CROP_STEP)) for side in (width, height))
    crop_width, crop_height = (_CROP_STEP * step for step in steps)
    return crop_width, crop_height


# --- sections


def _head(plan: Plan) -> str:
    report = plan.report
    counts = ", ".join(f"{count} {name}" for name, count in report.splits.items())
    sizes = ", ".join(f"{s.width}x{s.height} ({s.images})" for s in report.sizes[:4])
    images = report.image_format
    kind = f"# Images are read as {images}, {report.format_reason}.\n" * (not images.is_rgb)
    return f"""\
# Written by `liteseg data config`, from what `liteseg data check` measured in
# {printable(plan.data.root)}: {counts} images; sizes {sizes}.
{kind}#
#   liteseg train --config THIS_FILE --do_eval
"""


def _schedule(plan: Plan) -> str:
    return f"""\
batch_size: {plan.batch_size}  # of each process; 8, or less where crops are large or images few
total_batch_size: {plan.batch_size}  # of all processes; liteseg launch keeps it
iters: {plan.iters}  # {printable(plan.budget)}
"""


def _dataset(plan: Plan, split: str) -> str:
    if plan.data.kind == "Cityscapes":
        return f"  type: Cityscapes\n  dataset_root: {_quoted(plan.data.root)}\n"
    images = plan.report.image_format
    lines = f"""\
  type: Dataset
  dataset_root: {_quoted(plan.data.root)}
  {split}_path: {_quoted(str(find_list(plan.data.root, split)))}
  num_classes: {plan.report.num_classes}
"""
    if not images.is_rgb:
        lines += f"  img_channels: {images.channels}\n"
    if images.max_value != 255:
        lines += f"  max_value: {images.max_value}  # of 16-bit values: what counts as white\n"
    if images.channels > 3:
        lines += f"  shown_bands: {[*images.shown_bands]}  # red, green and blue of overlays\n"
    if plan.report.ignore_index != IGNORE_INDEX:
        lines += f"  ignore_index: {plan.report.ignore_index}\n"
    if plan.data.separator != " ":
        lines += f"  separator: {_quoted(plan.data.separator)}\n"
    return lines


def _train_dataset(plan: Plan) -> str:
    names = ", ".join(f"{c.index} {printable(c.info.name)}" for c in plan.report.classes)
    size = plan.report.sizes[0]
    smallest, largest = plan.scales
    padding = ""
    if not plan.report.image_format.takes_pictures:  # 127.5 may be far from their values
        mean = 255 * sum(c.mean for c in plan.report.channels) / len(plan.report.channels)
        padding = f"      im_padding_value: {mean:.1f}  # the mean of all channels, of 0 to 255\n"
    return f"""\
# Classes: {names}
train_dataset:
{_dataset(plan, "train")}  mode: train
  transforms:
    # The usual image, {size.width}x{size.height}, still holds the crop at {smallest:g} of its size.
    - type: ResizeStepScaling
      min_scale_factor: {smallest}
      max_scale_factor: {largest}
      scale_step_size: 0.25
    # Two thirds of the usual image, at most 1024x512 pixels: context at a moderate cost.
    - type: RandomPaddingCrop
      crop_size: [{plan.crop_wh[0]}, {plan.crop_wh[1]}]
      label_padding_value: {plan.report.ignore_index}
{padding}    - type: RandomHorizontalFlip  # remove it if left and right differ, as in text
{_distortion(plan)}{_normalize(plan)}"""


def _distortion(plan: Plan) -> str:
    images = plan.report.image_format
    if not images.takes_pictures:
        return "    # Without RandomDistort, which takes grey or RGB of 8 bits only.\n"
    strength, of = (
        (0.5, "released recipes") if plan.weights else (0.3, "recipe of docs/training.md")
    )
    lines = f"""\
    - type: RandomDistort  # as strong as in the {of}
      brightness_range: {strength}
      contrast_range: {strength}
"""
    if images.channels == 3:
        return f"{lines}      saturation_range: {strength}\n"
    return f"""\
{lines}      saturation_prob: 0  # grey has neither saturation nor hue
      hue_prob: 0
"""


def _normalize(plan: Plan) -> str:
    images, channels = plan.report.image_format, plan.report.channels
    if images.is_rgb:
        return "    - type: Normalize\n"
    if plan.weights and images.takes_pictures:
        return "    - type: Normalize  # as the weights were trained\n"
    return f"""\
    - type: Normalize  # by channel, as measured on the training images
      mean: [{", ".join(f"{channel.mean:g}" for channel in channels)}]
      std: [{", ".join(f"{channel.std:g}" for channel in channels)}]
"""


def _val_dataset(plan: Plan) -> str:
    return f"""\
val_dataset:
{_dataset(plan, "val")}  mode: val
  transforms:  # whole images, at their own size
{_normalize(plan)}"""


def _model(plan: Plan) -> str:
    channels = plan.report.image_format.channels
    taken = "" if channels == 3 else f"    in_channels: {channels}\n"
    why = "random weights; with PaddleSeg's own, of 0.001, it learns far less"
    before, after = f"  backbone_init: kaiming  # {why}\n", ""
    if plan.weights:
        why = "heads of other classes start from random weights"
        before, after = "", f"  pretrained: {_quoted(plan.weights)}  # {why}\n"
    if plan.backbone == "STDC1":
        after += "  arm_out_chs: [32, 64, 128]\n  seg_head_inter_chs: [32, 64, 64]\n"
    return f"""\
model:
  type: PPLiteSeg
  num_classes: {plan.report.num_classes}
{before}  backbone:
    type: {plan.backbone}
{taken}    pretrained: null
{after}"""


def _optimizer(plan: Plan) -> str:
    if plan.weights:
        optimizer = "type: SGD  # as the released weights were trained\n  momentum: 0.9"
        decay, rate = 0.0005, 0.01
    else:
        optimizer = "type: AdamW  # better than SGD from random weights: docs/training.md"
        decay, rate = 0.01, 0.003
    return f"""\
optimizer:
  {optimizer}
  weight_decay: {decay}

lr_scheduler:
  type: PolynomialDecay
  learning_rate: {rate}
  end_lr: 0
  power: 0.9
  warmup_iters: {max(1, min(200 if plan.weights else 50, plan.iters // 12))}
  warmup_start_lr: 0.00001
"""


def _loss(plan: Plan) -> str:
    if plan.weights:
        kept = plan.batch_size * plan.crop_wh[0] * plan.crop_wh[1] // PIXELS_PER_KEPT
        return f"""\
loss:
  types:
    - type: OhemCrossEntropyLoss
      min_kept: {kept}  # a sixteenth of the pixels of a batch, as in the released recipes
      ignore_index: {plan.report.ignore_index}
  coef: [1, 1, 1]
"""
    rare = min(plan.report.classes, key=lambda entry: entry.share or 1)
    weights = ", ".join(f"{entry.weight:g}" for entry in plan.report.classes)
    return f"""\
loss:
  types:
    # ENet's class weights, 1 / ln(1.02 + share), with a mean of 1 over the pixels. From random
    # weights they kept rare classes that OHEM lost (docs/training.md). The rarest here:
    # {printable(rare.info.name)}, {rare.share:.2%} of the pixels.
    - type: CrossEntropyLoss
      weight: [{weights}]
      ignore_index: {plan.report.ignore_index}
  coef: [1, 0.4, 0.4]  # the auxiliary heads count less
"""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
