"""Records of the weights that PaddleSeg's authors released."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from liteseg_plugin.errors import WeightsError, printable
from liteseg_plugin.system.text import did_you_mean

_VISUALDL = "https://www.paddlepaddle.org.cn/paddle/visualdl/service/app/scalar?id="
_VISUALDL_APP = "https://paddlepaddle.org.cn/paddle/visualdl/service/app?id="
_OF_PADDLESEG = "released by PaddleSeg's authors with their repository, which is Apache-2.0"
_TERMS = {
    "Cityscapes": f"{_OF_PADDLESEG}. Trained on Cityscapes, whose terms allow non-commercial use "
    "only (https://www.cityscapes-dataset.com/license/); ask them if you need more",
    "CamVid": f"{_OF_PADDLESEG}. Trained on CamVid; ask its authors for their terms",
    "ImageNet, PSSL": f"{_OF_PADDLESEG}. Trained on ImageNet with the pseudo labels PSSL; ask the "
    "authors of both for their terms",
    "not stated": f"{_OF_PADDLESEG}, which does not state the data of the pre-training",
}


@dataclass(frozen=True)
class ReleasedWeights:
    """Weights that PaddleSeg's authors released, and their metrics.

    Attributes:
        name: What ``--model_path`` and ``pretrained`` take; of a model, its configuration.
        model: ``PP-LiteSeg-T`` or ``PP-LiteSeg-B``; of a backbone, ``STDC1`` or ``STDC2``.
        backbone: ``STDC1`` or ``STDC2``.
        dataset: What was trained on.
        url: URL of the weights, or of an archive of them.
        classes: Number of classes; None for a backbone, like all that follows but ``sha256``.
            Weights to start from have no metrics.
        iterations: Length of training.
        train_wh: Crop of training, width and height in pixels.
        test_wh: Size at which the network runs in evaluation.
        miou: mIoU in percent: on Cityscapes' val set, on CamVid's test set.
        miou_flip: The same, averaged with the flipped image.
        miou_ms_flip: The same, at scales 0.75, 1.0 and 1.25 and flipped; None if not measured.
        log_url: URL of the training log.
        visualdl_url: URL of the training curves.
        size_bytes: Size of the file; None where it is not known.
        sha256: SHA-256 of the file, as the authors published it; None, as they published none.
        sha256_quoted: The same as a third party quotes it, which nobody here has verified.
    """

    name: str
    model: str
    backbone: str
    dataset: str
    url: str
    classes: int | None = None
    iterations: int | None = None
    train_wh: tuple[int, int] | None = None
    test_wh: tuple[int, int] | None = None
    miou: float | None = None
    miou_flip: float | None = None
    miou_ms_flip: float | None = None
    log_url: str | None = None
    visualdl_url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    sha256_quoted: str | None = None

    @property
    def config(self) -> str:
        """Name of the configuration of a model."""
        return self.name.removesuffix("_pssl")

    @property
    def licence(self) -> str:
        """What is known of the terms of use."""
        return _TERMS[self.dataset]

    def to_json(self) -> dict[str, Any]:
        """Return the record, with ``licence``."""
        return {**dataclasses.asdict(self), "licence": self.licence}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ReleasedWeights:
        """Read what :meth:`to_json` returned."""
        known = {f.name: content[f.name] for f in dataclasses.fields(cls) if f.name in content}
        for name in ("train_wh", "test_wh"):
            known[name] = tuple(known[name]) if known.get(name) else None
        return cls(**known)


def _model(
    name: str,
    test_wh: tuple[int, int],
    miou: float,
    flip: float,
    ms_flip: float | None,
    visualdl_url: str,
) -> ReleasedWeights:
    is_t, is_camvid = "stdc1" in name, "camvid" in name
    dataset = "CamVid" if is_camvid else "Cityscapes"
    folder = f"https://paddleseg.bj.bcebos.com/dygraph/{dataset.lower()}/{name}"
    return ReleasedWeights(
        name=name,
        model="PP-LiteSeg-T" if is_t else "PP-LiteSeg-B",
        backbone="STDC1" if is_t else "STDC2",
        dataset=dataset,
        url=f"{folder}/model.pdparams",
        classes=11 if is_camvid else 19,
        iterations=10_000 if is_camvid else 160_000,
        train_wh=(960, 720) if is_camvid else (1024, 512),
        test_wh=test_wh,
        miou=miou,
        miou_flip=flip,
        miou_ms_flip=ms_flip,
        log_url=f"{folder}/train.log",
        visualdl_url=visualdl_url,
    )


RELEASED = (
    _model(
        *("pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k", (1024, 512), 73.10, 73.89, None),
        f"{_VISUALDL}66db3a2815980e41274ad587df2cd4e4",
    ),
    _model(
        *("pp_liteseg_stdc1_cityscapes_1024x512_scale0.75_160k", (1536, 768), 76.03, 76.74, None),
        f"{_VISUALDL}ea5d56fbfceb8d020eabe46e9bc8c40c",
    ),
    _model(
        *("pp_liteseg_stdc1_cityscapes_1024x512_scale1.0_160k", (2048, 1024), 77.04, 77.73, 77.46),
        f"{_VISUALDL_APP}b9d2ca9445c5b3ee41db8ec37252d3e8",
    ),
    _model(
        *("pp_liteseg_stdc2_cityscapes_1024x512_scale0.5_160k", (1024, 512), 75.25, 75.65, None),
        f"{_VISUALDL_APP}75a52ed995914223474b3c17e628d65e",
    ),
    _model(
        *("pp_liteseg_stdc2_cityscapes_1024x512_scale0.75_160k", (1536, 768), 78.75, 79.23, None),
        f"{_VISUALDL}a248fe1f645018306f1d4a0da33d97d6",
    ),
    _model(
        *("pp_liteseg_stdc2_cityscapes_1024x512_scale1.0_160k", (2048, 1024), 79.04, 79.52, 79.85),
        f"{_VISUALDL}12fa0144ca6a1541186afd2c53d31bcb",
    ),
    _model(
        *("pp_liteseg_stdc1_camvid_960x720_10k", (960, 720), 73.30, 73.89, 73.66),
        f"{_VISUALDL_APP}5685c196ff76493cecf867564c7e49be",
    ),
    _model(
        *("pp_liteseg_stdc2_camvid_960x720_10k", (960, 720), 75.10, 75.85, 75.48),
        f"{_VISUALDL}cf5223dd121d58ceff7fd93135efb573",
    ),
)
"""The eight released models, from PaddleSeg's own tables."""

