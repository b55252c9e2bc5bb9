from __future__ import annotations

import numpy as np
import pytest
from paddleseg.utils.visualize import get_color_map_list

from liteseg_plugin.datasets import camvid, cityscapes
from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.datasets.classes import describe_classes, recolored
from liteseg_plugin.errors import ConfigError


def test_describe_classes_by_number_or_name(tmp_path):
    numbered = describe_classes({"dataset_root": str(tmp_path)}, 3)
    assert [c.name for c in numbered] == ["0", "1", "2"]
    (tmp_path / "labels.txt").write_text("sky\nroad\ncar\n", encoding="utf-8")
    named = describe_classes({"dataset_root": str(tmp_path)}, 3)
    assert [c.name for c in named] == ["sky", "road", "car"]
    assert [c.color_rgb for c in named] == [c.color_rgb for c in numbered]
    assert len({c.color_rgb for c in named}) == 3
    with pytest.warns(UserWarning, match="names 3 classes, not 4"):
        of_others = describe_classes({"dataset_root": str(tmp_path)}, 4)
    assert [c.name for c in of_others] == ["0", "1", "2", "3"]


def test_numbered_classes_have_paddlesegs_colours(tmp_path):
    classes = describe_classes({"dataset_root": str(tmp_path), "ignore_index": 0}, 256)
    expected = np.reshape(get_color_map_list(256), (-1, 3)).tolist()
    assert [list(c.color_rgb) for c in classes] == expected


@pytest.mark.parametrize(("ignore_index", "most"), [(255, 255), (0, 256)])
def test_more_classes_than_label_maps_hold_are_refused(tmp_path, ignore_index, most):
    data_set = {"dataset_root": str(tmp_path), "ignore_index": ignore_index}
    assert len(describe_classes(data_set, most)) == most
    with pytest.raises(ConfigError, match=rf"num_classes {most + 1}: .* up to {most} classes"):
        describe_classes(data_set, most + 1)


def test_names_that_are_not_utf8_are_located(tmp_path):
    (tmp_path / "labels.txt").write_bytes("road\nStraßenbahn\n".encode("cp1252"))
    with pytest.raises(
        ConfigError, match=r"labels\.txt is not UTF-8: byte 0xdf at line 2, column 5; save as UTF"
    ):
        describe_classes({"dataset_root": str(tmp_path)}, 2)


def test_names_may_follow_a_byte_order_mark(tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufeffroad\nsky\n".encode())
    classes = describe_classes({"dataset_root": str(tmp_path)}, 2)
    assert [c.name for c in classes] == ["road", "sky"]


def test_camvid_and_cityscapes_have_their_own_colours(tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(camvid.CLASS_NAMES), encoding="utf-8")
    street = describe_classes({"dataset_root": str(tmp_path)}, 11)
    assert street[3] == ClassInfo("road", (128, 64, 128))
    town = describe_classes({"dataset_root": str(tmp_path), "type": "Cityscapes"}, 19)
    assert [c.name for c in town] == list(cityscapes.CLASS_NAMES)
    assert town[0] == ClassInfo("road", (128, 64, 128))
    assert town[18] == ClassInfo("bicycle", (119, 11, 32))


def test_first_classes_take_other_colours():
    classes = [ClassInfo(name, (0, 0, 0)) for name in "ab"]
    assert recolored(classes, []) == classes
    changed = recolored(classes, [1, 2, 3])
    assert changed == [ClassInfo("a", (1, 2, 3)), ClassInfo("b", (0, 0, 0))]


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 256], [0, 0, 0] * 3])
def test_colours_that_are_none(values):
    with pytest.raises(ConfigError, match="give red, green and blue, 0 to 255, for up to 2"):
        recolored([ClassInfo(name, (0, 0, 0)) for name in "ab"], values)
