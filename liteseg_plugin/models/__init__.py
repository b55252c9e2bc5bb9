"""PP-LiteSeg's network: encoder features in, logits at the size of the image out."""

import paddleseg  # noqa: F401 - first: its import registers the classes below, through the hook

from liteseg_plugin.models.pp_liteseg import PPLiteSeg
from liteseg_plugin.models.sppm import SPPM, PointwiseContext
from liteseg_plugin.models.uafm import (
    UAFM,
    UAFM_ChAtten,
    UAFM_ChAtten_S,
    UAFM_SpAtten,
    UAFM_SpAtten_S,
    UAFMMobile,
    UAFMMobile_SpAtten,
)

__all__ = [
    "SPPM",
    "UAFM",
    "PPLiteSeg",
    "PointwiseContext",
    "UAFMMobile",
    "UAFMMobile_SpAtten",
    "UAFM_ChAtten",
    "UAFM_ChAtten_S",
    "UAFM_SpAtten",
    "UAFM_SpAtten_S",
]