BACKBONES = (
    ReleasedWeights(
        *("PP_STDCNet1", "STDC1", "STDC1", "not stated"),
        "https://bj.bcebos.com/paddleseg/dygraph/PP_STDCNet1.tar.gz",
        sha256_quoted="245fe3c2e029c7ff271b4bd4e229f3849a50566fb6356ea0e56494146c6a9187",
    ),
    ReleasedWeights(
        *("PP_STDCNet2", "STDC2", "STDC2", "not stated"),
        "https://bj.bcebos.com/paddleseg/dygraph/PP_STDCNet2.tar.gz",
    ),
)
"""The two backbones that training starts from."""

_PSSL = "https://paddleseg.bj.bcebos.com/dygraph/pssl"
PSSL = (
    dataclasses.replace(
        RELEASED[5],  # the recipe is that of PP-LiteSeg-B at scale 1.0
        name=f"{RELEASED[5].name}_pssl",
        url=f"{_PSSL}/pplite_stdc2_cityscapes_pssl/model.pdparams",
        miou=79.06,
        miou_flip=79.61,
        miou_ms_flip=79.97,
        log_url=f"{_PSSL}/pplite_stdc2_cityscapes_pssl/train.log",
        visualdl_url=None,
    ),
    ReleasedWeights(
        name="pp_liteseg_stdc2_pssl_pretrained",
        model="PP-LiteSeg-B",
        backbone="STDC2",
        dataset="ImageNet, PSSL",
        url=f"{_PSSL}/pp_liteseg_stdc2_pssl_pretrained/model.pdparams",
        classes=1001,
        train_wh=(256, 256),
    ),
)
"""PaddleSeg's PSSL pre-training (its configs/pssl): what it gave, and what it started from."""

_ALL = {record.name: record for record in (*RELEASED, *PSSL, *BACKBONES)}


def find_record(name_or_url: str) -> ReleasedWeights | None:
    """Return the record of a name or of a URL, if there is one."""
    by_url = (record for record in _ALL.values() if record.url == name_or_url)
    return _ALL.get(name_or_url) or next(by_url, None)


def get_record(name: str) -> ReleasedWeights:
    """Return the record of a name.

    Raises:
        WeightsError: If there is none; the message lists the names.
    """
    record = find_record(name)
    if record is None:
        raise WeightsError(f"no released weights are called {printable(name)}{similar(name)}")
    return record


def similar(name: str) -> str:
    """Return the end of a message about weights of this name, which do not exist."""
    question = did_you_mean(name, _ALL, cutoff=0.7)
    hint = f"; {question}" if question else "."
    return f"{hint} `liteseg weights list` prints the names of released weights"
