"""The lines of a config that depend on the channels and values of the images."""

from __future__ import annotations

from liteseg_plugin.datasets.check.report import CheckReport


def dataset_keys(report: CheckReport) -> str:
    """Return the keys of a data set."""
    images, lines = report.image_format, ""
    if not images.is_rgb:
        lines += f"  img_channels: {images.channels}\n"
    if images.max_value != 255:
        lines += f"  max_value: {images.max_value}  # of 16-bit values: what counts as white\n"
    if images.channels > 3:
        shown = ", ".join(map(str, images.shown_bands))
        lines += f"  shown_bands: [{shown}]  # red, green and blue of overlays\n"
    return lines


def padding(report: CheckReport) -> str:
    """Return the padding of crops: with the mean, where 127.5 may be far from the values."""
    images, channels = report.image_format, report.channels
    if images.takes_pictures:
        return ""
    mean = 255 * sum(channel.mean for channel in channels) / len(channels)
    return f"      im_padding_value: {mean:.1f}  # the mean of all channels, of 0 to 255\n"


def distortion(report: CheckReport, *, weights: bool) -> str:
    """Return the random changes of colours.

    Args:
        report: Of the check.
        weights: Whether the training starts from weights of PP-LiteSeg.
    """
    images = report.image_format
    if not images.takes_pictures:
        return "    # Without RandomDistort, which takes grey or RGB of 8 bits only.\n"
    strength, of = (0.5, "released recipes") if weights else (0.3, "recipe of docs/training.md")
    lines = f"""\
    - type: RandomDistort  # as strong as in the {of}
      brightness_range: {strength}
      contrast_range: {strength}
"""
    if images.channels == 3:
        return f"{lines}      saturation_range: {strength}\n"
    return f"""\
{lines}      saturation_prob: 0  # grey has neither saturation nor hue
      hue_prob: 0
"""


def normalize(report: CheckReport, *, weights: bool) -> str:
    """Return the normalisation; takes what :func:`distortion` does."""
    images = report.image_format
    if images.is_rgb:
        return "    - type: Normalize\n"
    if weights and images.channels == 1 and images.max_value == 255:
        return "    - type: Normalize  # as the weights were trained\n"
    mean = ", ".join(f"{channel.mean:g}" for channel in report.channels)
    std = ", ".join(f"{channel.std:g}" for channel in report.channels)
    return f"""\
    - type: Normalize  # by channel, as measured on the training images
      mean: [{mean}]
      std: [{std}]
"""
