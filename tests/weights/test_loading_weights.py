from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.weights import (
    PSSL,
    RELEASED,
    load_matching_weights,
    load_weights,
    read_arrays,
    read_state_dict,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "pp_liteseg"


@pytest.fixture
def net(build_network, randomized):
    return randomized(build_network("T"), seed=1)


@pytest.fixture(scope="module")
def other(build_network, randomized):
    """Return a network with other weights; tests must not change it."""
    return randomized(build_network("T"), seed=2)


def values(net):
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def saved(state, folder, name="model.pdparams"):
    path = folder / name
    paddle.save({k: paddle.to_tensor(v) for k, v in state.items()}, str(path))
    return path


def assert_values(net, expected):
    actual = values(net)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


# --- strict loading -----------------------------------------------------------------------------


def test_load_weights_loads_every_array(net, other, tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save(other.state_dict(), str(path))
    load_weights(net, path)
    assert_values(net, values(other))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_read_state_dict_reads_what_paddle_saves(other, tmp_path, protocol):
    path = tmp_path / "model.pdparams"
    paddle.save(other.state_dict(), str(path), protocol=protocol)
    arrays = read_state_dict(path)
    expected = values(other)
    assert arrays.keys() == expected.keys()
    assert all((arrays[name] == value).all() for name, value in expected.items())


def test_load_weights_fills_missing_scale_with_one(net, other, tmp_path):
    state = values(other)
    scales = [name for name in state if name.endswith("._scale")]
    assert len(scales) == 3
    path = saved({k: v for k, v in state.items() if k not in scales}, tmp_path)
    for name in scales:
        net.state_dict()[name].set_value(paddle.to_tensor([5.0]))
    load_weights(net, path)
    assert_values(net, {**state, **{name: np.ones(1, "float32") for name in scales}})


def test_load_weights_keeps_scale_of_the_file(net, other, tmp_path):
    state = values(other)
    name = "ppseg_head.arm_list.1._scale"
    load_weights(net, saved({**state, name: np.float32([0.5])}, tmp_path))
    assert net.state_dict()[name].tolist() == [0.5]


def test_load_weights_names_missing_unexpected_and_reshaped(net, other, tmp_path):
    state = values(other)
    del state["seg_heads.0.conv_out.weight"], state["seg_heads.1.conv_out.weight"]
    state["auxiliary.weight"] = np.ones(3, "float32")
    state["seg_heads.2.conv_out.weight"] = np.ones((11, 64, 1, 1), "float32")
    before = values(net)
    with pytest.raises(WeightsError) as caught:
        load_weights(net, saved(state, tmp_path))
    message = str(caught.value)
    assert "do not fit PPLiteSeg (250 arrays)" in message
    assert "2 missing: seg_heads.0.conv_out.weight, seg_heads.1.conv_out.weight" in message
    assert "1 not of this network: auxiliary.weight" in message
    assert (
        "1 of another shape: seg_heads.2.conv_out.weight [11, 64, 1, 1] instead of [19, 64, 1, 1]"
        in message
    )
    assert_values(net, before)


def test_load_weights_counts_what_it_does_not_list(net, tmp_path):
    path = saved({"backbone.features.0.bn.bias": np.zeros(32, "float32")}, tmp_path)
    with pytest.raises(WeightsError, match=r"246 missing: (\S+, ){4}and 242 more"):
        load_weights(net, path)  # 250, but for this one and three `_scale`


# --- files that are none ------------------------------------------------------------------------


class Payload:
    """Unpickled by `pickle.load`, this makes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("load", [load_weights, load_matching_weights])
def test_loading_runs_no_code_of_a_file(net, tmp_path, load):
    made, path = tmp_path / "made-by-payload", tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"seg_heads.0.conv_out.weight": Payload(made)}))
    with pytest.raises(WeightsError, match=rf"refused to load .*{os.mkdir.__module__}\.mkdir"):
        load(net, path)
    assert not made.exists()
    pickle.loads(path.read_bytes())  # it would have
    assert made.exists()


@pytest.mark.parametrize(
    "global_name", ["builtins.eval", "os.system", "numpy.load", "paddle.load", "numpy.core.exec"]
)
def test_read_state_dict_names_refused_global(tmp_path, global_name):
    module, name = global_name.rsplit(".", 1)
    path = tmp_path / "model.pdparams"
    path.write_bytes(f"c{module}\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(WeightsError, match=f"it asks for {global_name}, which is not an array"):
        read_state_dict(path)


def test_read_state_dict_of_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"is a folder; give the model\.pdparams in it"):
        read_state_dict(tmp_path)


def test_read_state_dict_of_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"weights not found: .*absent\.pdparams"):
        read_state_dict(tmp_path / "absent.pdparams")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_read_state_dict_of_truncated_file(other, tmp_path, share):
    path = saved(values(other), tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        WeightsError, match=r"model\.pdparams is not a \.pdparams file, or is truncated"
    ):
        read_state_dict(path)


@pytest.mark.parametrize("text", ["<html>404 Not Found</html>", "version https://git-lfs\n", "N."])
def test_read_state_dict_of_text_file(tmp_path, text):
    path = tmp_path / "model.pdparams"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"model\.pdparams (is not|has no)"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"LR_Scheduler": {"last": 1}}])
def test_read_state_dict_of_file_without_arrays(tmp_path, content):
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match="has no named arrays"):
        read_state_dict(path)


# --- loading what fits --------------------------------------------------------------------------


def test_load_matching_weights_counts_all(net, other, tmp_path):
    assert load_matching_weights(net, saved(values(other), tmp_path)) == 250
    assert_values(net, values(other))


def test_load_matching_weights_of_other_classes_keeps_heads(
    build_network, randomized, other, tmp_path
):
    net = randomized(build_network("T", num_classes=11), seed=3)
    heads = {f"seg_heads.{level}.conv_out.weight" for level in range(3)}
    before = values(net)
    assert load_matching_weights(net, saved(values(other), tmp_path)) == 250 - len(heads)
    assert_values(net, {k: before[k] if k in heads else v for k, v in values(other).items()})


def test_load_matching_weights_of_backbone(net, other, tmp_path):
    prefix = "backbone."
    backbone = {k: v for k, v in values(other).items() if k.startswith(prefix)}
    state = {name[len(prefix) :]: value for name, value in backbone.items()}
    before = values(net)
    assert load_matching_weights(net.backbone, saved(state, tmp_path)) == len(backbone)
    assert_values(net, {**before, **backbone})


def test_load_matching_weights_of_another_network(net, tmp_path):
    state = {f"layer{i}.weight": np.ones(3, "float32") for i in range(5)}
    before = values(net)
    with pytest.raises(WeightsError, match=r"none of the 250 .* layer1\.weight, layer2\.weight, "):
        load_matching_weights(net, saved(state, tmp_path))
    assert_values(net, before)


# --- records ------------------------------------------------------------------------------------


def test_released_are_eight_of_their_own():
    assert len(RELEASED) == 8
    assert len({record.url for record in RELEASED}) == 8
    assert len({record.name for record in RELEASED}) == 8


@pytest.mark.parametrize("record", RELEASED, ids=lambda record: record.name)
def test_released_record_has_its_config(record):
    assert (CONFIGS / f"{record.name}.yml").is_file()
    assert record.url == (
        f"https://paddleseg.bj.bcebos.com/dygraph/{record.dataset.lower()}/{record.name}"
        "/model.pdparams"
    )
    assert {"PP-LiteSeg-T": "STDC1", "PP-LiteSeg-B": "STDC2"}[record.model] == record.backbone
    assert record.backbone.lower() in record.name
    assert 70 < record.miou < record.miou_flip < 80


def test_models_of_pssl_have_records():
    """As PaddleSeg's configs/pssl/README.md says."""
    model, start = PSSL
    assert (model.miou, model.miou_flip, model.miou_ms_flip) == (79.06, 79.61, 79.97)
    assert (CONFIGS / f"{model.config}.yml").is_file()
    assert start.miou is None and start.classes == 1001
    assert all(record.url.endswith("/model.pdparams") and record.licence for record in PSSL)
    page = (CONFIGS.parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
    for record in PSSL:
        assert f"| `{record.name}` | {record.dataset} | {record.miou or '-'} |" in page


def test_released_b_at_1536x768_has_the_figure_of_the_weights():
    (record,) = (r for r in RELEASED if r.backbone == "STDC2" and r.test_wh == (1536, 768))
    assert record.miou == 78.75


def _python_object_array(payload):
    """Pickles that make NumPy read bytes of the file as addresses of Python objects."""
    code = {
        "object buffer": (np.ndarray, ((1,), np.dtype("O"), b"AAAAAAAA")),
        "record with an object": (np.ndarray, ((1,), np.dtype([("x", "O")]), b"AAAAAAAA")),
        "array of objects": (np.array, ([None],)),
    }[payload]

    class Payload:
        def __reduce__(self):
            return code

    return Payload()


@pytest.mark.parametrize("payload", ["object buffer", "record with an object", "array of objects"])
def test_read_state_dict_refuses_arrays_of_objects(tmp_path, payload):
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"weight": _python_object_array(payload)}, protocol=4))
    with pytest.raises(WeightsError, match=r"refused to load|is not a \.pdparams file"):
        read_state_dict(path)


