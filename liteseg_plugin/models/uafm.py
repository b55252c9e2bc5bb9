"""UAFM, the Unified Attention Fusion Module: section 3.2 of arXiv 2204.02681.

One module fuses a low-level feature with the upsampled high-level one,
``conv_out(low * a + high * (1 - a))``. The registered variants differ in where the weight ``a``
comes from (nowhere: plain addition; from each pixel; from each channel) and in the convolution.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddleseg.models import layers

from liteseg_plugin.models.resize import (
    RESIZE_MODES,
    adaptive_avg_pool,
    global_max_pool,
    max_over_channels,
    mean_over_channels,
    resize,
    spatial_size,
)


class Attention(NamedTuple):
    """How a variant weighs its two inputs.

    Attributes:
        statistics: Maps the list of both features, each (N, C, H, W), to what the weight is
            computed from.
        build: Builds, from C, the layers that map those statistics to the weight before its
            sigmoid: (N, 1, H, W) or (N, C, 1, 1).
        has_scale: Whether released checkpoints hold a constant ``_scale`` of 1 in place of the
            1 in ``1 - a``.
    """

    statistics: Callable[[list[paddle.Tensor]], paddle.Tensor]
    build: Callable[[int], nn.Layer]
    has_scale: bool = False


class UAFM(nn.Layer):
    """Fuse two features by plain addition; subclasses say how else.

    Your own fusion block needs this constructor and :meth:`forward`, and a registration in
    PaddleSeg's ``manager.MODELS``; a config then names it as ``arm_type``.

    Args:
        low_channels: Channels of the encoder feature.
        high_channels: Channels of the decoder feature from the level below.
        out_channels: Channels of the result.
        ksize: Kernel of the convolution on the encoder feature, in pixels.
        resize_mode: How the decoder feature is upsampled, one of ``RESIZE_MODES``.

    Raises:
        ValueError: If ``resize_mode`` is unknown.

    Example:
        >>> low, high = paddle.rand([1, 256, 64, 128]), paddle.rand([1, 64, 32, 64])
        >>> list(UAFM(256, 64, 32)(low, high).shape)
        [1, 32, 64, 128]
    """

    attention: Attention | None = None
    conv_block: Callable[..., nn.Layer] = layers.ConvBNReLU

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int,
        ksize: int = 3,
        resize_mode: str = "bilinear",
    ) -> None:
        super().__init__()
        if resize_mode not in RESIZE_MODES:
            raise ValueError(f"unknown resize_mode {resize_mode!r}; choose one of {RESIZE_MODES}")
        # Attribute names are the checkpoints': x is the low-level feature, y the high-level one.
        self.conv_x = self.conv_block(
            low_channels, high_channels, kernel_size=ksize, padding=ksize // 2, bias_attr=False
        )
        self.conv_out = self.conv_block(
            high_channels, out_channels, kernel_size=3, padding=1, bias_attr=False
        )
        if self.attention is not None:
            self.conv_xy_atten = self.attention.build(high_channels)
            if self.attention.has_scale:
                self._scale = self.create_parameter(
                    [1], default_initializer=nn.initializer.Constant(1.0)
                )
                self._scale.stop_gradient = True
        self._resize_mode = resize_mode

    def forward(self, low: paddle.Tensor, high: paddle.Tensor) -> paddle.Tensor:
        """Fuse the features.

        Args:
            low: Encoder feature, (N, low_channels, H, W).
            high: Decoder feature of at most that size, (N, high_channels, h, w).

        Returns:
            (N, out_channels, H, W).
        """
        low = self.conv_x(low)
        high = resize(high, spatial_size(low), self._resize_mode)
        return self.conv_out(self._fuse(low, high))

    def _fuse(self, low: paddle.Tensor, high: paddle.Tensor) -> paddle.Tensor:
        if self.attention is None:
            return low + high
        weight = F.sigmoid(self.conv_xy_atten(self.attention.statistics([low, high])))
        one = self._scale if self.attention.has_scale else 1
        return low * weight + high * (one - weight)


def _pixel_mean(features: list[paddle.Tensor]) -> paddle.Tensor:
    """Mean over channels: (N, 2, H, W) as mean_low, mean_high."""
    return paddle.concat([mean_over_channels(x) for x in features], axis=1)


def _pixel_mean_max(features: list[paddle.Tensor]) -> paddle.Tensor:
    """Mean and maximum over channels: (N, 4, H, W) as mean_low, max_low, mean_high, max_high."""
    return paddle.concat(
        [f(x) for x in features for f in (mean_over_channels, max_over_channels)], axis=1
    )


def _channel_mean(features: list[paddle.Tensor]) -> paddle.Tensor:
    """Mean over pixels: (N, 2C, 1, 1) as avg_low, avg_high."""
    return paddle.concat([adaptive_avg_pool(x, 1) for x in features], axis=1)


def _channel_mean_max(features: list[paddle.Tensor]) -> paddle.Tensor:
    """Mean and maximum over pixels: (N, 4C, 1, 1) as avg_low, avg_high, max_low, max_high."""
    # Pooled feature by feature: the order in which PaddleSeg's gradients are summed.
    pooled = [(adaptive_avg_pool(x, 1), global_max_pool(x)) for x in features]
    means, maxima = zip(*pooled)
    return paddle.concat([*means, *maxima], axis=1)


def _pixel_layers(statistics: int) -> nn.Layer:
    return nn.Sequential(
        layers.ConvBNReLU(statistics, 2, kernel_size=3, padding=1, bias_attr=False),
        layers.ConvBN(2, 1, kernel_size=3, padding=1, bias_attr=False),
    )


def _channel_layers(statistics: int, channels: int) -> nn.Layer:
    return nn.Sequential(
        _ConvBNLeakyReLU(statistics * channels, channels // 2, kernel_size=1, bias_attr=False),
        layers.ConvBN(channels // 2, channels, kernel_size=1, bias_attr=False),
    )


class _ConvBNLeakyReLU(layers.ConvBN):
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self._batch_norm(self._conv(x))  # no super(): Paddle 2.6 cannot trace it
        if paddle.in_dynamic_mode():
            return F.leaky_relu(x)
        # The same, but fusing leaky_relu into the convolution crashes oneDNN on Paddle 3.3.
        return paddle.maximum(x, 0.01 * x)


class UAFM_ChAtten(UAFM):  # noqa: N801 - the names are PaddleSeg's, and so the configs'
    """UAFM weighing channels by their mean and maximum."""

    attention = Attention(_channel_mean_max, lambda channels: _channel_layers(4, channels))


class UAFM_ChAtten_S(UAFM):  # noqa: N801
    """UAFM weighing channels by their mean."""

    attention = Attention(_channel_mean, lambda channels: _channel_layers(2, channels))


class UAFM_SpAtten(UAFM):  # noqa: N801
    """UAFM weighing pixels by their mean and maximum over channels: the released models'."""

    attention = Attention(_pixel_mean_max, lambda _: _pixel_layers(4), has_scale=True)


class UAFM_SpAtten_S(UAFM):  # noqa: N801
    """UAFM weighing pixels by their mean over channels."""

    attention = Attention(_pixel_mean, lambda _: _pixel_layers(2))


class UAFMMobile(UAFM):
    """UAFM by addition, with depthwise separable convolutions."""

    conv_block = layers.SeparableConvBNReLU


class UAFMMobile_SpAtten(UAFM):  # noqa: N801
    """UAFM weighing pixels by mean and maximum, with depthwise separable convolutions."""

    attention = Attention(_pixel_mean_max, lambda _: _pixel_layers(4))
    conv_block = layers.SeparableConvBNReLU
