from __future__ import annotations

import copy

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
import yaml
from paddle import nn
from paddleseg.cvlibs import Config, SegBuilder, manager
from paddleseg.models import STDC1

from liteseg_plugin.models import (
    SPPM,
    UAFM,
    PointwiseContext,
    PPLiteSeg,
    UAFM_ChAtten,
    UAFM_ChAtten_S,
    UAFM_SpAtten,
    UAFM_SpAtten_S,
    UAFMMobile,
    UAFMMobile_SpAtten,
)

FUSION_BLOCKS = [
    UAFM,
    UAFM_ChAtten,
    UAFM_ChAtten_S,
    UAFM_SpAtten,
    UAFM_SpAtten_S,
    UAFMMobile,
    UAFMMobile_SpAtten,
]
WEIGHING = [block for block in FUSION_BLOCKS if block.attention is not None]


class Encoder(nn.Layer):
    """Five features of 4 to 12 channels at strides 2 to 32: small, so that tests are fast."""

    feat_channels = (4, 6, 8, 10, 12)

    def __init__(self):
        super().__init__()
        widths = (3, *self.feat_channels)
        self.convs = nn.LayerList(
            nn.Conv2D(before, after, 3, stride=2, padding=1)
            for before, after in zip(widths, widths[1:])
        )

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = conv(x)
            features.append(x)
        return features


class NoChannels(nn.Layer):
    pass


SMALL = {"cm_out_ch": 8, "arm_out_chs": [4, 6, 8], "seg_head_inter_chs": [4, 4, 6]}


def small(num_classes=5, **changes):
    paddle.seed(0)
    return PPLiteSeg(num_classes, Encoder(), **{**SMALL, **changes})


@pytest.fixture
def registered():
    """Return a function that registers a class of a user's; it is forgotten after the test."""
    names = []

    def register(cls):
        names.append(cls.__name__)
        return manager.MODELS.add_component(cls)

    yield register
    for name in names:
        del manager.MODELS.components_dict[name]


