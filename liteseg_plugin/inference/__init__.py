"""Segmenting images and videos with an exported model."""

import paddleseg  # noqa: F401 - first: its import registers the data sets, through the hook
