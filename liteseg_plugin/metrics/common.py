"""What several metrics share."""

from __future__ import annotations

import numpy as np
import paddle


def check_shapes(pred: paddle.Tensor | np.ndarray, label: paddle.Tensor | np.ndarray) -> None:
    """Raise ValueError if prediction and truth differ in shape."""
    if list(pred.shape) != list(label.shape):
        raise ValueError(
            f"pred and label differ in shape: {list(pred.shape)} and {list(label.shape)}"
        )


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 0) -> np.ndarray:
    """Divide; where the whole is 0 the result is ``otherwise``."""
    return np.divide(part, whole, out=np.full(np.shape(whole), float(otherwise)), where=whole != 0)