def test_read_state_dict_refuses_an_object_array_as_numpy_writes_it(tmp_path):
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"weight": np.array([None, 1])}, protocol=4))
    with pytest.raises(WeightsError, match="not of numbers"):
        read_state_dict(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "|b1"])
def test_read_arrays_gives_what_was_written(tmp_path, protocol, dtype):
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))
    content = {"w": array, "state": {"last_epoch": 3, "rates": [0.1, (array[0],)]}}
    path = tmp_path / "model.pdopt"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_arrays(path)
    np.testing.assert_array_equal(read["w"], array)
    np.testing.assert_array_equal(read["state"]["rates"][1][0], array[0])
    assert read["state"]["last_epoch"] == 3
    read["w"][0, 0] = 5  # and it can be written


def test_load_weights_takes_halves_and_refuses_integers(tmp_path):
    net = paddle.nn.Linear(2, 1)
    path = tmp_path / "model.pdparams"
    half = {"weight": np.full((2, 1), 0.5, "float16"), "bias": np.zeros(1, "float64")}
    path.write_bytes(pickle.dumps(half))
    load_weights(net, path)
    assert net.weight.numpy().tolist() == [[0.5], [0.5]]
    path.write_bytes(pickle.dumps({**half, "bias": np.zeros(1, "int64")}))
    with pytest.raises(WeightsError, match="1 of another type: bias int64"):
        load_weights(net, path)


@pytest.mark.parametrize("load", [load_weights, load_matching_weights])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])  # the last overflows in float32
def test_weights_that_are_not_finite_are_named(pointwise, tmp_path, load, value):
    net = pointwise()
    before = values(net)
    state = {name: array.astype("float64") for name, array in before.items()}
    state["conv.bias"][2] = value
    path = saved(state, tmp_path)
    with pytest.raises(WeightsError, match=r"hold NaN or infinity:\n  1 not finite: conv\.bias"):
        load(net, path)
    assert_values(net, before)


@pytest.mark.parametrize("load", [load_weights, load_matching_weights])
def test_git_lfs_pointer_is_named_as_what_it_is(net, tmp_path, load):
    path = tmp_path / "model.pdparams"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 32000000\n")
    with pytest.raises(WeightsError, match="Git LFS pointer, not the weights; run `git lfs pull`"):
        load(net, path)
