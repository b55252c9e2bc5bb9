"""From label maps and truth to numbers, pictures and pages."""

import paddleseg  # noqa: F401 - first: its import registers the data sets, through the hook
