from __future__ import annotations

import pytest

from liteseg_plugin.evaluation.verify import RuntimeAgreement, Verification


def agreement(share, miou, logits=(None, None)):
    return RuntimeAgreement(share, "a.png", share, miou, *logits)


@pytest.mark.parametrize(
    ("precision", "share", "miou", "ok"),
    [
        ("fp32", 0.9999, 0.2, True),
        ("fp32", 0.9998, 0.7, False),
        ("int8", 0.5, 0.696, True),
        ("int8", 1.0, 0.694, False),
    ],
)
def test_float32_must_agree_and_lower_precision_must_keep_its_miou(precision, share, miou, ok):
    runtimes = {"paddle": agreement(1.0, 0.7), "openvino": agreement(share, miou)}
    verification = Verification(precision, 3, 0.7, runtimes)
    assert verification.ok is verification.to_json()["ok"] is ok
    last = verification.text().split("\n")[-1]
    required = {
        "fp32": "at least 99.99% of pixels agree with the trained network",
        "int8": "mIoU at most 0.50 points below the trained network's",
    }[precision]
    wrong = {
        "fp32": "only 99.9800% of pixels agree in openvino",
        "int8": "mIoU is 0.60 points lower in openvino",
    }[precision]
    assert last == (f"ok: {required}" if ok else f"FAILED: {wrong} (required: {required})")


def test_verification_without_a_runtime_is_not_ok():
    verification = Verification("fp32", 3, 0.7, {})
    assert not verification.ok
    assert "FAILED: no runtime was compared (required: " in verification.text()


def test_verification_names_the_weights_of_the_export():
    runtimes = {"paddle": agreement(0.6607, 0.7)}
    lines = Verification("fp32", 3, 0.7123, runtimes, "iter_2/model.pdparams").text().split("\n")
    assert lines[0] == "trained network   mIoU 71.23% on 3 images"
    assert lines[2].startswith("FAILED: only 66.0700% of pixels agree in paddle")
    assert lines[3].startswith("The export is of other weights: iter_2/model.pdparams. ")


def test_logits_are_named_where_the_export_gives_them():
    runtimes = {"paddle": agreement(1.0, 0.7, (2e-5, 12.3)), "openvino": agreement(1.0, 0.7)}
    _, with_logits, without, _ = Verification("fp32", 3, 0.7, runtimes).text().split("\n")
    assert with_logits.endswith(", logits differ by 2.0e-05 of 12.3")
    assert "logits" not in without
