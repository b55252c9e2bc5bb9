"""PP-LiteSeg, a real-time semantic segmentation network: arXiv 2204.02681.

The path of an image: the encoder (STDC) gives features at strides 2 to 32; the context module
pools the deepest; the Flexible and Lightweight Decoder (FLD) fuses upwards, one fusion block for
each chosen stride; a head on the finest fused feature gives the logits. In training every fused
feature has a head, and each head a loss.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle import nn
from paddleseg.cvlibs import manager
from paddleseg.models import layers
from paddleseg.utils import utils

from liteseg_plugin.models.resize import resize, spatial_size


class PPLiteSeg(nn.Layer):
    """Semantic segmentation by encoder, context module, light decoder and heads.

    Args:
        num_classes: Number of classes.
        backbone: Encoder with an attribute ``feat_channels``; its forward gives one feature for
            each of them, from fine to coarse.
        backbone_indices: Which features are fused, from fine to coarse.
        arm_type: Name of the fusion block in PaddleSeg's ``manager.MODELS``.
        cm_bin_sizes: Grid sizes of the context module.
        cm_out_ch: Channels of the context module.
        arm_out_chs: Channels of each fused feature, or one number for all.
        seg_head_inter_chs: Hidden channels of each head, or one number for all.
        resize_mode: How the decoder upsamples, ``bilinear`` or ``nearest``.
        pretrained: Path or URL of weights to start from.
        cm_type: Name of the context module in PaddleSeg's ``manager.MODELS``.
        frozen: Names of parts that are not trained, such as ``backbone`` or
            ``backbone.features.0``; their batch norms keep the statistics that they have.
        backbone_init: ``kaiming`` draws the backbone's convolutions from He's normal distribution
            (arXiv 1502.01852), for training without pretrained weights. PaddleSeg's STDC draws
            them from N(0, 0.001), a start that it leaves slowly.

    Raises:
        ValueError: If the backbone has no ``feat_channels``, if indices or numbers of channels do
            not fit each other, if no class is registered under a name (the message lists those
            that are close), if ``frozen`` names a missing part, or if ``backbone_init``
            is unknown or would overwrite pretrained weights.

    Example:
        >>> from paddleseg.models import STDC1
        >>> net = PPLiteSeg(19, STDC1())
        >>> [list(logit.shape) for logit in net(paddle.rand([2, 3, 64, 128]))]
        [[2, 19, 64, 128], [2, 19, 64, 128], [2, 19, 64, 128]]
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        backbone_indices: Sequence[int] = (2, 3, 4),
        arm_type: str = "UAFM_SpAtten",
        cm_bin_sizes: Sequence[int] = (1, 2, 4),
        cm_out_ch: int = 128,
        arm_out_chs: Sequence[int] = (64, 96, 128),
        seg_head_inter_chs: Sequence[int] = (64, 64, 64),
        resize_mode: str = "bilinear",
        pretrained: str | None = None,
        cm_type: str = "SPPM",
        frozen: Sequence[str] = (),
        backbone_init: str | None = None,
    ) -> None:
        super().__init__()
        if backbone_init is not None:
            _initialise(backbone, backbone_init)
        encoder_channels = _encoder_channels(backbone, backbone_indices)
        decoder_channels = _one_each("arm_out_chs", arm_out_chs, backbone_indices)
        head_channels = _one_each("seg_head_inter_chs", seg_head_inter_chs, backbone_indices)

        # Attribute names are the released checkpoints'.
        self.backbone = backbone
        self.ppseg_head = Decoder(
            encoder_channels,
            decoder_channels,
            context=_registered("cm_type", cm_type, "SPPM"),
            context_channels=cm_out_ch,
            bin_sizes=cm_bin_sizes,
            fusion=_registered("arm_type", arm_type, "UAFM"),
            resize_mode=resize_mode,
        )
        self.seg_heads = nn.LayerList(
            SegHead(channels, hidden, num_classes)
            for channels, hidden in zip(decoder_channels, head_channels)
        )
        self._backbone_indices = tuple(backbone_indices)
        self._frozen = _known_parts(self, frozen)
        for part in self._frozen_parts():
            for parameter in part.parameters():
                parameter.stop_gradient = True
        if pretrained is not None:
            utils.load_pretrained_model(self, pretrained)

    def train(self, mode: bool = True) -> PPLiteSeg:
        """Switch to training, except the frozen parts; to evaluation if ``mode`` is False."""
        if not mode:
            self.eval()
            return self
        super().train()
        for part in self._frozen_parts():
            part.eval()
        return self

    def _frozen_parts(self) -> list[nn.Layer]:
        # Looked up each time: SyncBatchNorm's conversion replaces layers.
        return [part for name, part in self.named_sublayers() if name in self._frozen]

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Return the logits of a batch.

        Args:
            x: Normalised images, (N, 3, H, W).

        Returns:
            Logits (N, num_classes, H, W): in training one for each fused feature, from fine to
            coarse; in evaluation those of the finest alone.
        """
        size_hw = spatial_size(x)
        return [resize(logit, size_hw) for logit in self.coarse_logits(x)]

    def coarse_logits(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Return the logits of :meth:`forward` before they are resized to the images.

        Returns:
            Logits (N, num_classes, h, w), each at the size of its fused feature.
        """
        features = self.backbone(x)
        fused = self.ppseg_head([features[i] for i in self._backbone_indices])
        used = len(fused) if self.training else 1
        return [head(feature) for head, feature in zip(self.seg_heads, fused[:used])]


