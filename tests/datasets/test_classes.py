from __future__ import annotations

import numpy as np
import pytest
from paddleseg.utils.visualize import get_color_map_list

from liteseg_plugin.datasets import camvid, cityscapes
from liteseg_plugin.datasets.classes import describe_classes, recolored
from liteseg_plugin.errors import ConfigError


def test_describe_classes_by_number_or_name(tmp_path):
    numbered = describe_classes({"dataset_root": str(tmp_path)}, 3)
    assert [c["name"] for c in numbered] == ["0", "1", "2"]
    (tmp_path / "labels.txt").write_text("sky\nroad\ncar\n", encoding="utf-8")
    named = describe_classes({"dataset_root": str(tmp_path)}, 3)
    assert [c["name"] for c in named] == ["sky", "road", "car"]
    assert [c["color"] for c in named] == [c["color"] for c in numbered]
    assert len({tuple(c["color"]) for c in named}) == 3
    with pytest.warns(UserWarning, match="names 3 classes, not 4"):
        of_others = describe_classes({"dataset_root": str(tmp_path)}, 4)
    assert [c["name"] for c in of_others] == ["0", "1", "2", "3"]


def test_numbered_classes_have_paddlesegs_colours(tmp_path):
    classes = describe_classes({"dataset_root": str(tmp_path)}, 256)
    expected = np.reshape(get_color_map_list(256), (-1, 3)).tolist()
    assert [c["color"] for c in classes] == expected


def test_camvid_and_cityscapes_have_their_own_colours(tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(camvid.CLASS_NAMES), encoding="utf-8")
    street = describe_classes({"dataset_root": str(tmp_path)}, 11)
    assert street[3] == {"name": "road", "color": [128, 64, 128]}
    town = describe_classes({"dataset_root": str(tmp_path), "type": "Cityscapes"}, 19)
    assert [c["name"] for c in town] == list(cityscapes.CLASS_NAMES)
    assert town[0] == {"name": "road", "color": [128, 64, 128]}
    assert town[18] == {"name": "bicycle", "color": [119, 11, 32]}


def test_first_classes_take_other_colours():
    classes = [{"name": name, "color": [0, 0, 0]} for name in "ab"]
    assert recolored(classes, []) == classes
    changed = recolored(classes, [1, 2, 3])
    assert changed == [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [0, 0, 0]}]


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 256], [0, 0, 0] * 3])
def test_colours_that_are_none(values):
    with pytest.raises(ConfigError, match="give red, green and blue, 0 to 255, for up to 2"):
        recolored([{"name": name, "color": [0, 0, 0]} for name in "ab"], values)
