from __future__ import annotations

import numpy as np
import pytest

from liteseg_plugin.metrics.agreement import label_agreement


def test_label_agreement_is_the_share_of_equal_labels():
    labels = np.array([[0, 1, 2, 3], [4, 5, 6, 255]], "int32")
    others = labels.astype("int64")
    assert label_agreement(labels, others) == 1
    others[0, :3] = 9
    assert label_agreement(labels, others) == 5 / 8


def test_label_agreement_refuses_other_shapes():
    with pytest.raises(ValueError, match="differ in shape"):
        label_agreement(np.zeros((2, 3)), np.zeros((1, 3)))
