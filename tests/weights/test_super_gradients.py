"""PP-LiteSeg of PyTorch: its file is read without PyTorch, and its names become PaddleSeg's."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.models import UAFM_SpAtten
from liteseg_plugin.models.stdc import STDC1_PyTorch
from liteseg_plugin.weights import read_state_dict
from liteseg_plugin.weights.converting import convert, read_torch
from liteseg_plugin.weights.super_gradients import to_paddleseg


def block(name, shape):
    """Return the shapes of a convolution with its batch norm, as super-gradients names them."""
    statistics = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{name}.seq.conv.weight": shape,
        **{f"{name}.seq.bn.{part}": shape[:1] for part in statistics},
        f"{name}.seq.bn.num_batches_tracked": (),
    }


def shapes(widths=(32, 64, 256, 512, 1024), middle=128, classes=19):
    """Return the names and shapes of PP-LiteSeg-T; with other widths, of a small one."""
    found, before = {}, 3
    for number, width in enumerate(widths):
        stage, half = f"encoder.backbone.stages.block_s{2 << number}", width // 2
        if number < 2:
            found |= block(f"{stage}.0", (width, before, 3, 3))
        for place in range(2 if number > 1 else 0):
            name = f"{stage}.{place}.conv_list"
            found |= block(f"{name}.0", (half, width if place else before, 1, 1))
            second = f"{name}.1" if place else f"{name}.1.1"
            if not place:
                found |= block(f"{name}.1.0", (half, 1, 3, 3))
            found |= block(second, (half // 2, half, 3, 3))
            found |= block(f"{name}.2", (half // 4, half // 2, 3, 3))
            found |= block(f"{name}.3", (half // 4, half // 4, 3, 3))
        before = width
    for branch in range(3):
        name = f"encoder.context_module.branches.{branch}.1"
        found |= block(name, (middle, widths[-1], 1, 1))
    found |= block("encoder.context_module.conv_out", (middle, middle, 3, 3))
    outs = (middle, middle // 2, middle // 4)
    for number, (high, out) in enumerate(zip((middle, *outs), outs)):
        found |= block(f"encoder.proj_convs.{2 - number}", (high, widths[4 - number], 3, 3))
        found |= block(f"decoder.up_stages.{number}.conv_atten.0", (2, 4, 3, 3))
        found |= block(f"decoder.up_stages.{number}.conv_atten.1", (1, 2, 3, 3))
        found |= block(f"decoder.up_stages.{number}.conv_out", (out, high, 3, 3))
    found |= block("seg_head.0.seg_head.0", (outs[-1], outs[-1], 3, 3))
    found["seg_head.0.seg_head.2.weight"] = (classes, outs[-1], 1, 1)
    return {**found, "aux_heads.0.0.seg_head.2.weight": (classes, 32, 1, 1)}


def small():
    rng = np.random.default_rng(1)
    made = shapes(widths=(4, 4, 8, 8, 8), middle=8, classes=3)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in made.items()}


def test_names_and_shapes_become_those_of_the_network(build_network):
    given = {f"module.{name}": np.zeros(shape, "float32") for name, shape in shapes().items()}
    converted = {name: list(array.shape) for name, array in to_paddleseg(given).items()}
    wanted = build_network("T").state_dict()
    assert converted == {name: list(tensor.shape) for name, tensor in wanted.items()}


def test_attention_weighs_the_other_feature():
    """In super-gradients: high * a + low * (1 - a), of the statistics of high and then of low."""
    rng = np.random.default_rng(0)
    arrays = to_paddleseg(small())
    name = "ppseg_head.arm_list.0."
    fusion = UAFM_SpAtten(8, 4, 2)
    fusion.set_state_dict(
        {
            key.removeprefix(name): np.abs(value) if key.endswith("_variance") else value
            for key, value in arrays.items()
            if key.startswith(name)
        }
    )
    fusion.eval()
    fusion.conv_x = fusion.conv_out = paddle.nn.Identity()
    low, high = (paddle.to_tensor(rng.normal(size=(1, 4, 6, 6)).astype("float32")) for _ in "ab")
    sums = [f(x, axis=1, keepdim=True) for x in (high, low) for f in (paddle.mean, paddle.max)]
    weight = paddle.concat(sums, axis=1)
    given = small()
    for number in range(2):
        stage = f"decoder.up_stages.2.conv_atten.{number}.seq."
        bn = [given[f"{stage}bn.{part}"] for part in ("running_mean", "running_var")]
        bn += [given[f"{stage}bn.{part}"] for part in ("weight", "bias")]
        bn[1] = np.abs(bn[1])
        weight = F.conv2d(weight, paddle.to_tensor(given[f"{stage}conv.weight"]), padding=1)
        weight = F.batch_norm(weight, *map(paddle.to_tensor, bn))
        weight = F.relu(weight) if number == 0 else F.sigmoid(weight)
    expected = high * weight + low * (1 - weight)
    np.testing.assert_allclose(fusion(low, high).numpy(), expected.numpy(), atol=1e-5)


def test_poolings_of_the_backbone_count_the_padding():
    pools = [x for x in STDC1_PyTorch().sublayers() if isinstance(x, paddle.nn.AvgPool2D)]
    assert len(pools) == 3
    for pool in pools:
        assert pool(paddle.ones([1, 1, 4, 4]))[0, 0, 0, 0].item() == pytest.approx(4 / 9)


# --- the file -------------------------------------------------------------------------------------


class Storage:
    def __init__(self, kind, key, number):
        self.id = ("storage", kind, key, "cpu", number)


class Tensor:
    """A tensor as PyTorch pickles it."""

    def __init__(self, rebuild, *arguments):
        self.reduced = rebuild, arguments

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def torch(monkeypatch):
    """Stand in for PyTorch, as far as pickles name it."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for module, name in (("torch", "FloatStorage"), ("torch._utils", "_rebuild_tensor_v2")):
        made = type(name, (), {"__module__": module})
        setattr(modules[module], name, made)
        monkeypatch.setitem(sys.modules, module, modules[module])
    return types.SimpleNamespace(
        kind=modules["torch"].FloatStorage, rebuild=modules["torch._utils"]._rebuild_tensor_v2
    )