@pytest.fixture
def build_from_yml(tmp_path):
    """Return a function that builds the network of a yml, as PaddleSeg's scripts do."""

    def build(**model):
        path = tmp_path / "config.yml"
        content = {
            "batch_size": 2,
            "iters": 1,
            "model": {
                "type": "PPLiteSeg",
                "num_classes": 7,
                "backbone": {"type": "STDC1"},
                **model,
            },
            "train_dataset": {"type": "Dataset", "num_classes": 7, "mode": "train"},
            "optimizer": {"type": "SGD"},
            "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
            "loss": {"types": [{"type": "OhemCrossEntropyLoss"}], "coef": [1, 1, 1]},
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return SegBuilder(Config(str(path))).model

    return build


# --- network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_hw", [(64, 96), (97, 131), (32, 32)])
@pytest.mark.parametrize("arm_type", [block.__name__ for block in FUSION_BLOCKS])
def test_pp_liteseg_logits_have_size_of_image(arm_type, size_hw):
    net = small(arm_type=arm_type)
    image = paddle.rand([2, 3, *size_hw])
    net.train()
    assert [logit.shape for logit in net(image)] == [[2, 5, *size_hw]] * 3
    net.eval()
    assert [logit.shape for logit in net(image)] == [[2, 5, *size_hw]]


def test_pp_liteseg_eval_gives_the_finest_of_the_training_logits():
    net = small()
    image = paddle.rand([2, 3, 64, 96])
    net.train()
    for layer in net.sublayers():
        if isinstance(layer, (nn.BatchNorm, nn.BatchNorm2D)):
            layer.eval()
    finest, *coarser = net(image)
    net.eval()
    (logit,) = net(image)
    np.testing.assert_array_equal(logit.numpy(), finest.numpy())
    assert all((other.numpy() != finest.numpy()).any() for other in coarser)


def test_pp_liteseg_two_backbone_indices():
    net = small(backbone_indices=[3, 4], arm_out_chs=[6, 8], seg_head_inter_chs=[4, 6])
    net.train()
    assert [logit.shape for logit in net(paddle.rand([2, 3, 70, 50]))] == [[2, 5, 70, 50]] * 2
    assert [block.conv_x._conv.weight.shape[1] for block in net.ppseg_head.arm_list] == [10, 12]


def test_pp_liteseg_constant_width():
    net = small(arm_out_chs=[96], seg_head_inter_chs=[16])
    assert [block.conv_out._conv.weight.shape[0] for block in net.ppseg_head.arm_list] == [96] * 3
    assert [head.conv._conv.weight.shape[:2] for head in net.seg_heads] == [[16, 96]] * 3
    assert [logit.shape for logit in net(paddle.rand([2, 3, 64, 64]))] == [[2, 5, 64, 64]] * 3


def test_backbone_init_draws_from_hes_normal_distribution():
    spread = {
        method: [
            float(layer.weight.std()) * np.sqrt(np.prod(layer.weight.shape[1:]) / 2)
            for layer in PPLiteSeg(2, STDC1(), backbone_init=method).backbone.sublayers()
            if isinstance(layer, nn.Conv2D) and layer.weight.size > 1000
        ]
        for method in (None, "kaiming")
    }
    assert max(spread[None]) < 0.1
    np.testing.assert_allclose(spread["kaiming"], 1, rtol=0.1)


def test_backbone_init_refuses():
    with pytest.raises(ValueError, match="unknown backbone_init 'xavier'; choose kaiming"):
        PPLiteSeg(2, Encoder(), backbone_init="xavier")
    encoder = Encoder()
    encoder.pretrained = "weights.pdparams"
    with pytest.raises(ValueError, match="would overwrite the pretrained weights"):
        PPLiteSeg(2, encoder, backbone_init="kaiming")


def test_pp_liteseg_arguments_are_not_changed():
    arguments = {
        "backbone_indices": [2, 3, 4],
        "cm_bin_sizes": [1, 2],
        "arm_out_chs": [96],
        "seg_head_inter_chs": [16],
    }
    before = copy.deepcopy(arguments)
    net = small(**arguments)
    net(paddle.rand([2, 3, 64, 64]))
    assert arguments == before
    arguments["backbone_indices"].clear()  # nor does the network hold on to them
    assert len(net(paddle.rand([2, 3, 64, 64]))) == 3


def test_pp_liteseg_resize_mode_is_that_of_the_decoder():
    nets = {mode: small(resize_mode=mode) for mode in ("bilinear", "nearest")}
    nets["nearest"].set_state_dict(nets["bilinear"].state_dict())
    image = paddle.rand([1, 3, 64, 96])
    for net in nets.values():
        net.eval()
    bilinear, nearest = (net(image)[0] for net in nets.values())
    assert (bilinear.numpy() != nearest.numpy()).any()


# --- by yml -------------------------------------------------------------------------------------


def test_yml_ablations_reach_the_network(build_from_yml):
    net = build_from_yml(cm_type="PointwiseContext", arm_type="UAFM", arm_out_chs=[96])
    assert type(net) is PPLiteSeg
    assert type(net.ppseg_head.cm) is PointwiseContext
    assert [type(block) for block in net.ppseg_head.arm_list] == [UAFM] * 3
    assert not any("conv_xy_atten" in name for name in net.state_dict())
    net.eval()
    assert [logit.shape for logit in net(paddle.rand([1, 3, 97, 131]))] == [[1, 7, 97, 131]]


def test_yml_finds_classes_of_the_users(build_from_yml, registered):
    @registered
    class MaximumFusion(UAFM):
        def _fuse(self, low, high):
            return paddle.maximum(low, high)

    @registered
    class FirstChannels(nn.Layer):
        def __init__(self, in_channels, inter_channels, out_channels, bin_sizes):
            super().__init__()
            self.out_channels = out_channels

        def forward(self, x):
            return x[:, : self.out_channels]

    net = build_from_yml(arm_type="MaximumFusion", cm_type="FirstChannels", cm_out_ch=16)
    assert [type(block) for block in net.ppseg_head.arm_list] == [MaximumFusion] * 3
    assert type(net.ppseg_head.cm) is FirstChannels
    assert len(net(paddle.rand([2, 3, 64, 64]))) == 3


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm_out_chs": [4, 6]}, r"2 arm_out_chs \[4, 6\] for 3 backbone_indices \[2, 3, 4\]"),
        ({"arm_out_chs": []}, r"0 arm_out_chs \[\] for 3 backbone_indices"),
        (
            {"seg_head_inter_chs": [4, 4, 4, 4]},
            r"4 seg_head_inter_chs \[4, 4, 4, 4\] for 3 backbone_indices",
        ),
        ({"backbone_indices": [4]}, r"two or more, from fine to coarse, got \[4\]"),
        ({"backbone_indices": []}, r"two or more, from fine to coarse, got \[\]"),
        ({"backbone_indices": [4, 3, 2]}, r"from fine to coarse, got \[4, 3, 2\]"),
        ({"backbone_indices": [2, 2, 4]}, r"from fine to coarse, got \[2, 2, 4\]"),
        (
            {"backbone_indices": [2, 3, 5]},
            r"\[2, 3, 5\] do not fit Encoder, which has 5 features \(0 to 4\)",
        ),
        ({"backbone_indices": [-1, 3, 4]}, r"\[-1, 3, 4\] do not fit Encoder"),
        (
            {"resize_mode": "bicubic"},
            r"unknown resize_mode 'bicubic'; choose one of \('bilinear', 'nearest'\)",
        ),
        ({"cm_bin_sizes": []}, r"cm_bin_sizes must be numbers of at least 1, got \[\]"),
        ({"cm_bin_sizes": [1, 0]}, r"cm_bin_sizes must be numbers of at least 1, got \[1, 0\]"),
    ],
)
def test_pp_liteseg_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_pp_liteseg_refuses_backbone_without_feat_channels():
    with pytest.raises(ValueError, match="backbone NoChannels has no attribute feat_channels"):
        PPLiteSeg(5, NoChannels())


