"""Hold an exported model, in every runtime that is installed, against the trained network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import paddle
from paddle import nn
from paddleseg.core import infer
from paddleseg.transforms import Compose

from liteseg_plugin.datasets.validation import about, check_label, read_image, read_label
from liteseg_plugin.errors import DataError, ExportError
from liteseg_plugin.evaluation.evaluate import paddleseg_scores
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.network import evaluation_scale
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.metrics.confusion import count_pixels
from liteseg_plugin.runtimes.catalog import installed

REQUIRED_AGREEMENT = 0.9999
"""Share of pixels that must have the label of the trained network, in float32."""

ACCEPTED_MIOU_LOSS = 0.005
"""What mIoU may fall below the trained network's in a lower precision, as a fraction."""


def verify(
    network: nn.Layer,
    path: str | os.PathLike,
    pairs: Iterable[Sequence[str]],
    transforms: Compose,
    *,
    num_classes: int,
    test_config: dict,
    ignore_index: int = 255,
    runtimes: Sequence[str] | None = None,
    precision: str = "fp32",
) -> dict:
    """Compare label maps, mIoU and, where the export gives them, logits.

    Args:
        network: The trained network.
        path: The exported folder.
        pairs: Paths of images and of their labels.
        transforms: The config's transforms of an image.
        num_classes: Number of classes.
        test_config: The config's settings of evaluation.
        ignore_index: Label of pixels that do not count.
        runtimes: Names of runtimes; by default all that are installed and have the precision.
        precision: One of ``runtimes.base.PRECISIONS``.

    Returns:
        ``ok``, ``precision``, ``required``, ``images``, ``miou`` of the network, and for each
        runtime ``agreement`` (share of pixels), ``worst_image`` with its ``worst_agreement``,
        ``miou`` and
        ``logit_difference`` (largest, with the largest logit; None for labels).
    """
    exported = ExportedModel.read(path)
    names = list(runtimes or _able(exported, precision))
    predictors = {name: Predictor(exported, name, precision=precision) for name in names}
    scale = evaluation_scale(test_config)
    counts: dict[str, np.ndarray | int] = dict.fromkeys(("trained", *names), 0)
    results: dict[str, dict] = {name: {"agreements": {}, "logits": []} for name in names}
    images = 0
    network.eval()
    for image_path, label_path in pairs:
        images += 1
        image, truth = read_image(image_path, labelled=True), read_label(label_path)
        try:
            check_label(truth, image.shape[:2], num_classes, ignore_index)
        except DataError as error:
            raise DataError(about(image_path, label_path, error)) from None
        data = transforms({"img": str(image_path)})
        batch = paddle.to_tensor(data["img"][np.newaxis])
        with paddle.no_grad():
            labels, logits = infer.aug_inference(network, batch, data["trans_info"], scales=scale)
        labels = labels.numpy()[0, 0]
        counts["trained"] += count_pixels(labels, truth, num_classes, ignore_index)
        for name, predictor in predictors.items():
            output = predictor.run(predictor.preprocess(image))
            guess = predictor.postprocess(output, image.shape[:2])
            counts[name] += count_pixels(guess, truth, num_classes, ignore_index)
            results[name]["agreements"][str(image_path)] = float((guess == labels).mean())
            if predictor.exported.output_op == "none":
                difference = np.abs(output - logits.numpy()).max()
                results[name]["logits"].append(
                    (float(difference), float(np.abs(logits.numpy()).max()))
                )
    if not images:
        raise DataError("there are no images to verify with")
    report = {name: _summary(result, counts[name]) for name, result in results.items()}
    miou = paddleseg_scores(counts["trained"])["miou"]
    if precision == "fp32":
        required = f"at least {REQUIRED_AGREEMENT:.2%} of pixels agree"
        right = [result["agreement"] >= REQUIRED_AGREEMENT for result in report.values()]
    else:
        required = f"mIoU at most {ACCEPTED_MIOU_LOSS:.3f} lower"
        right = [miou - result["miou"] <= ACCEPTED_MIOU_LOSS for result in report.values()]
    return {
        "ok": bool(right) and all(right),
        "precision": precision,
        "required": required,
        "images": images,
        "miou": miou,
        "runtimes": report,
    }


def spot_check(network: nn.Layer, path: str | os.PathLike, test_config: dict) -> dict:
    """Hold an export against the trained network on noise, without a data set.

    Args:
        network: The trained network.
        path: The exported folder.
        test_config: The config's settings of evaluation.

    Returns:
        ``input_shapes`` of the noise, and in ``agreement``, for each runtime that is installed,
        the share of labels that are the network's.

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
    for name in _able(exported, "fp32"):
        predictor = Predictor(exported, name)
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
            guess = output if exported.output_op == "argmax" else output.argmax(axis=1)
            equal.append(float((guess == labels.numpy()[:, 0]).mean()))
        agreement[name] = min(equal)
        if agreement[name] < REQUIRED_AGREEMENT:
            raise ExportError(
                f"the export in {exported.model.parent} does not give the trained network's labels "
                f"in {name}: {agreement[name]:.4%} agree on noise; do not use it there"
            )
    return {"input_shapes": [list(shape) for shape in shapes], "agreement": agreement}


def _require_finite(scores: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity, of which an argmax makes labels that look right."""
    wrong = int(scores.size - np.isfinite(scores).sum())
    if wrong:
        raise ExportError(
            f"{what} gives NaN or infinity on noise ({wrong} of {scores.size} values); do not use "
            "it: take an earlier checkpoint"
        )


def _able(exported: ExportedModel, precision: str) -> list[str]:
    """Return the installed runtimes that can run an export on a CPU in a precision."""
    names = installed(precision=precision)
    return [name for name in names if name == "paddle" or exported.onnx is not None]


def _summary(result: dict, counts: np.ndarray) -> dict:
    agreements = result["agreements"]
    worst = min(agreements, key=agreements.get)
    difference, largest = max(result["logits"], default=(None, None))
    return {
        "agreement": float(np.mean(list(agreements.values()))),
        "worst_image": worst,
        "worst_agreement": agreements[worst],
        "miou": paddleseg_scores(counts)["miou"],
        "logit_difference": difference,
        "largest_logit": largest,
    }