class Decoder(nn.Layer):
    """The Flexible and Lightweight Decoder: a context module, then one fusion block per level.

    Args:
        encoder_channels: Channels of the encoder features, from fine to coarse.
        decoder_channels: Channels of the fused features, likewise.
        context: Class of the context module.
        context_channels: Channels of its result.
        bin_sizes: Its grid sizes.
        fusion: Class of the fusion blocks.
        resize_mode: How they upsample.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        *,
        context: Callable[..., nn.Layer],
        context_channels: int,
        bin_sizes: Sequence[int],
        fusion: Callable[..., nn.Layer],
        resize_mode: str,
    ) -> None:
        super().__init__()
        self.cm = context(encoder_channels[-1], context_channels, context_channels, bin_sizes)
        below = [*decoder_channels[1:], context_channels]
        self.arm_list = nn.LayerList(
            fusion(low, high, out, ksize=3, resize_mode=resize_mode)
            for low, high, out in zip(encoder_channels, below, decoder_channels)
        )

    def forward(self, features: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        """Fuse encoder features (N, C_i, H_i, W_i), fine to coarse, to as many of the same size."""
        fused = [self.cm(features[-1])]
        for fuse, low in zip(reversed(list(self.arm_list)), reversed(features)):
            fused.append(fuse(low, fused[-1]))
        return fused[:0:-1]


class SegHead(nn.Layer):
    """Two convolutions from a fused feature (N, C, H, W) to logits (N, num_classes, H, W)."""

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = layers.ConvBNReLU(
            in_channels, hidden_channels, kernel_size=3, padding=1, bias_attr=False
        )
        self.conv_out = nn.Conv2D(hidden_channels, num_classes, kernel_size=1, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the logits of ``x``, at its own size."""
        return self.conv_out(self.conv(x))


def _encoder_channels(backbone: nn.Layer, indices: Sequence[int]) -> list[int]:
    channels = getattr(backbone, "feat_channels", None)
    if channels is None:
        raise ValueError(
            f"backbone {type(backbone).__name__} has no attribute feat_channels "
            "(the channels of each feature it returns)"
        )
    if len(indices) < 2 or list(indices) != sorted(set(indices)):
        raise ValueError(
            f"backbone_indices must be two or more, from fine to coarse, got {list(indices)}"
        )
    if indices[0] < 0 or indices[-1] >= len(channels):
        raise ValueError(
            f"backbone_indices {list(indices)} do not fit {type(backbone).__name__}, which has "
            f"{len(channels)} features (0 to {len(channels) - 1})"
        )
    return [channels[i] for i in indices]


def _initialise(backbone: nn.Layer, method: str) -> None:
    if method != "kaiming":
        raise ValueError(f"unknown backbone_init {method!r}; choose kaiming, or remove it")
    if getattr(backbone, "pretrained", None) is not None:
        raise ValueError(
            f"backbone_init would overwrite the pretrained weights {backbone.pretrained}; give one "
            "of the two"
        )
    draw = nn.initializer.KaimingNormal()
    for layer in backbone.sublayers():
        if isinstance(layer, nn.Conv2D):
            draw(layer.weight)


def _one_each(name: str, values: Sequence[int], indices: Sequence[int]) -> list[int]:
    """Return one value for each index; a single one serves all (the paper's constant width)."""
    if len(values) == 1:
        return list(values) * len(indices)
    if len(values) != len(indices):
        raise ValueError(
            f"{len(values)} {name} {list(values)} for {len(indices)} backbone_indices "
            f"{list(indices)}; give one for each, or a single one for all"
        )
    return list(values)


def _known_parts(model: nn.Layer, names: Sequence[str]) -> set[str]:
    if isinstance(names, str):
        raise ValueError(f"frozen must be a list of names, such as [{names}]")
    parts = [name for name, _ in model.named_sublayers()]
    for name in names:
        if name not in parts:
            close = difflib.get_close_matches(name, parts)
            top = [part for part in parts if "." not in part]
            raise ValueError(f"frozen: no part is named {name!r}; parts are {close or top}, ...")
    return set(names)


def _registered(argument: str, name: Any, base: str) -> type[nn.Layer]:
    """Return the class registered as ``name``; ``base`` is the plugin's own class of that kind."""
    known = manager.MODELS.components_dict
    if name in known:
        return known[name]
    kind = known[base].__module__
    own = [key for key, cls in known.items() if cls.__module__ == kind]
    others = [key for key in difflib.get_close_matches(str(name), known) if key not in own]
    raise ValueError(
        f"unknown {argument} {name!r}; choose one of {sorted(own) + others}, or register a class "
        "with @manager.MODELS.add_component"
    )
