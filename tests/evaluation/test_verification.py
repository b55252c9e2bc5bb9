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
    assert last == f"{'ok' if ok else 'NOT ok'}: {verification.required}"


def test_verification_without_a_runtime_is_not_ok():
    assert not Verification("fp32", 3, 0.7, {}).ok


def test_logits_are_named_where_the_export_gives_them():
    runtimes = {"paddle": agreement(1.0, 0.7, (2e-5, 12.3)), "openvino": agreement(1.0, 0.7)}
    _, with_logits, without, _ = Verification("fp32", 3, 0.7, runtimes).text().split("\n")
    assert with_logits.endswith(", logits differ by 2.0e-05 of 12.3")
    assert "logits" not in without
