"""Files, processors and progress: what every part of the package may use."""
