"""How the settings of a resumed run differ from those that it was trained with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddleseg.utils import logger

from liteseg_plugin.errors import TrainingError
from liteseg_plugin.training import processes
from liteseg_plugin.training.run import CONFIG, RECORD, RunRecord, versions

# What a resumed run computes with. Other keys of a config, and other flags, do not change results.
_SECTIONS = (
    *("train_dataset", "val_dataset", "test_config", "optimizer", "lr_scheduler"),
    *("loss", "distill_loss", "model", "batch_size", "to_static_training"),
)
_FLAGS = (
    *("precision", "amp_level", "gradient_accumulation_steps"),
    *("use_ema", "to_static_training", "repeats"),
)
# The lists themselves are compared, wherever they are.
_PLACES = ("dataset_root", "train_path", "val_path", "test_path")
# Samples are the same with and without.
_LOADING = ("fast_loading", "cache_gb", "cache_dir")
# A host may have its own.
_OWN = (*_PLACES, *_LOADING, "pretrained")
# They set weights that the checkpoint replaces.
_FIRST_WEIGHTS = ("model.pretrained", "model.backbone.pretrained", "model.backbone_init")
_UNSET = "(not set)"


@dataclass(frozen=True)
class Change:
    """A setting that differs.

    Attributes:
        name: Of the setting: keys of the config with dots between, or a flag.
        before: What the run was trained with.
        now: What it would continue with.
        breaks: Whether results differ from those of the uninterrupted run.
    """

    name: str
    before: Any
    now: Any
    breaks: bool

    def __str__(self) -> str:
        """Return how a message writes it."""
        way_out = ""
        if self.name == "lr_scheduler.decay_steps":
            way_out = f" (from iters, unless --opts {self.name}={self.before})"
        return f"{self.name}: {self.before} -> {self.now}{way_out}"


def compare(before: RunRecord, now: RunRecord) -> list[Change]:
    """Return the settings that differ, those first that change results."""
    changes = [
        Change(name, old, new, _breaks(name))
        for name, old, new in _differences(_effective(before.config), _effective(now.config))
        if name not in _FIRST_WEIGHTS and not name.endswith(_LOADING)
    ]
    changes += [
        Change(f"--{name}", old, new, name in _FLAGS or (name == "num_workers" and 0 in (old, new)))
        for name, old, new in _differences(before.settings, now.settings)
        if _UNSET not in (old, new)  # a flag of another version
    ]
    if before.processes != now.processes:
        changes.append(Change("processes", before.processes, now.processes, True))
    if before.train_list != now.train_list:
        changes.append(Change("train_dataset's list", before.train_list, now.train_list, True))
    if before.val_list and now.val_list and before.val_list != now.val_list:
        changes.append(Change("val_dataset's list", before.val_list, now.val_list, True))
    return sorted(changes, key=lambda change: not change.breaks)


def check_same_on_hosts(
    config: Mapping[str, Any], flags: Mapping[str, Any], inputs: Mapping[str, Any]
) -> None:
    """Refuse to run on hosts with other versions, configs, flags or inputs.

    Args:
        config: PaddleSeg's, merged.
        flags: By name, without those that a host may have for itself.
        inputs: What is read beside the config, such as lists and weights.

    Raises:
        TrainingError: If they differ; it names host, rank and what differs.
    """
    facts: dict[str, Any] = {name: v for name, v in versions().items() if name != "python"}
    content = _values(_effective(config))
    facts |= {name: value for name, value in content if not name.endswith(_OWN)}
    facts |= {f"--{name}": value for name, value in flags.items()}
    facts |= inputs
    processes.check_same({name: str(value) for name, value in facts.items()})


def begin(folder: Path, resumed: Path | None, now: RunRecord, *, allow_changes: bool) -> None:
    """Write the record of a run into its folder; if it is resumed, compare with what it was.

    Raises:
        TrainingError: If results would differ from those of the uninterrupted run, without
            ``allow_changes``.
        WeightsError: If the stored record cannot be read.
    """
    before = None
    if resumed is not None:
        before = RunRecord.read(resumed.parent)
        if before is None:
            logger.info(f"{resumed.parent} has no {RECORD}: settings are not compared")
        else:
            _check(before, now, resumed.parent, allowed=allow_changes)
    if processes.is_main():
        now.write(folder, before)


def _check(before: RunRecord, now: RunRecord, where: Path, *, allowed: bool) -> None:
    changes = compare(before, now)
    breaking = [change for change in changes if change.breaks]
    if breaking and not allowed:
        config = shlex.quote(str(where / CONFIG))
        raise TrainingError(
            f"resuming {where} with other settings would not continue the same training:\n"
            + "".join(f"  {change}\n" for change in breaking)
            + f"Give the settings that it was trained with (--config {config}), or "
            "--allow_changes to go on with the new ones"
        )
    for change in changes:
        log = logger.warning if change.breaks else logger.info
        log(f"Other setting than before the resume: {change}")


def _breaks(name: str) -> bool:
    return name.split(".")[0].split("[")[0] in _SECTIONS and not name.endswith(_PLACES)


def _effective(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the length of the decay that PaddleSeg derives from ``iters``."""
    schedule = dict(config.get("lr_scheduler") or {})
    if schedule.get("type") == "PolynomialDecay":
        steps = config.get("iters", 0) - schedule.get("warmup_iters", 0)
        schedule.setdefault("decay_steps", max(steps, 1))
    return {**config, "lr_scheduler": schedule}


def _differences(before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    old, new = dict(_values(before)), dict(_values(now))
    for name in {**old, **new}:
        values = old.get(name, _UNSET), new.get(name, _UNSET)
        if values[0] != values[1]:
            yield (name, *values)


def _values(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested sections, by keys with dots between."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _values(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, Sequence) and any(isinstance(entry, Mapping) for entry in content):
        for number, value in enumerate(content):
            yield from _values(value, f"{name}[{number}]")
    else:
        yield name, list(content) if isinstance(content, tuple) else content
