"""Compare an exported model with the trained network, in every installed runtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddleseg.core import infer
from paddleseg.transforms import Compose

from liteseg_plugin.datasets.image_compose import format_of
from liteseg_plugin.datasets.validation import about, check_label, read_label
from liteseg_plugin.errors import DataError, ExportError, printable
from liteseg_plugin.evaluation.evaluate import paddleseg_scores
from liteseg_plugin.export.replacing import record_agreement
from liteseg_plugin.exported import REQUIRED_AGREEMENT, ExportedModel
from liteseg_plugin.inference.network import evaluation_scale
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.metrics.agreement import label_agreement
from liteseg_plugin.metrics.confusion import count_pixels
from liteseg_plugin.runtimes.catalog import installed_for
from liteseg_plugin.runtimes.choice import choose

ACCEPTED_MIOU_LOSS = 0.005
"""Accepted loss of mIoU in a lower precision, as a fraction."""


@dataclass(frozen=True)
class RuntimeAgreement:
    """How far one runtime agrees with the trained network.

    Attributes:
        agreement: Share of pixels that get the network's label, 0 to 1; mean over the images.
        worst_image: The image with the smallest share.
        worst_agreement: Its share.
        miou: mIoU of the runtime, 0 to 1.
        logit_difference: Largest absolute difference of a logit; None where the export gives
            labels or probabilities.
        largest_logit: Largest absolute logit of the network on that image; None likewise.
    """

    agreement: float
    worst_image: str
    worst_agreement: float
    miou: float
    logit_difference: float | None
    largest_logit: float | None

    def text(self) -> str:
        """Return the agreement as words for the terminal."""
        words = (
            f"mIoU {self.miou:.2%}, {self.agreement:.4%} of pixels agree "
            f"(worst image {self.worst_agreement:.4%})"
        )
        if self.logit_difference is not None:
            words += f", logits differ by {self.logit_difference:.1e} of {self.largest_logit:.1f}"
        return words


@dataclass(frozen=True)
class Verification:
    """An exported model compared with the trained network.

    Attributes:
        precision: What the runtimes compute in.
        images: Number of images.
        miou: mIoU of the trained network, 0 to 1.
        runtimes: The agreement of each runtime, by name.
        exported_weights: Path of the weights that were exported, if they are another file than
            the network's, by their checksums; None if it is the same, or not known.
    """

    precision: str
    images: int
    miou: float
    runtimes: dict[str, RuntimeAgreement]
    exported_weights: str | None = None

    @property
    def required(self) -> str:
        """What each runtime must reach."""
        if self.precision == "fp32":
            return f"at least {REQUIRED_AGREEMENT:.2%} of pixels agree with the trained network"
        return f"mIoU at most {ACCEPTED_MIOU_LOSS * 100:.2f} points below the trained network's"

    @property
    def ok(self) -> bool:
        """Whether each runtime reaches it, and there is one."""
        return bool(self.runtimes) and not self.failures()

    def failures(self) -> list[str]:
        """Return what is wrong in each runtime that does not reach what is required."""
        if self.precision == "fp32":
            return [
                f"only {result.agreement:.4%} of pixels agree in {name}"
                for name, result in self.runtimes.items()
                if result.agreement < REQUIRED_AGREEMENT
            ]
        return [
            f"mIoU is {(self.miou - result.miou) * 100:.2f} points lower in {name}"
            for name, result in self.runtimes.items()
            if self.miou - result.miou > ACCEPTED_MIOU_LOSS
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return {"ok": self.ok, "required": self.required, **asdict(self)}

    def text(self) -> str:
        """Return the comparison as lines for the terminal."""
        lines = [f"trained network   mIoU {self.miou:.2%} on {self.images} images"]
        lines += [f"{name:18}{result.text()}" for name, result in self.runtimes.items()]
        if self.ok:
            return "\n".join([*lines, f"ok: {self.required}"])
        wrong = "; ".join(self.failures()) or "no runtime was compared"
        lines.append(f"FAILED: {wrong} (required: {self.required})")
        if self.exported_weights is not None:
            lines.append(
                f"The export is of other weights: {printable(self.exported_weights)}. Give these, "
                "or export again"
            )
        return "\n".join(lines)


@dataclass
class _Tally:
    """What is counted of one runtime, or of the network, image by image."""

    counts: Any = 0  # a confusion matrix, from the first image on
    agreements: dict[str, float] = field(default_factory=dict)
    logits: list[tuple[float, float]] = field(default_factory=list)

    def miou(self) -> float:
        return paddleseg_scores(self.counts)["miou"]

    def result(self) -> RuntimeAgreement:
        worst = min(self.agreements, key=lambda image: self.agreements[image])
        difference, largest = max(self.logits, default=(None, None))
        return RuntimeAgreement(
            agreement=float(np.mean(list(self.agreements.values()))),
            worst_image=worst,
            worst_agreement=self.agreements[worst],
            miou=self.miou(),
            logit_difference=difference,
            largest_logit=largest,
        )


def verify(
    network: nn.Layer,
    path: str | os.PathLike,
    pairs: Iterable[Sequence[str]],
    transforms: Compose,
    *,
    num_classes: int,
    test_config: dict,
    ignore_index: int = 255,
    weights_sha256: str | None = None,
    runtimes: Sequence[str] | None = None,
    precision: str = "fp32",
) -> Verification:
    """Compare label maps, mIoU and, where the export gives them, logits.

    Args:
        network: The trained network.
        path: The exported folder.
        pairs: Paths of images and of their labels.
        transforms: The config's transforms of an image.
        num_classes: Number of classes.
        test_config: The config's settings of evaluation.
        ignore_index: Label of ignored pixels.
        weights_sha256: Checksum of the network's weights file, if there is one.
        runtimes: Names of runtimes; by default all that are installed and have the precision.
        precision: One of ``runtimes.base.PRECISIONS``.

    Raises:
        DataError: If there are no images, or one or its label cannot be used.
        ExportError: If no runtime can run the export.
    """
    exported = ExportedModel.read(path)
    names = list(runtimes or installed_for(exported, precision=precision))
    names = names or [choose(exported, device="cpu", precision=precision).runtime]  # its error
    predictors = {name: Predictor(exported, name, "cpu", precision=precision) for name in names}
    scale, image_format = evaluation_scale(test_config), format_of(transforms)
    trained = _Tally()
    tallies = {name: _Tally() for name in names}
    images = 0
    network.eval()
    for image_path, label_path in pairs:
        images += 1
        image = image_format.read(image_path, labelled=True)
        truth = read_label(label_path)
        size_hw = (image.shape[0], image.shape[1])
        try:
            check_label(truth, size_hw, num_classes, ignore_index)
        except DataError as error:
            raise DataError(about(image_path, label_path, error)) from None
        data = transforms({"img": image_format.values(image)})
        batch = paddle.to_tensor(data["img"][np.newaxis])
        with paddle.no_grad():
            labels, logits = infer.aug_inference(network, batch, data["trans_info"], scales=scale)
        labels = labels.numpy()[0, 0]
        trained.counts += count_pixels(labels, truth, num_classes, ignore_index)
        for name, predictor in predictors.items():
            output = predictor.run(predictor.preprocess(image))
            guess = predictor.postprocess(output, size_hw)
            tally = tallies[name]
            tally.counts += count_pixels(guess, truth, num_classes, ignore_index)
            tally.agreements[str(image_path)] = label_agreement(guess, labels)
            # Where transforms change the size, these logits are of the image's.
            if predictor.exported.output_op == "none" and output.shape == tuple(logits.shape):
                expected = logits.numpy()
                difference = np.abs(output - expected).max()
                tally.logits.append((float(difference), float(np.abs(expected).max())))
    if not images:
        raise DataError("there are no images to verify with")
    others = None
    if weights_sha256 and exported.provenance.get("weights_sha256") not in (None, weights_sha256):
        others = str(exported.provenance.get("weights", "not named in deploy.yaml"))
    return Verification(
        precision=precision,
        images=images,
        miou=trained.miou(),
        runtimes={name: tally.result() for name, tally in tallies.items()},
        exported_weights=others,
    )


@dataclass(frozen=True)
class SpotCheck:
    """Share of labels on noise that are the trained network's, 0 to 1, by runtime."""

    agreement: dict[str, float]


