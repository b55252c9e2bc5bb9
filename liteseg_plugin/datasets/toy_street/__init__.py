"""Toy Street: a procedural street-scene data set with CamVid's 11 classes and layout.

It needs no download, so the quick start and the tests can train, evaluate and show something
within minutes. A scene is a small 3-D world in metres seen through a pinhole camera. Every shape
is painted far to near into the image and the label by one call, so the two cannot disagree.
"""

from liteseg_plugin.datasets.toy_street.data_set import FORMAT_VERSION, RECORD_NAME, generate
from liteseg_plugin.datasets.toy_street.scene import MIN_SIDE, render_scene

__all__ = ["FORMAT_VERSION", "MIN_SIDE", "RECORD_NAME", "generate", "render_scene"]
