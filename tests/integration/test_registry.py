from __future__ import annotations

import warnings

import pytest

import liteseg_plugin
from liteseg_plugin.integration.registry import _gives_full_weights, owners, register


def test_register_is_idempotent_and_silent():
    from paddleseg.cvlibs import manager

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
        before = dict(manager.MODELS.components_dict), dict(manager.LOSSES.components_dict)
        register()
    assert (manager.MODELS.components_dict, manager.LOSSES.components_dict) == before


def test_owners_tell_whose_class_is_registered():
    from paddleseg.cvlibs import manager
    from paddleseg.models.pp_liteseg import PPLiteSeg as PaddleSegPPLiteSeg

    register()
    assert owners()["PPLiteSeg"] == "liteseg_plugin.models.pp_liteseg.PPLiteSeg"
    assert set(owners()) >= {"SPPM", "UAFM", "UAFM_SpAtten", "OhemCrossEntropyLoss"}
    manager.MODELS.components_dict["PPLiteSeg"] = PaddleSegPPLiteSeg
    assert owners()["PPLiteSeg"] == "paddleseg.models.pp_liteseg.PPLiteSeg"
    register()
    assert owners()["PPLiteSeg"].startswith("liteseg_plugin.")


def test_package_offers_what_it_lists():
    for name in liteseg_plugin.__all__:
        assert getattr(liteseg_plugin, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'PPLiteSegg'"):
        liteseg_plugin.PPLiteSegg  # noqa: B018


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("tools/val.py --config a.yml --model_path w.pdparams", True),
        ("tools/export.py --model_path=w.pdparams", True),
        ("tools/predict.py --model w.pdparams", True),
        ("tools/train.py --resume_model output/iter_5", True),
        ("tools/train.py --config a.yml", False),
        ("tools/val.py --config a.yml", False),
        ("my_training.py --model_path where_to_write", False),
        ("", False),
    ],
)
def test_full_weights_are_seen_in_the_command_line_of_paddlesegs_scripts(command, given):
    assert _gives_full_weights(command.split()) is given
