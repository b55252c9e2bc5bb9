from __future__ import annotations

import json

import numpy as np
import pytest

from liteseg_plugin.serving import tensors
from liteseg_plugin.serving.refusal import RefusedError


@pytest.mark.parametrize(("dtype", "most"), [("float32", 5), ("int32", 25)])
def test_answer_in_json_is_bounded(monkeypatch, dtype, most):
    monkeypatch.setattr(tensors, "MAX_JSON", 100)
    x = np.zeros((1, 3, 1, 1), np.float32)
    asked = tensors.InferRequest(x)
    body, _ = tensors.write_answer(asked, "m", "y", np.zeros(most, dtype))
    assert json.loads(body)["outputs"][0]["data"] == [0] * most
    output = np.zeros(most + 1, dtype)
    with pytest.raises(RefusedError, match=f"{most + 1} numbers are too many for JSON"):
        tensors.write_answer(asked, "m", "y", output)
    tensors.write_answer(tensors.InferRequest(x, binary=True), "m", "y", output)
