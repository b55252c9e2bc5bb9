"""Files, processors and progress, for all parts of the package."""
