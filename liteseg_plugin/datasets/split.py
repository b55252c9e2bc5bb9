"""Lists for a user's own images and labels."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liteseg_plugin.datasets.base import SPLIT_NAMES, Document
from liteseg_plugin.datasets.validation import IMAGE_SUFFIXES
from liteseg_plugin.errors import DataError
from liteseg_plugin.system.files import atomic_write

SHARES = (0.8, 0.1, 0.1)
"""Of train, val and test."""


@dataclass(frozen=True)
class Split(Document):
    """What :func:`split_folder` wrote.

    Attributes:
        root: The data set's folder.
        train: Number of pairs, like ``val`` and ``test``.
        without_label: Images that are in no list, relative to the folder.
        without_image: Labels that are in no list, likewise.
    """

    root: str
    train: int
    val: int
    test: int
    without_label: list[str]
    without_image: list[str]


def split_folder(
    root: str | os.PathLike,
    *,
    images: str = "images",
    labels: str = "annot",
    ratio: Sequence[float] = SHARES,
    seed: int = 0,
    label_suffix: str = "",
    keep_sequences: bool = False,
    separator: str = " ",
    overwrite: bool = False,
) -> Split:
    """Write `train.txt`, `val.txt` and `test.txt` for folders of images and labels.

    An image and its label have the same name, apart from the extension and `label_suffix`. The
    same files and seed give the same lists.

    Args:
        root: The data set's folder; the lists are written to it and relative to it.
        images: Folder of the images in it, searched with its subfolders.
        labels: Folder of the labels in it.
        ratio: Shares of train and val, or of train, val and test; the list of a share of 0, or
            without a share, is not written.
        seed: Of the shuffle.
        label_suffix: What follows the image's name in the label's: `_mask` for `a_mask.png`.
        keep_sequences: Keep images whose names differ only in their last number, such as the
            frames of a video, in one split.
        separator: Separator of image and label in a line.
        overwrite: Whether to replace existing lists.

    Raises:
        DataError: If there are no pairs, or too few, or a name holds the separator, or a list is
            there already.
        ValueError: If the ratio is not two or three shares that sum to 1.
    """
    root = Path(root)
    ratio = three_shares(ratio)
    lists = {name: root / f"{name}.txt" for name in SPLIT_NAMES}
    there = [str(path) for path in lists.values() if path.exists()]
    if there and not overwrite:
        raise DataError(f"{', '.join(there)} already exist; --overwrite replaces them")

    for flag, folder in (("--images", images), ("--labels", labels)):
        if not (root / folder).is_dir():
            raise DataError(f"folder not found: {root / folder}{_folder_hint(root, flag)}")
    if not label_suffix and (root / images).resolve() == (root / labels).resolve():
        raise DataError(
            f"--images and --labels are both {root / images}, so that each image would be its own "
            "label; give the folder of the labels, or --label_suffix if they lie beside the images"
        )
    images_of = _by_name(root, images, "")
    labels_of = _by_name(root, labels, label_suffix)
    paired = sorted(images_of.keys() & labels_of.keys())
    without_label = [images_of[name] for name in sorted(images_of.keys() - labels_of.keys())]
    without_image = [labels_of[name] for name in sorted(labels_of.keys() - images_of.keys())]
    if not paired:
        raise DataError(
            f"no image in {root / images} has a label in {root / labels} whose name is the image's"
            f"{f' with {label_suffix}' if label_suffix else ''}: {len(images_of)} images, "
            f"{len(labels_of)} labels"
            + (f", e.g. {without_label[0]}" if without_label else "")
            + (f" and {without_image[0]}" if without_image else "")
            + _suffix_hint(images_of.keys(), _by_name(root, labels, "").keys(), label_suffix)
        )
    lines = {}
    for name in paired:
        lines[name] = f"{images_of[name]}{separator}{labels_of[name]}"
        if lines[name].count(separator) != 1:
            raise DataError(
                f"{separator!r} separates image and label in a list, but is in the name "
                f"{images_of[name] if separator in images_of[name] else labels_of[name]}; rename "
                "it, or give another --separator (also in the data sets of the config)"
            )
    groups: dict[str, list[str]] = {}
    for name in paired:
        key = sequence_of(name) if keep_sequences else name
        groups.setdefault(key, []).append(name)
    keys = sorted(groups)
    order = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    members = _distribute([groups[key] for key in order], ratio)
    for split, share in zip(SPLIT_NAMES, ratio):
        if share and not members[split]:
            raise DataError(
                f"{len(groups)} {'sequences' if keep_sequences else 'pairs'} are too few for a "
                f"{split} list of {share:g} of them; add images, or make its share 0"
            )
    for split, share in zip(SPLIT_NAMES, ratio):
        if share:
            content = "".join(f"{lines[name]}\n" for name in sorted(members[split]))
            atomic_write(lists[split], content.encode())
        else:
            lists[split].unlink(missing_ok=True)
    return Split(
        root=str(root),
        **{split: len(members[split]) for split in SPLIT_NAMES},
        without_label=without_label,
        without_image=without_image,
    )


def three_shares(ratio: Sequence[float]) -> list[float]:
    """Return shares of train, val and test; that of test may be left out.

    Raises:
        ValueError: If they are not two or three that sum to 1.
    """
    if len(ratio) not in (2, 3) or min(ratio) < 0 or abs(sum(ratio) - 1) > 1e-6:
        raise ValueError(
            "--ratio must be the shares of train, val and test, or of train and val, and sum to 1, "
            f"got {' '.join(map(str, ratio))}"
        )
    return [*ratio, 0.0][:3]


def sequence_of(name: str) -> str:
    """Return what the frames of a video have in common: the name without its last number."""
    return re.sub(r"\d+(\D*)$", r"\1", name)


def _by_name(root: Path, folder: str, suffix: str) -> dict[str, str]:
    """Return paths of images relative to `root`, by their path in `folder` without extension."""
    found: dict[str, str] = {}
    for path in sorted((root / folder).rglob("*")):
        name = path.relative_to(root / folder).with_suffix("").as_posix()
        if path.suffix.lower() not in IMAGE_SUFFIXES or not name.endswith(suffix):
            continue
        name = name[: len(name) - len(suffix)]
        if name in found:
            raise DataError(f"two files with one name: {root / found[name]} and {path}")
        found[name] = path.relative_to(root).as_posix()
    return found


def _folder_hint(root: Path, flag: str) -> str:
    """Name the folders in a data set, of which a flag takes one."""
    if not root.is_dir():
        return f"; there is no {root}"
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    named = ", ".join(map(shlex.quote, folders)) or "no folders"
    return f"; {root} has {named}: {flag} takes the name of one"


def _suffix_hint(images: Set[str], labels: Set[str], given: str) -> str:
    """Say which ``--label_suffix`` pairs most labels, or what the flag is for."""
    starts = [(name[:end], name[end:]) for name in labels for end in range(1, len(name) + 1)]
    endings = Counter(end for start, end in starts if start in images and end != given)
    if not endings:
        return "; --label_suffix gives what a label's name adds to the image's, such as _mask"
    (ending, count), *_ = endings.most_common()
    return f"; --label_suffix {shlex.quote(ending)} pairs {count} images with a label"


def _distribute(groups: list[list[str]], ratio: Sequence[float]) -> dict[str, list[str]]:
    """Give each group to the split that lacks most of its share, the largest groups first.

    The last groups go to splits that have none yet.
    """
    total = sum(map(len, groups))
    members: dict[str, list[str]] = {name: [] for name in SPLIT_NAMES}
    for number, group in enumerate(sorted(groups, key=len, reverse=True)):
        lacking = {n: share * total - len(members[n]) for n, share in zip(SPLIT_NAMES, ratio)}
        empty = [n for n, share in zip(SPLIT_NAMES, ratio) if share and not members[n]]
        choices = empty if len(groups) - number <= len(empty) else SPLIT_NAMES
        members[max(choices, key=lacking.__getitem__)] += group
    return members