@pytest.fixture
def write(tmp_path, torch):
    """Write arrays as `torch.save` does; `tensor` changes how one is described."""

    def write(arrays, tensor=None, compression=zipfile.ZIP_STORED, extra=None):
        path = tmp_path / "model.pth"
        with zipfile.ZipFile(path, "w", compression) as archive:
            content = {}
            for number, (name, array) in enumerate(arrays.items()):
                strides = [stride // array.itemsize for stride in array.strides]
                described = (0, array.shape, tuple(strides))
                offset, shape, strides = tensor or described
                storage = Storage(torch.kind, str(number), array.size)
                hooks = (False, {})
                content[name] = Tensor(torch.rebuild, storage, offset, shape, strides, *hooks)
                archive.writestr(f"model/data/{number}", array.tobytes())
            pickler = pickle.Pickler(file := io.BytesIO(), protocol=2)
            pickler.persistent_id = lambda value: getattr(value, "id", None)
            pickler.dump({"net": content, "epoch": 3, "names": {0: "road"}, **(extra or {})})
            archive.writestr("model/data.pkl", file.getvalue())
            archive.writestr("model/byteorder", "little")
        return path

    return write


def test_file_of_pytorch_is_converted(write, tmp_path):
    made = convert(str(write(small())), tmp_path / "model.pdparams")
    read, expected = read_state_dict(made.path), to_paddleseg(small())
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        ((0, (1000,), (1,)), r"a tensor \[1000\] in \d+ values"),
        ((5, (2, 2), (1, 10**9)), r"a tensor \[2, 2\] in \d+ values"),
        ((0, (1000, 1000), (0, 0)), r"a tensor \[1000, 1000\] in"),
        ((-1, (1,), (1,)), "unknown shape"),
        ((0, (1,), (1, 1)), "unknown shape"),
        ((0, (1,), (-1,)), "unknown shape"),
        ((0, ("a",), (1,)), "unknown shape"),
    ],
)
def test_tensor_outside_of_its_bytes_is_refused(write, tensor, match):
    with pytest.raises(WeightsError, match=match):
        read_torch(write(small(), tensor))


def test_what_weights_do_not_need_is_refused(write, tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("run",)

    for extra, match in (
        ({"a": Payload()}, "asks for (__builtin__|builtins).print"),
        ({70_000: 1}, "a key of type int"),
        ({"a": Storage("FloatStorage", "0", 1)}, "is not a file of torch.save"),
    ):
        with pytest.raises(WeightsError, match=match):
            read_torch(write(small(), extra=extra))
    with pytest.raises(WeightsError, match="is compressed"):
        read_torch(write(small(), compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="not a PP-LiteSeg of super-gradients"):
        read_torch(write({"weight": np.ones(3, "float32")}))
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(WeightsError, match="not a zip"):
        read_torch(path)
