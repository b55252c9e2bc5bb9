"""Segment many images with Ray Data: predictors in processes of one machine or of many."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from liteseg_plugin.errors import DataError, LitesegError, last_line
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference import bulk, parquet, pipeline
from liteseg_plugin.inference.images import find_images
from liteseg_plugin.inference.pipeline import Extras, OnError, SegmentedImage
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.inference.segmentation import Segmentation, encode_label_map, require_confidence
from liteseg_plugin.system import pixels
from liteseg_plugin.system.parallel import usable_cpus

LOCAL = "local"
"""In place of an address: a Ray of its own on this machine, for this run."""

_TASK_IMAGES = 32  # of a task, which is repeated if its process dies
_FIELDS = [each.name for each in fields(SegmentedImage)]


@dataclass(frozen=True)
class Model:
    """Arguments of :class:`Predictor` in each process.

    Attributes:
        path: Folder of the export.
        runtime: As :class:`Predictor` takes it, like the others.
        device: ``cpu``, ``gpu`` or ``auto``.
        threads: CPU threads of a process; None divides the CPUs of the cluster.
        precision: Of the computation.
    """

    path: str
    runtime: str
    device: str = "auto"
    threads: int | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class RayRun:
    """What to segment, where, and with what.

    Attributes:
        address: Of a running cluster, such as ``auto`` or ``HOST:6379``, or :data:`LOCAL`.
        model: The predictor of each process.
        workers: Number of these processes; None for one per GPU, or else one per machine.
        extras: What to write beside label maps and overlays.
        column: Of Parquet files: paths or encoded images.
        to_parquet: Whether label maps go into Parquet files, and nothing else is written.
    """

    address: str
    model: Model
    workers: int | None = None
    extras: Extras = field(default_factory=Extras)
    column: str = "image"
    to_parquet: bool = False

    def segment(
        self, image_path: str, save_dir: str | os.PathLike, *, resume: bool = False, **options: Any
    ) -> bulk.Summary:
        """Segment images, and write what became of each into the manifest.

        The images, ``save_dir`` and the export must have the same paths on every machine.
        ``image_path`` may also be a Parquet file, or a folder with some; ``options`` are those of
        :func:`bulk.run_in_bulk`.

        Raises:
            LitesegError: If Ray is not installed, or a cluster cannot be reached or used.
            ExportError: If the export cannot be used.
            DataError: As :func:`bulk.run_in_bulk`.
        """
        ray = _import_ray()
        exported = ExportedModel.read(self.model.path)
        if self.extras.needs_confidence:
            require_confidence(exported)
        if parquet.find_files(image_path):
            images, encoded = parquet.find_images(image_path, self.column)
        else:
            images, encoded = find_images(image_path), False
        if self.to_parquet:
            planned = [SegmentedImage(image.path, None, None) for image in images]
            if not resume:
                # Refuses earlier ones while their manifest is there.
                parquet.Parts(save_dir, keep=None)
        else:
            planned = pipeline.plan_results(images, save_dir, self.extras)

        def segment(todo: Sequence[SegmentedImage], on_error: OnError) -> Iterator[SegmentedImage]:
            if not todo:
                return
            self._connect(ray)
            parts = None
            if self.to_parquet:
                parts = parquet.Parts(save_dir, bulk.named_files(save_dir) if resume else None)
            for files, row in self._rows(ray, todo, encoded):
                if row["error"] is not None:
                    on_error(files, DataError(row["error"]))
                elif parts:
                    yield from parts.add(files, row["label"])
                else:
                    yield files
            if parts:
                yield from parts.flush()

        try:
            summary = bulk.run_in_bulk(segment, planned, save_dir, resume=resume, **options)
        except ray.exceptions.RayError as error:
            raise LitesegError(f"Ray ({self.address}): {last_line(error)}") from error
        finally:
            ray.shutdown()
        if exported.classes:
            pipeline.write_legend(exported.classes, save_dir)
        return summary

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            options.update(num_cpus=usable_cpus(), include_dashboard=False)
        else:
            options["runtime_env"] = {"env_vars": pixels.variables()}
        try:
            ray.init(address=self.address, **options)
        except Exception as error:  # Ray raises a plain Exception where it cannot start, for one
            raise LitesegError(
                f"Ray ({self.address}) cannot be used: {last_line(error)}"
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def _rows(
        self, ray: Any, todo: Sequence[SegmentedImage], encoded: bool
    ) -> Iterator[tuple[SegmentedImage, dict[str, Any]]]:
        """Yield each image with its result, as soon as it is there."""
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        resources = ray.cluster_resources()
        on_gpu = self.model.device != "cpu" and resources.get("GPU", 0) >= 1
        machines = sum(node["Alive"] for node in ray.nodes())
        workers = self.workers or (int(resources["GPU"]) if on_gpu else machines)
        threads = self.model.threads or max(1, int(resources["CPU"]) // workers)
        path = os.path.abspath(self.model.path)  # processes may have other working directories
        model = replace(self.model, path=path, threads=threads)
        rows: Any = []
        for number, files in enumerate(todo):
            paths = {name: p and os.path.abspath(p) for name, p in asdict(files).items()}
            rows.append({"number": number, **paths})
        if encoded:
            # Reading takes no CPU of Ray's, as the predictors may have them all.
            groups = parquet.group_rows(rows)
            dataset = ray.data.from_items(groups, override_num_blocks=len(groups)).map_batches(
                _read_groups,
                fn_kwargs={"column": self.column},
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,
                concurrency=2,
            )
        else:
            blocks = -(-len(rows) // _TASK_IMAGES)
            dataset = ray.data.from_items(rows, override_num_blocks=blocks)
        dataset = dataset.map_batches(
            _Worker,
            fn_constructor_args=(model, self.extras),
            fn_constructor_kwargs={"to_parquet": self.to_parquet},
            batch_size=_TASK_IMAGES,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=min(threads, int(resources["CPU"]) / workers),
            num_gpus=1 if on_gpu else None,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        for row in dataset.iter_rows():
            yield todo[row["number"]], row


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise LitesegError(
            f"--ray needs an extra: pip install 'liteseg_plugin[ray]' ({last_line(error)})"
        ) from None
    return ray


def _read_groups(groups: Any, column: str) -> Iterator[Any]:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in _FIELDS]
    schema = pa.schema([("number", pa.int64()), *texts, ("content", pa.binary())])
    for group in groups.to_pylist():
        for rows in parquet.read_contents(group, column):
            yield pa.Table.from_pylist(rows, schema)


class _Worker:
    """A process with a predictor; Ray starts another one if it dies, and repeats its task."""

    def __init__(self, model: Model, extras: Extras, *, to_parquet: bool) -> None:
        from liteseg_plugin.integration.registry import repair

        repair()
        self._predictor = Predictor(
            model.path, model.runtime, model.device, model.threads, model.precision
        )
        self._extras, self._to_parquet = extras, to_parquet

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        rows = batch.to_pylist()
        contents = {row["image"]: row.get("content") for row in rows}
        errors: dict[str, str] = {}
        labels: dict[str, bytes] = {}

        def on_error(files: SegmentedImage, error: DataError) -> None:
            errors[files.image] = str(error)

        def read(files: SegmentedImage) -> np.ndarray:
            content = contents[files.image]
            if content is None:
                return self._predictor.read(files.image)
            return _decode(self._predictor, files.image, content)

        def keep(files: SegmentedImage, segmentation: Segmentation) -> None:
            labels[files.image] = encode_label_map(segmentation.labels, segmentation.classes)

        planned = [SegmentedImage(**{name: row[name] for name in _FIELDS}) for row in rows]
        write = keep if self._to_parquet else pipeline.write_results
        for _ in pipeline.segment_planned(
            self._predictor, planned, self._extras, on_error=on_error, read=read, write=write
        ):
            pass
        names = [*contents]
        return pa.table(
            {
                "number": pa.array([row["number"] for row in rows], pa.int64()),
                "error": pa.array([errors.get(name) for name in names], pa.string()),
                "label": pa.array([labels.get(name) for name in names], pa.binary()),
            }
        )


def _decode(predictor: Predictor, name: str, content: bytes) -> np.ndarray:
    """Decode an image by way of a file, which is what the checks of images read."""
    with tempfile.NamedTemporaryFile(prefix="liteseg-") as file:
        Path(file.name).write_bytes(content)
        try:
            return predictor.read(file.name)
        except DataError as error:
            raise DataError(str(error).replace(file.name, name)) from None
