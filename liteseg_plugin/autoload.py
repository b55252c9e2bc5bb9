"""Opt-in: let every Python of this environment use the plugin, without any edits.

One line in site-packages makes PaddleSeg's unmodified scripts build this plugin's model. It waits
for ``import paddleseg`` and costs almost nothing in a Python that never imports it.
"""

from __future__ import annotations

import sys

from liteseg_plugin.integration.import_hook import when_imported

# Every start of Python pays for imports here, so pathlib is imported later.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# Importing the package registers its model already, so the line itself asks.
_LINE = (
    'import os; os.environ.get("LITESEG_AUTOLOAD") == "0" or exec('
    '"try:\\n import liteseg_plugin.autoload as a; a.start()\\nexcept ImportError: pass")\n'
)


def start() -> None:
    """Activate the plugin as soon as paddleseg is imported; called by the line of the .pth file."""
    when_imported("paddleseg", _activate)


def _activate() -> None:
    from liteseg_plugin.integration.registry import activate

    activate(sys.argv)


def path() -> Path:
    """Return the .pth file of this environment, which need not exist."""
    import sysconfig
    from pathlib import Path

    return Path(sysconfig.get_path("purelib"), "liteseg_plugin_autoload.pth")


def is_enabled() -> bool:
    """Tell whether the line is in place."""
    return path().is_file()


def enable() -> None:
    """Write the line. Idempotent.

    Raises:
        OSError: If site-packages cannot be written.
    """
    path().write_text(_LINE, encoding="utf-8")


def disable() -> None:
    """Take the line away. Idempotent.

    Raises:
        OSError: If site-packages cannot be written.
    """
    path().unlink(missing_ok=True)
