"""Real CamVid frames through the real commands."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CAMVID = REPOSITORY.parent / "shared" / "camvid"


@pytest.mark.slow
@pytest.mark.skipif(
    not CAMVID.is_dir(),
    reason="the CamVid frames lie beside a checkout for development only (research licence)",
)
def test_train_on_camvid_lowers_the_loss_and_evaluates(process, run, tmp_path):
    (tmp_path / "val.txt").write_text("".join((CAMVID / "val.txt").open().readlines()[::20]))
    config = {
        "_base_": str(REPOSITORY / "configs/pp_liteseg/pp_liteseg_stdc1_camvid_960x720_10k.yml"),
        "batch_size": 4,
        "train_dataset": {
            "dataset_root": str(CAMVID),
            "train_path": str(CAMVID / "train.txt"),
            "transforms": [
                {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 1.0},
                {"type": "RandomPaddingCrop", "crop_size": [160, 120]},
                {"type": "RandomHorizontalFlip"},
                {"type": "Normalize"},
            ],
        },
        "val_dataset": {"dataset_root": str(CAMVID), "val_path": str(tmp_path / "val.txt")},
        "model": {"backbone": {"pretrained": None}},
        "optimizer": {"_inherited_": False, "type": "AdamW"},
        "lr_scheduler": {"warmup_iters": 1, "learning_rate": 0.003},
        "loss": {"types": [{"type": "OhemCrossEntropyLoss", "ignore_index": 255}]},
    }
    path = tmp_path / "camvid.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    trained = process(  # with a worker process, which a fork of pytest's process might block
        *("liteseg", "train", "--config", path, "--device", "cpu", "--iters", 16, "--seed", 1),
        *("--log_iters", 4, "--do_eval", "--save_dir", tmp_path / "out", "--num_workers", 1),
        "--use_vdl",
    )
    losses = [float(v) for v in re.findall(r"\[TRAIN\].*?loss: ([\d.]+)", trained.text)]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    assert list((tmp_path / "out").glob("vdlrecords*"))

    weights = tmp_path / "out" / "best_model" / "model.pdparams"
    evaluated = run("val", "--config", path, "--model_path", weights, "--json")
    numbers = json.loads(evaluated.stdout)
    assert numbers["images"] == 6
    assert all(math.isfinite(v) for v in (numbers["miou"], numbers["kappa"], numbers["accuracy"]))
    # The training run's own evaluation of the same weights.
    assert f"mIoU: {numbers['miou']:.4f}" in trained.text
    assert numbers["accuracy"] > 0.2