def spot_check(network: nn.Layer, path: str | os.PathLike, test_config: dict) -> SpotCheck:
    """Compare an export with the trained network on noise, without a data set.

    ``deploy.yaml`` gets the agreement of each runtime, by which ``--runtime auto`` chooses.

    Raises:
        ExportError: If that is below ``REQUIRED_AGREEMENT`` in one of them, or scores of the
            network or of the export are not finite.
    """
    exported = ExportedModel.read(path)
    batch, channels, height, width = exported.input_shape
    sizes = [(height or open_h, width or open_w) for open_h, open_w in ((131, 197), (256, 320))]
    shapes = sorted({(batch or 1, channels or 3, *size_hw) for size_hw in sizes})
    scale = evaluation_scale(test_config)
    network.eval()
    agreement = {}
    for name in installed_for(exported):
        predictor = Predictor(exported, name, "cpu")
        equal = []
        for shape in shapes:
            noise = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
            with paddle.no_grad():
                labels, logits = infer.aug_inference(
                    network, paddle.to_tensor(noise), [], scales=scale
                )
            _require_finite(logits.numpy(), "the trained network")
            output = predictor.run(noise)
            _require_finite(output, f"the export in {exported.model.parent}, in {name},")
            equal.append(label_agreement(exported.labels_of(output), labels.numpy()[:, 0]))
        agreement[name] = min(equal)
    record_agreement(exported, agreement)
    for name, share in agreement.items():
        if share < REQUIRED_AGREEMENT:
            raise ExportError(
                f"the export in {exported.model.parent} does not give the trained network's labels "
                f"in {name}: {share:.4%} agree on noise; do not use it there"
            )
    return SpotCheck(agreement)


def _require_finite(scores: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity, from which an argmax makes labels that look valid."""
    if wrong := np.count_nonzero(~np.isfinite(scores)):
        raise ExportError(
            f"{what} gives NaN or infinity on noise ({wrong} of {scores.size} values); do not use "
            "it: take an earlier checkpoint"
        )
