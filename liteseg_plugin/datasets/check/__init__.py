"""Check a whole data set before training.

:func:`check` opens every image and label the way training opens them, and collects what is wrong
instead of stopping at the first fault.
"""

from liteseg_plugin.datasets.check.checking import PIXELS_PER_KEPT, check
from liteseg_plugin.datasets.check.report import CheckReport, Finding
from liteseg_plugin.datasets.check.source import DataSet, Split, from_config, from_folder

__all__ = [
    "PIXELS_PER_KEPT",
    "CheckReport",
    "DataSet",
    "Finding",
    "Split",
    "check",
    "from_config",
    "from_folder",
]
