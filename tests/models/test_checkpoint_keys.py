"""The contract with released checkpoints: every key and shape, read off paddleseg 2.8.0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONTRACT = json.loads(
    (Path(__file__).parents[1] / "data" / "checkpoint_keys.json").read_text(encoding="utf-8")
)
FUSION_PREFIX = "ppseg_head.arm_list.0."


def shapes(net):
    return {name: list(tensor.shape) for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(("variant", "entries"), [("T", 250), ("B", 370)])
def test_pp_liteseg_keys_are_the_released_ones(build_network, variant, entries):
    expected = CONTRACT[f"pp_liteseg_{variant.lower()}"]
    assert len(expected) == entries
    assert shapes(build_network(variant)) == expected


@pytest.mark.parametrize("arm_type", sorted(CONTRACT["fusion_block_keys"]))
def test_other_keys_of_b_do_not_depend_on_the_fusion_block(build_network, arm_type):
    def others(shapes):
        return {k: v for k, v in shapes.items() if not k.startswith("ppseg_head.arm_list.")}

    assert others(shapes(build_network("B", arm_type=arm_type))) == others(CONTRACT["pp_liteseg_b"])


@pytest.mark.parametrize("arm_type", sorted(CONTRACT["fusion_block_keys"]))
def test_fusion_block_keys_are_the_released_ones(build_network, arm_type):
    net = shapes(build_network("T", arm_type=arm_type))
    fusion = {name: shape for name, shape in net.items() if name.startswith(FUSION_PREFIX)}
    assert fusion == CONTRACT["fusion_block_keys"][arm_type]
    others = {name for name in net if not name.startswith("ppseg_head.arm_list.")}
    assert others == {
        name for name in CONTRACT["pp_liteseg_t"] if not name.startswith("ppseg_head.arm_list.")
    }


def test_contract_covers_every_fusion_block():
    assert len(CONTRACT["fusion_block_keys"]) == 7


@pytest.mark.parametrize(
    ("variant", "trainable", "listed"),
    [("T", 8_141_600, 8_153_205), ("B", 12_366_464, 12_384_469)],
)
def test_pp_liteseg_parameter_counts(build_network, variant, trainable, listed):
    parameters = dict(build_network(variant).named_parameters())
    assert sum(p.size for p in parameters.values() if not p.stop_gradient) == trainable
    # Paddle lists batch-norm statistics as parameters; the three `_scale` make up the rest.
    assert sum(p.size for p in parameters.values()) == listed
    constant = {name for name, p in parameters.items() if p.stop_gradient}
    assert {name.rsplit(".", 1)[1] for name in constant} == {"_mean", "_variance", "_scale"}
    assert sum(name.endswith("_scale") for name in constant) == 3
