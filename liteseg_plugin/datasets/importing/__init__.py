"""Import of other tools' annotations into PaddleSeg's layout."""

from liteseg_plugin.datasets.importing.converting import FORMATS, import_data
from liteseg_plugin.datasets.importing.records import ImportReport, Note, Options

__all__ = ["FORMATS", "ImportReport", "Note", "Options", "import_data"]
