"""``python -m liteseg_plugin`` is the ``liteseg`` command."""

import sys

from liteseg_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
