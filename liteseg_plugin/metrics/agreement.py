"""How far two label maps agree."""

from __future__ import annotations

import numpy as np

from liteseg_plugin.metrics.confusion import check_shapes


def label_agreement(labels: np.ndarray, others: np.ndarray) -> float:
    """Return the share of labels that are equal, 0 to 1.

    Args:
        labels: Class indices, of any shape.
        others: Class indices, of the same shape.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> label_agreement(np.array([[0, 1], [2, 3]]), np.array([[0, 1], [2, 4]]))
        0.75
    """
    check_shapes(labels, others)
    return float((labels == others).mean())
