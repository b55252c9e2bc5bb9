"""Hostile pickles are refused at once; those of `paddle.save` are read as `paddle.load` does."""

from __future__ import annotations

import io
import pickle
import random
import tracemalloc

import numpy as np
import paddle
import pytest

from liteseg_plugin.errors import WeightsError
from liteseg_plugin.system.array_pickle import load_arrays
from liteseg_plugin.weights import load_weights, read_arrays, read_state_dict

ARRAY = np.arange(6, dtype="float32").reshape(2, 3)
_NEW_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
_FLOAT = b"cnumpy\ndtype\n(\x8c\x02f4tR(K\x03\x8c\x01<NNtb"


def refused(content, match):
    """Check that a pickle is refused, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=match):
            load_arrays(io.BytesIO(content))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6


def array(shape=b"K\x02K\x03t", content=b"C\x18" + bytes(24), dtype=_FLOAT):
    """Return the instructions of an array."""
    return _NEW_ARRAY + b"(K\x01(" + shape + dtype + b"\x89" + content + b"tb"


def test_hand_made_array_is_read():
    read = load_arrays(io.BytesIO(array() + b"."))
    assert read.dtype == np.float32
    assert read.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_shared_lists_are_not_expanded():
    """One thousand bytes, ten wide and forty deep, which expand to 10^40 values."""
    content = b"\x80\x02]q\x00" + b"".join(
        b"](" + (b"h" + bytes([level])) * 10 + b"eq" + bytes([level + 1]) for level in range(40)
    )
    refused(content + b".", "more than 1000000 values, those in several places counted in each")


def test_shared_array_is_counted_in_each_place():
    one = array(b"M\x00\x10t", b"B\x00\x40\x00\x00" + bytes(16384))
    several = b"](" + one + b"q\x05" + b"h\x05" * 3 + b"e."
    assert len(load_arrays(io.BytesIO(several))) == 4
    refused(
        b"](" + one + b"q\x05" + b"h\x05" * 99 + b"e.", "more than 4 times the size of the file"
    )


def test_content_in_two_arrays_is_not_shared_memory():
    content = b"C\x18" + bytes(24) + b"q\x07"
    one, other = load_arrays(
        io.BytesIO(array(content=content) + array(content=b"h\x07") + b"\x86.")
    )
    one[:] = 1
    assert not other.any()


def test_content_copied_over_and_over_is_refused():
    first = array(b"M\x00\x10t", b"B\x00\x40\x00\x00" + bytes(16384) + b"q\x07")
    again = array(b"M\x00\x10t", b"h\x07")
    refused(
        b"](" + first + again * 99 + b"e.", "its arrays take more than the .* bytes of the file"
    )
    text = b"X\x00\x40\x00\x00" + b"a" * 16384 + b"q\x07\x8c\x06latin1q\x08"
    encode = b"c_codecs\nencode\nh\x07h\x08\x86R"
    refused(
        b"](" + text + encode * 99 + b"e.", "its arrays take more than the .* bytes of the file"
    )


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        (b"J\xff\xff\xff\xffJ\xfa\xff\xff\xfft", "shape -1, -6"),
        (b"J\xff\xff\xff\xffK\x03t", "shape -1, 3"),
        (b"\x88K\x06t", "shape a bool, 6"),
        (b"K\x02K\x04t", r"\[2, 4\] of float32 in 24 bytes"),
        (b"K\x02t", r"\[2\] of float32 in 24 bytes"),
        (b"K\x01" * 33 + b"K\x06t", "shape 1, 1"),
        (b"\x8a\xff" + b"\x7f" * 255 + b"t", r"\[\d+\] of float32 in 24 bytes"),
    ],
)
def test_shape_that_is_not_of_the_content_is_refused(shape, shown):
    refused(array(shape) + b".", shown)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"]q\x00h\x00a.", "inside itself"),
        (b"}q\x00\x8c\x01ah\x00s.", "inside itself"),
        (b"K\x01" + b"\x85" * 101 + b".", "more than 100 levels"),
        (b"](" + b"N" * 1_000_001 + b"e.", "more than 1000000 values"),
        (b"}K\x01K\x02s.", "a key of type int"),
        (_NEW_ARRAY + b".", "a value of type _Unfinished"),
        (b"]" + _NEW_ARRAY + b"q\x00ah\x00(K\x01(K\x00t" + _FLOAT + b"\x89C\x00tb0.", "POP"),
        (b"cnumpy\nndarray\n.", "a value of type _Global"),
        (b"C\x01a.", "a value of type bytes"),
        (b"B\x01\x00\x00\x00a.", "a value of type _Content"),
        (b"c_codecs\nencode\n}\x8c\x01aK\x01sb.", "changes the state of a value of type _Global"),
        (b"]}b.", "changes the state of a value of type list"),
        (b"])R.", "calls a value of type list"),
        (b"ccollections\nOrderedDict\n]R.", "calls a value"),
        (b"cbuiltins\ntuple\n]\x85R.", "makes a tuple of a list"),
        (b"c_codecs\nencode\n\x8c\x01a\x8c\x05utf-7\x86R.", "encodes text as 'utf-7'"),
        (b"cnumpy\ndtype\n\x8c\x02O8\x85R.", "of type 'O8', not of numbers"),
        (b"cnumpy\ndtype\n]\x85R.", "of type a list, not of numbers"),
        (b"c" + b"a" * 99 + b"\x1b[2J\nb\n.", r"asks for a+\\x1b\[2J.b"),
        (b"Pname\n.", "PERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x82\x01.", "EXT1"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x8f.", "EMPTY_SET"),
    ],
)
def test_what_weights_do_not_need_is_refused(content, match):
    if b"N" * 1000 in content:  # long by itself
        with pytest.raises(WeightsError, match=match):
            load_arrays(io.BytesIO(content))
    else:
        refused(content, match)


@pytest.mark.parametrize(
    "content",
    [
        b"B\xff\xff\xff\xffab.",
        b"\x8e" + b"\xff" * 7 + b"\x7fab.",
        b"X\xff\xff\xff\xffab.",
        b"\x8d" + b"\xff" * 7 + b"\x7fab.",
        b"r\xff\xff\xff\x7f.",  # a place in the memo, with nothing to put there
        b"j\xff\xff\xff\x7f.",
        b"c" + b"a" * 999,
        b"K",
        b"",
        b")",
        b"e.",
        b"(.",
        b"\x8c\x02\xff\xfe.",
    ],
)
def test_pickle_that_ends_early_takes_no_memory(content, tmp_path):
    path = tmp_path / "model.pdparams"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=r"is not a \.pdparams file, or is truncated"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_far_place_in_the_memo_takes_no_memory():
    tracemalloc.start()
    assert load_arrays(io.BytesIO(b"K\x07r\xff\xff\xff\xff.")) == 7
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


# --- what paddle.save writes -----------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_nested_state_with_tensors_is_read(tmp_path, protocol):
    """Optimisers have tensors in dictionaries, which are written with their names."""
    path = tmp_path / "model.pdopt"
    weight = paddle.to_tensor(ARRAY, "float32")
    schedule = {"last_epoch": 3, "last_lr": 0.1, "steps": [-7, 70_000, 2**40]}
    state = {"master_weights": {"conv": weight}, "LR_Scheduler": schedule}
    paddle.save(state, str(path), protocol=protocol)
    read = read_arrays(path)
    name, array = read["master_weights"]["conv"]
    assert name == weight.name
    np.testing.assert_array_equal(array, ARRAY)
    assert read["LR_Scheduler"] == schedule


def test_arrays_that_were_cut_are_joined(tmp_path):
    """As protocols 2 and 3 write those of 1 GiB."""
    path = tmp_path / "model.pdparams"
    cut = {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}}
    flat = ARRAY.reshape(-1)
    content = {"w@@.0": flat[:4], "w@@.1": flat[4:], "UnpackBigParamInfor@@": cut}
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert paddle.load(str(path))["w"].tolist() == ARRAY.tolist()
    read = read_state_dict(path)
    assert [*read] == ["w"]
    np.testing.assert_array_equal(read["w"], ARRAY)
    del content["w@@.1"]
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match=r"is not a \.pdparams file"):
        read_arrays(path)


def test_bfloat16_is_loaded_exactly(tmp_path):
    path, net = tmp_path / "model.pdparams", paddle.nn.Linear(3, 2)
    state = {k: v.astype("bfloat16") for k, v in net.state_dict().items()}
    paddle.save(state, str(path))
    load_weights(net, path)
    for name, tensor in net.state_dict().items():
        assert tensor.dtype == paddle.float32
        assert tensor.tolist() == state[name].astype("float32").tolist()


def test_mutated_pickles_raise_only_what_is_expected(tmp_path):
    """Flipped, inserted and removed bytes, of a file with all that is written."""
    rng = random.Random(1)
    path = tmp_path / "model.pdopt"
    state = {"m": {"conv": paddle.ones([2, 3])}, "s": {"a": [1, 0.5, None, True, (1, 2, 3, 4)]}}
    originals = []
    for protocol in (2, 4):
        paddle.save(state, str(path), protocol=protocol)
        originals.append(path.read_bytes())
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        content = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        path.write_bytes(content)
        try:
            read_arrays(path)
        except WeightsError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert outcomes[False] > 100
    assert outcomes[True] > 10  # those with other numbers: only a checksum tells