def test_pp_liteseg_unknown_arm_type_lists_choices():
    with pytest.raises(ValueError, match="unknown arm_type 'UAFM_SpAttn'") as caught:
        small(arm_type="UAFM_SpAttn")
    for block in FUSION_BLOCKS:
        assert f"'{block.__name__}'" in str(caught.value)
    assert "'PPLiteSeg'" not in str(caught.value)


def test_pp_liteseg_unknown_cm_type_lists_choices():
    with pytest.raises(ValueError, match="unknown cm_type 'ASPP2'") as caught:
        small(cm_type="ASPP2")
    assert "'SPPM'" in str(caught.value) and "'PointwiseContext'" in str(caught.value)


def test_pp_liteseg_arm_type_is_looked_up_not_evaluated():
    with pytest.raises(ValueError, match="unknown arm_type"):
        small(arm_type="UAFM if True else None")


# --- fusion -------------------------------------------------------------------------------------

LOW = paddle.to_tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [9.0, 0.0]]]])
HIGH = paddle.to_tensor([[[[8.0, 4.0], [0.0, 2.0]], [[2.0, 8.0], [4.0, 6.0]]]])


def test_spatial_statistics_order():
    by_hand = [
        [[3.0, 4.0], [6.0, 2.0]],  # mean_low
        [[5.0, 6.0], [9.0, 4.0]],  # max_low
        [[5.0, 6.0], [2.0, 4.0]],  # mean_high
        [[8.0, 8.0], [4.0, 6.0]],  # max_high
    ]
    for block in (UAFM_SpAtten, UAFMMobile_SpAtten):
        assert block.attention.statistics([LOW, HIGH]).tolist() == [by_hand]
    assert UAFM_SpAtten_S.attention.statistics([LOW, HIGH]).tolist() == [by_hand[::2]]


def test_channel_statistics_order():
    averages, maxima = [2.5, 5.0, 3.5, 5.0], [4.0, 9.0, 8.0, 8.0]  # of low, then of high
    both = UAFM_ChAtten.attention.statistics([LOW, HIGH])
    assert both.shape == [1, 8, 1, 1]
    assert both.flatten().tolist() == averages + maxima
    mean = UAFM_ChAtten_S.attention.statistics([LOW, HIGH])
    assert mean.shape == [1, 4, 1, 1]
    assert mean.flatten().tolist() == averages


