"""Comparisons that ``scripts/gpu_check.py`` makes in a process of its own; each prints JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def labels(args: argparse.Namespace) -> dict[str, Any]:
    """Return the share of labels that are those of Paddle on the CPU."""
    from liteseg_plugin import Predictor
    from liteseg_plugin.inference.images import find_images

    reference = Predictor(args.exported, "paddle", "cpu")
    engine = Predictor(args.exported, args.runtime, args.device, precision=args.precision)
    paths = [image.path for image in find_images(args.images)]
    equal = [float((engine(path) == reference(path)).mean()) for path in paths]
    return {"agreement": sum(equal) / len(equal), "worst": min(equal), "images": len(equal)}


def ohem(args: argparse.Namespace) -> dict[str, float]:
    """Return how far loss and gradient of OHEM are from the CPU's, relative to them."""
    import numpy as np
    import paddle

    from liteseg_plugin.losses import OhemCrossEntropyLoss

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 19, 64, 128)).astype("float32")
    truth = rng.choice([*range(19), 255], (2, 64, 128)).astype("int64")
    found = []
    for device in ("cpu", args.device):
        paddle.set_device(device)
        x = paddle.to_tensor(logits, stop_gradient=False)
        loss = OhemCrossEntropyLoss(min_kept=1000)(x, paddle.to_tensor(truth))
        loss.backward()
        found.append((float(loss), x.grad.numpy()))
    (loss, gradient), (other_loss, other) = found
    scale = float(np.abs(gradient).max())
    return {
        "loss": abs(other_loss / loss - 1),
        "gradient": float(np.abs(other - gradient).max()) / scale,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("labels", "ohem"))
    for name in ("device", "exported", "runtime", "precision", "images"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    print(json.dumps({"labels": labels, "ohem": ohem}[given.step](given)))
