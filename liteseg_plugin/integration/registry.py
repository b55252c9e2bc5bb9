"""Registration of the plugin's components in PaddleSeg's managers, and activation."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Sequence

# PaddleSeg's scripts, and the flag that gives full weights.
_WITH_WEIGHTS = {
    "train.py": "--resume_model",
    **dict.fromkeys(("val.py", "predict.py", "export.py", "analyse.py"), "--model_path"),
}


def register() -> None:
    """Register the components in PaddleSeg's managers, instead of PaddleSeg's own.

    Silent and idempotent. :func:`owners` returns the registered classes.
    """
    for manager, components in _components():
        for component in components:
            # Not manager.add_component, which warns of every name that is replaced.
            manager.components_dict[component.__name__] = component


def owners() -> dict[str, str]:
    """Return which class is registered under each of the plugin's names.

    Returns:
        Names to ``module.class``, or to ``""`` where nothing is registered.
    """
    registered = (
        (component.__name__, manager.components_dict.get(component.__name__))
        for manager, components in _components()
        for component in components
    )
    return {name: f"{cls.__module__}.{cls.__name__}" if cls else "" for name, cls in registered}


def activate(arguments: Sequence[str] = ()) -> None:
    """Register the components, repair PaddleSeg on this Paddle, and make its errors clear.

    It is what PaddleSeg's unmodified scripts need; the plugin's commands need only :func:`repair`.

    Args:
        arguments: The command line that runs, script first. If it is a script of PaddleSeg's with
            ``--model_path`` (or ``--resume_model``, in training), full weights are given, and the
            backbone's need not be downloaded.
    """
    repair(for_scripts=True)
    if arguments and os.path.basename(arguments[0]) in _WITH_WEIGHTS:
        atexit.unregister(_say_it_was_active)  # autoload may have activated before `liteseg run`
        atexit.register(_say_it_was_active)
    if _gives_full_weights(arguments):
        from liteseg_plugin.integration import scripts

        scripts.skip_backbone_download()


def repair(*, for_scripts: bool = False) -> None:
    """Register the components and repair PaddleSeg on this Paddle.

    Args:
        for_scripts: Whether to replace, too, what only PaddleSeg's unmodified scripts need.
    """
    # First: with autoload enabled this import activates, through the hook, and the modules
    # below must not be half imported then.
    import paddleseg  # noqa: F401

    from liteseg_plugin.integration import table

    register()
    table.apply(for_scripts=for_scripts)


def _gives_full_weights(arguments: Sequence[str]) -> bool:
    if not arguments:
        return False
    flag = _WITH_WEIGHTS.get(os.path.basename(arguments[0]))
    given = (argument.split("=")[0] for argument in arguments[1:])
    # argparse admits abbreviations
    return flag is not None and any(flag.startswith(name) and len(name) > 4 for name in given)


def _say_it_was_active() -> None:
    """End the log of a script of PaddleSeg's with what it ran with."""
    from paddleseg.utils import logger

    from liteseg_plugin import __version__
    from liteseg_plugin.integration import table

    repairs = [e.name for e in table.ENTRIES if not e.scripts_only and table.is_active(e.name)]
    with contextlib.suppress(OSError, ValueError):  # standard output is closed
        logger.info(
            f"liteseg_plugin {__version__} was active: PPLiteSeg is {owners()['PPLiteSeg']}; "
            f"repaired: {', '.join(repairs)} (`liteseg doctor` explains them)"
        )


def _components() -> list[tuple]:
    import paddleseg  # noqa: F401 - first: its import registers, through the hook, and ends here
    from paddleseg.cvlibs import manager

    from liteseg_plugin.datasets import loading
    from liteseg_plugin.losses.ohem import OhemCrossEntropyLoss
    from liteseg_plugin.models import pp_liteseg, sppm, stdc, uafm

    models = (
        pp_liteseg.PPLiteSeg,
        sppm.SPPM,
        sppm.PointwiseContext,
        uafm.UAFM,
        uafm.UAFM_ChAtten,
        uafm.UAFM_ChAtten_S,
        uafm.UAFM_SpAtten,
        uafm.UAFM_SpAtten_S,
        uafm.UAFMMobile,
        uafm.UAFMMobile_SpAtten,
    )
    return [
        (manager.MODELS, models),
        (manager.BACKBONES, (stdc.STDC1_PyTorch, stdc.STDC2_PyTorch)),
        (manager.LOSSES, (OhemCrossEntropyLoss,)),
        (manager.DATASETS, (loading.Dataset, loading.Cityscapes)),
    ]
