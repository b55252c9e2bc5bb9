"""``python -m liteseg_plugin`` is the ``liteseg`` command."""

import sys

from liteseg_plugin.cli import main
from liteseg_plugin.system import heartbeat

if __name__ == "__main__":
    heartbeat.begin()
    sys.exit(main())
