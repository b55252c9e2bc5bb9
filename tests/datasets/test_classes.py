from __future__ import annotations

import numpy as np
import pytest
from paddleseg.utils.visualize import get_color_map_list

from liteseg_plugin.datasets import camvid, cityscapes
from liteseg_plugin.datasets.classes import describe_classes


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
