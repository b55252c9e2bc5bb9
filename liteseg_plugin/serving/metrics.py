"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server.

    Args:
        models: Names of the models.
        waiting: Returns the number of requests that wait for an engine.
        held: Returns the number of requests that are being answered.
    """

    def __init__(
        self, models: Iterable[str], waiting: Callable[[], int], held: Callable[[], int]
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "liteseg_requests", "Requests by their answer.", ("model", "protocol", "status"),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "liteseg_request_seconds", "Time of requests that were answered with a result.",
            ("model", "protocol"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._images = Counter(
            "liteseg_images", "Images that engines segmented.", ("model",), registry=registry
        )
        self._batches = Histogram(
            "liteseg_batch_images", "Images of a batch.", ("model",),
            buckets=(1, 2, 4, 8, 16, 32), registry=registry,
        )  # fmt: skip
        self._engine_seconds = Counter(
            "liteseg_engine_seconds", "Time of engines.", ("model",), registry=registry
        )
        for name, text, function in (
            ("liteseg_requests_waiting", "Requests that wait for an engine.", waiting),
            ("liteseg_requests_held", "Requests that are being answered.", held),
        ):
            Gauge(name, text, registry=registry).set_function(function)
        for model in models:  # shown before they have run
            for metric in (self._images, self._batches, self._engine_seconds):
                metric.labels(model)

    def answered(self, model: str, protocol: str, status: int, seconds: float) -> None:
        """Count a request for a model by ``http`` or ``grpc``; a model is empty if unknown.

        ``status`` is that of HTTP, ``seconds`` are from its arrival to its answer.
        """
        self._requests.labels(model, protocol, status).inc()
        if status == 200:
            self._seconds.labels(model, protocol).observe(seconds)

    def ran(self, model: str, images: int, seconds: float) -> None:
        """Count a batch."""
        self._images.labels(model).inc(images)
        self._batches.labels(model).observe(images)
        self._engine_seconds.labels(model).inc(seconds)

    def text(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self._registry)
