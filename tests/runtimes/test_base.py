from __future__ import annotations

from pathlib import Path

import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.exported import ModelFiles
from liteseg_plugin.runtimes.base import SessionCache, onnx_file
from liteseg_plugin.runtimes.catalog import create


def test_session_used_longest_ago_makes_room_before_the_next_is_prepared():
    events = []
    cache = SessionCache(2, lambda session: events.append(f"close {session}"))

    def get(width):
        def create():
            events.append(f"create {width}")
            return width

        return cache.get((1, 3, 8, width), create)

    assert [get(width) for width in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert events == ["create 1", "create 2", "close 2", "create 3", "close 3", "create 2"]


def test_all_sessions_are_let_go_though_one_raises():
    closed = []

    def close(session):
        closed.append(session)
        if session == "b":
            raise RuntimeError("CUDA is gone")

    cache = SessionCache(3, close)
    for number, name in enumerate("abc"):
        cache.get((number,), lambda name=name: name)
    cache.clear()
    assert sorted(closed) == ["a", "b", "c"]
    cache.clear()
    assert len(closed) == 3


def test_paddle_says_that_it_does_not_read_onnx():
    path = Path("model.onnx")
    with pytest.raises(ExportError, match=r"does not read ONNX files \(model\.onnx\): use another"):
        create("paddle", ModelFiles(path, onnx=path), "cpu", 1)


@pytest.mark.parametrize("place", ["initializer", "attribute", None])
def test_onnx_file_whose_weights_are_elsewhere_is_refused(tmp_path, place):
    """Engines would read any file beside it, and older ones any file at all."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.TensorProto(name="location", dims=[2], data_type=onnx.TensorProto.FLOAT)
    if place is None:
        weights.float_data.extend([1, 2])
    else:
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../secret.bin")
    node = onnx.helper.make_node("Add", ["x", "location"], ["y"])
    constant = onnx.helper.make_node("Constant", [], ["location"], value=weights)
    is_attribute = place == "attribute"
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [constant, node] if is_attribute else [node],
        *("graph", ends[:1], ends[1:]),
        initializer=[] if is_attribute else [weights],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    if place is None:
        assert onnx_file(ModelFiles(path, onnx=path), "fp32") == path
    else:
        with pytest.raises(ExportError, match=r"model\.onnx keeps weights in other files"):
            create("onnxruntime", ModelFiles(path, onnx=path), "cpu", 1)


def test_onnx_file_that_is_none_is_left_to_the_engine(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"no model"):
        path.write_bytes(content)
        assert onnx_file(ModelFiles(path, onnx=path), "fp32") == path
