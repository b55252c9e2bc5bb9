"""Read a config and build what it names, with errors that say what is wrong and what to do.

The plugin's commands call :func:`load` and :class:`ConfigBuilder`. For PaddleSeg's unmodified
scripts, :mod:`.scripts` calls the same functions from PaddleSeg's own classes.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle
import yaml
from paddleseg.cvlibs import Config, SegBuilder, manager
from paddleseg.cvlibs.builder import Builder
from paddleseg.datasets import Dataset
from paddleseg.transforms import Compose
from paddleseg.utils import logger, utils

from liteseg_plugin.datasets.image_format import check_sections
from liteseg_plugin.datasets.loading import Cityscapes as OurCityscapes
from liteseg_plugin.datasets.loading import Dataset as OurDataset
from liteseg_plugin.errors import ConfigError, LitesegError
from liteseg_plugin.integration.config_files import config_files, find_config
from liteseg_plugin.integration.samples import CheckedCompose
from liteseg_plugin.system.text import did_you_mean, read_text, read_yaml
from liteseg_plugin.weights import load_matching_weights, local_path, needs_network, read_state_dict

# These adapt their position embeddings to the image size while they load weights.
_LOAD_BY_THEMSELVES = tuple(
    f"paddleseg.models.backbones.{name}" for name in ("vision_transformer", "cae", "vit_adapter")
)

# What PaddleSeg, and `liteseg launch`, read at the top of a config.
_KEYS = {
    *("batch_size", "iters", "to_static_training", "train_dataset", "val_dataset", "test_config"),
    *("optimizer", "lr_scheduler", "loss", "distill_loss", "model", "total_batch_size"),
}


def load(path: str, opts: Sequence[str] | None = None, **overrides: Any) -> Config:
    """Read a config file.

    Args:
        path: The file (.yml), or the name of one that comes with the plugin.
        opts: ``KEY=VALUE``, which override values of the file.
        overrides: Further arguments of PaddleSeg's ``Config``, such as ``iters``.

    Raises:
        ConfigError: If the file, or a ``_base_`` of it, is missing or cannot be used.
    """
    path = str(find_config(path))
    with config_errors(path):
        check_keys(path, opts)
        config = Config(path, opts=opts, **overrides)
    check_sections(config.dic)
    return config


def check_keys(path: str, opts: Sequence[str] | None) -> None:
    """Refuse ``--opts`` with a key that neither the config has nor PaddleSeg reads.

    PaddleSeg refuses an unknown section, but adds an unknown key at the top without a word.

    Args:
        path: The file.
        opts: ``KEY=VALUE``.

    Raises:
        ConfigError: If a key is unknown; the message names the nearest. Or without a value.
    """
    for entry in opts or ():
        if "=" not in entry:
            raise ConfigError(f"--opts {entry}: give KEY=VALUE, without spaces around the =")
    heads = [entry.partition("=")[0].partition(".")[0] for entry in opts or ()]
    if {*heads} <= _KEYS:
        return
    content = Config._parse_from_yaml(path)
    known = {key: key for key in {*_KEYS, *content}}
    for section, values in content.items():
        for key in values if isinstance(values, Mapping) else ():
            known.setdefault(key, f"{section}.{key}")
    for head in heads:
        if head in _KEYS or head in content:
            continue
        close = [known[name] for name in difflib.get_close_matches(head, sorted(known), n=3)]
        way_out = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(content)}"
        raise ConfigError(f"--opts {head}: a config has no such key; {way_out}")


def merged(path: str, opts: Sequence[str] | None = None) -> str:
    """Return a config as one YAML document, which needs no other file.

    It starts with the comment at the start of the file.

    Takes and raises what :func:`load` does.
    """
    content = {key: value for key, value in load(path, opts).dic.items() if key != "_base_"}
    file = find_config(path)
    lines = read_text(file).splitlines(keepends=True)
    comment = "".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    sections = [
        yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False) for key, value in content.items()
    ]
    return f"{comment}# {file.stem}, with its _base_ files merged.\n" + "\n".join(sections)


class _Dumper(utils.NoAliasDumper):
    """Writes short lists in a line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: Any = None) -> yaml.Node:
        flat = not any(isinstance(item, (dict, list)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat)


@contextlib.contextmanager
def config_errors(path: str) -> Iterator[None]:
    """Check a config file, and explain what goes wrong while PaddleSeg reads it.

    Raises:
        ConfigError: As :func:`load`.
    """
    if not Path(path).is_file():
        if Path(path).is_dir():
            raise ConfigError(f"{path} is a folder; --config takes a .yml file in it, or a name")
        neighbours = [str(p) for p in Path(path).parent.glob("*.y*ml")]
        names = "; `liteseg config list` prints the names"
        suggestion = (
            _suggestion(str(path), neighbours, "; ")
            or _suggestion(Path(path).stem, [*config_files()], f"{names}; ")
            or names
        )
        raise ConfigError(f"config not found: {path}{suggestion}")
    _check_file(Path(path))
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not valid YAML: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"config {path}: its _base_ {error.filename} does not exist") from error
    except (AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(f"config {path}: {error.__context__ or error}") from error


def _check_file(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse a config that YAML's aliases make too large, or that is its own ``_base_``."""
    if path.resolve() in above:
        raise ConfigError(f"config {path} is its own _base_")
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"config {error}") from error
    except OSError:
        return  # PaddleSeg's own reading says which
    bases = content.get("_base_") if isinstance(content, dict) else None
    for base in [bases] if isinstance(bases, str) else bases or ():
        if isinstance(base, str):
            _check_file(path.parent / base, (*above, path.resolve()))


class ConfigBuilder(SegBuilder):
    """PaddleSeg's builder of a config's components, with errors that name component and choices.

    Args:
        config: Of :func:`load`.
        downloads: Whether to download weights that the config names by URL; not needed where full
            weights are loaded afterwards.
        verbose: Whether to log the section of each component.
    """

    def __init__(self, config: Config, *, downloads: bool = True, verbose: bool = False) -> None:
        super().__init__(config)
        self._downloads, self._verbose = downloads, verbose

    def show_msg(self, name: str, cfg: dict) -> None:
        """Log the section that a component is built of, if that is wanted."""
        if self._verbose:
            super().show_msg(name, cfg)

    def load_component_class(self, class_type: str) -> Any:
        """Return the class or function registered as ``class_type``.

        Raises:
            ConfigError: If nothing is; the message lists the choices.
        """
        check_component(self.comp_list, class_type)
        return super().load_component_class(class_type)

    def build_component(self, cfg: dict) -> Any:
        """Build a component from its section of the config.

        Raises:
            ConfigError: If it cannot be built.
            WeightsError: If its ``pretrained`` weights cannot be loaded.
        """
        built = build_component(super().build_component, self, cfg, downloads=self._downloads)
        if isinstance(built, Dataset) and not isinstance(built, (OurDataset, OurCityscapes)):
            _check_samples(built)
        return built

    @utils.CachedProperty
    def optimizer(self) -> paddle.optimizer.Optimizer:
        """The optimiser.

        Raises:
            ConfigError: If its ``custom_cfg`` names a part that the network lacks.
        """
        check_parameter_groups(self.config.optimizer_cfg.get("custom_cfg"), self.model)
        return super().optimizer


def _check_samples(dataset: Dataset) -> None:
    """Let a data set of PaddleSeg's check images and labels as it reads them."""
    if not isinstance(dataset.transforms, Compose):
        return
    limits = None
    if type(dataset).__getitem__ is Dataset.__getitem__:  # others may change labels afterwards
        limits = dataset.num_classes, dataset.ignore_index
    dataset.transforms = CheckedCompose(dataset.transforms, limits)


def check_component(registries: Sequence[manager.ComponentManager], name: str) -> None:
    """Check that a component of this name is registered.

    Raises:
        ConfigError: If not; the message lists those of the registries with similar names.
    """
    everything = {known: r.name for r in registries for known in r.components_dict}
    if name in everything:
        return
    close = difflib.get_close_matches(str(name), everything, n=5, cutoff=0.5)
    likely = {everything[known] for known in close} or {*everything.values()}
    choices = "; ".join(
        f"{r.name}: {', '.join(sorted(r.components_dict))}" for r in registries if r.name in likely
    )
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ConfigError(f"unknown component {name!r}; {hint}Choices are {choices}")


def build_component(
    build: Callable[[dict], Any], builder: Builder, cfg: dict, *, downloads: bool = True
) -> Any:
    """Build a component and load its pretrained weights.

    Args:
        build: Builds a component without weights from its section.
        builder: Whose method ``build`` is.
        cfg: The section.
        downloads: Whether to download weights that are given by URL.

    Raises:
        ConfigError: If a component cannot be built.
        WeightsError: If weights cannot be loaded.
    """
    weights = cfg.get("pretrained")
    if not isinstance(weights, str) or not _is_network(cfg.get("type")):
        return _build(build, builder, cfg)
    if needs_network(weights) and not downloads:
        logger.info(f"Skipping the download of {weights}: full weights are given")
        return _build(build, builder, {**cfg, "pretrained": None})
    path = local_path(weights)
    if builder.load_component_class(cfg["type"]).__module__ in _LOAD_BY_THEMSELVES:
        read_state_dict(path)  # refuses a file that PaddleSeg would run code of
        return _build(build, builder, {**cfg, "pretrained": path})
    network = _build(build, builder, {**cfg, "pretrained": None})
    load_matching_weights(network, path, adapt_channels=True)
    network.pretrained = weights
    return network


def _is_network(name: Any) -> bool:
    return any(name in r.components_dict for r in (manager.MODELS, manager.BACKBONES))


def _build(build: Callable[[dict], Any], builder: Builder, cfg: dict) -> Any:
    try:
        return build(cfg)
    except RuntimeError as error:
        cause = error.__context__
        if cause is None:
            raise
        if isinstance(cause, LitesegError):
            raise cause from None
        name = cfg.get("type")
        if isinstance(cause, TypeError) and "argument" in str(cause):
            accepted = _accepted_arguments(builder.load_component_class(name))
            raise ConfigError(f"{name}: {cause}. It takes {accepted}") from cause
        raise ConfigError(f"{name}: {cause}") from cause


def _accepted_arguments(component: Any) -> str:
    names: list[str] = []
    for part in inspect.getmro(component) if inspect.isclass(component) else (component,):
        if inspect.isclass(part) and "__init__" not in vars(part):
            continue
        parameters = inspect.signature(part).parameters.values()
        names += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return ", ".join(names) or "the arguments that its documentation lists"


def check_parameter_groups(groups: Sequence[Mapping] | None, model: paddle.nn.Layer) -> None:
    """Check that each group of ``optimizer.custom_cfg`` names a part of the network.

    PaddleSeg leaves a part that it does not find at the common rate, and says nothing.

    Args:
        groups: With the name of a part each.
        model: The network.

    Raises:
        ConfigError: If no parameter's name contains that of a group.
    """
    names = [name for name, _ in model.named_parameters()]
    for group in groups or ():
        part = group.get("name")
        if not part or not any(part in name for name in names):
            raise ConfigError(
                f"optimizer.custom_cfg: no parameter name contains {part!r}; the parts of "
                f"{type(model).__name__} are {', '.join(dict(model.named_children()))}"
            )


def _suggestion(name: str, known: Sequence[str], before: str) -> str:
    question = did_you_mean(name, known)
    return f"{before}{question}" if question else ""
