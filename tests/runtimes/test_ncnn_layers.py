"""Graphs and weights of ncnn that are not what they say."""

from __future__ import annotations

import struct

import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.runtimes.ncnn_layers import read_layers

GRAPH = """7767517
3 3
Input in 0 1 in0
ConvolutionDepthWise deep 1 1 in0 1 0=4 1=3 11=5 3=2 5=1 6=60 7=4
InnerProduct product 1 1 1 out0 0=2 1=0 2=8 8=1
"""
FLOATS = struct.pack("<I60f4f", 0, *range(60), *range(4))
INTS = struct.pack("<I8b3f", 0x000D4B38, *range(8), 1, 2, 3)


@pytest.fixture
def read(tmp_path):
    """Return a function that reads two files of these contents."""

    def read(graph=GRAPH, weights=FLOATS + INTS):
        (tmp_path / "a.param").write_text(graph)
        (tmp_path / "a.bin").write_bytes(weights)
        return read_layers(tmp_path / "a.param", tmp_path / "a.bin")

    return read


def test_layers_are_those_of_the_files(read):
    lines, layers = read()
    assert lines == GRAPH.splitlines()
    assert [(x.line, x.name, x.input) for x in layers] == [(3, "deep", "in0"), (4, "product", "1")]
    assert [x.weight_shape for x in layers] == [(4, 1, 5, 3), (2, 4, 1, 1)]
    assert [(x.scales, x.winograd) for x in layers] == [(4, False), (2, False)]
    assert [x.content for x in layers] == [FLOATS, INTS]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"weights": b""}, "the weights end in deep"),
        ({"weights": (FLOATS + INTS)[:-1]}, "the weights end in product"),
        ({"weights": FLOATS + INTS + bytes(4)}, "4 bytes of weights are of other layers"),
        ({"weights": FLOATS + bytes(4) + INTS[4:]}, "product has weights in another format"),
        ({"graph": ""}, "the graph has another number of lines than it says"),
        ({"graph": GRAPH[:90]}, "the graph has another number of lines than it says"),
        ({"graph": GRAPH.replace(" 8=1", "")}, "the weights end in product"),
        ({"graph": GRAPH.replace("6=60", "6=-60")}, "deep has -60 weights for 4 channels of 5x3"),
        ({"graph": GRAPH.replace("6=60", "6=61")}, "deep has 61 weights for 4 channels of 5x3"),
        ({"graph": GRAPH.replace("6=60", f"6=6{'0' * 30}")}, "the weights end in deep"),
        ({"graph": GRAPH.replace("7=4", "7=3")}, "deep has 4 channels in 3 groups"),
        ({"graph": GRAPH.replace("0=4", "0=many")}, "many"),
        ({"graph": GRAPH.replace(" deep", "")}, "a complete graph"),
        ({"graph": "7767517\n1 1\nConvolution\n"}, "a complete graph"),
    ],
)
def test_damaged_files_are_one_error(read, wrong, reason):
    with pytest.raises(ExportError, match=rf"a\.param and a\.bin are not .*{reason}"):
        read(**wrong)
