"""Context modules: the start of the decoder. Section 3.3 of arXiv 2204.02681."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn
from paddleseg.models import layers

from liteseg_plugin.models.resize import adaptive_avg_pool, resize, spatial_size


class SPPM(nn.Layer):
    """Simple Pyramid Pooling Module.

    Pools the deepest feature to a few grids, convolves each to ``inter_channels``, resizes them
    back, adds them and convolves the sum: pyramid pooling without the wide concatenation.

    Args:
        in_channels: Channels of the deepest encoder feature.
        inter_channels: Channels of each pyramid level.
        out_channels: Channels of the result.
        bin_sizes: Cells along one side of the grid, for each pyramid level.

    Raises:
        ValueError: If ``bin_sizes`` is empty or holds a number below 1.

    Example:
        >>> list(SPPM(1024, 128, 128, (1, 2, 4))(paddle.rand([1, 1024, 16, 32])).shape)
        [1, 128, 16, 32]
    """

    def __init__(
        self, in_channels: int, inter_channels: int, out_channels: int, bin_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        if not bin_sizes or min(bin_sizes) < 1:
            raise ValueError(f"cm_bin_sizes must be numbers of at least 1, got {list(bin_sizes)}")
        # Released checkpoints name the convolution of level i `stages.i.1`: 0 is the pooling.
        self.stages = nn.LayerList(
            nn.Sequential(
                _AdaptiveAvgPool(bins),
                layers.ConvBNReLU(in_channels, inter_channels, kernel_size=1),
            )
            for bins in bin_sizes
        )
        self.conv_out = layers.ConvBNReLU(inter_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        size_hw = spatial_size(x)
        pyramid, *rest = (resize(stage(x), size_hw) for stage in self.stages)
        for level in rest:
            pyramid = pyramid + level
        return self.conv_out(pyramid)


class PointwiseContext(nn.Layer):
    """The paper's ablation "no SPPM": one pointwise convolution to the decoder's width.

    Takes the arguments of :class:`SPPM`, so that ``cm_type: PointwiseContext`` is the only line
    that an ablation's yml changes; it pools nothing.
    """

    def __init__(
        self, in_channels: int, inter_channels: int, out_channels: int, bin_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv_out = layers.ConvBNReLU(in_channels, out_channels, kernel_size=1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self.conv_out(x)


class _AdaptiveAvgPool(nn.Layer):
    def __init__(self, bins: int) -> None:
        super().__init__()
        self._bins = bins

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return adaptive_avg_pool(x, self._bins)