def bare(block, attention_bias=None):
    """Build a block without convolutions, whose attention is the sigmoid of a number everywhere."""
    net = block(2, 2, 2)
    net.conv_x = net.conv_out = nn.Identity()
    if attention_bias is not None:
        norm = net.conv_xy_atten[-1]._batch_norm
        norm.weight.set_value(paddle.zeros_like(norm.weight))
        norm.bias.set_value(paddle.full_like(norm.bias, attention_bias))
    net.eval()
    return net


@pytest.mark.parametrize("block", WEIGHING)
@pytest.mark.parametrize(
    ("attention_bias", "share_of_low"),
    [(60.0, 1.0), (-60.0, 0.0), (0.0, 0.5), (float(np.log(3)), 0.75)],
)
def test_fusion_weighs_low_by_a_and_high_by_the_rest(block, attention_bias, share_of_low):
    high = paddle.to_tensor([[[[8.0]], [[2.0]]]])  # of one pixel: upsampled, the same everywhere
    fused = bare(block, attention_bias)(LOW, high)
    expected = share_of_low * LOW.numpy() + (1 - share_of_low) * high.numpy()
    np.testing.assert_allclose(fused.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("block", [UAFM, UAFMMobile])
def test_fusion_without_attention_adds(block):
    fused = bare(block)(LOW, HIGH)
    np.testing.assert_array_equal(fused.numpy(), (LOW + HIGH).numpy())


@pytest.mark.parametrize(
    ("mode", "first_row"), [("bilinear", [0.0, 1.0, 3.0, 4.0]), ("nearest", [0.0, 0.0, 4.0, 4.0])]
)
def test_fusion_upsamples_high_to_low(mode, first_row):
    block = UAFM(1, 1, 1, resize_mode=mode)
    block.conv_x = block.conv_out = nn.Identity()
    high = paddle.to_tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    fused = block(paddle.zeros([1, 1, 4, 4]), high)
    assert fused.numpy()[0, 0, 0].tolist() == first_row


def test_scale_is_a_constant_of_one():
    scale = UAFM_SpAtten(2, 2, 2)._scale
    assert scale.tolist() == [1.0] and scale.stop_gradient
    for block in FUSION_BLOCKS:
        assert ("_scale" in block(4, 4, 4).state_dict()) == (block is UAFM_SpAtten)


# --- context ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bin_sizes", [(1,), (1, 2, 4), [3, 6]])
def test_sppm_adds_resized_levels(randomized, bin_sizes):
    context = randomized(SPPM(6, 4, 5, bin_sizes), seed=1)
    context.eval()
    x = paddle.to_tensor(np.random.default_rng(2).normal(0, 1, (2, 6, 5, 7)).astype("float32"))
    levels = [
        F.interpolate(conv(F.adaptive_avg_pool2d(x, bins)), [5, 7], mode="bilinear").numpy()
        for bins, (_, conv) in zip(bin_sizes, context.stages)
    ]
    expected = context.conv_out(paddle.to_tensor(sum(levels)))
    np.testing.assert_allclose(context(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert expected.shape == [2, 5, 5, 7] and float(expected.abs().max()) > 1e-3


def test_sppm_convolutions_have_a_bias_and_others_none():
    names = set(PPLiteSeg(19, STDC1()).state_dict())
    biases = {name for name in names if name.endswith("_conv.bias")}
    assert biases == {
        *(f"ppseg_head.cm.stages.{level}.1._conv.bias" for level in range(3)),
        "ppseg_head.cm.conv_out._conv.bias",
    }


def test_pointwise_context_takes_the_place_of_sppm():
    context = PointwiseContext(6, 4, 5, [1, 2, 4])
    assert context(paddle.rand([2, 6, 5, 7])).shape == [2, 5, 5, 7]
    assert next(t.shape for t in context.state_dict().values()) == [5, 6, 1, 1]
