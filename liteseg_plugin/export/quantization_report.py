"""What a quantisation gives: which layers compute in INT8, and what that costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from liteseg_plugin.errors import printable


@dataclass(frozen=True)
class QuantizedLayer:
    """A convolution.

    Attributes:
        name: Of the layer in the graph.
        weight_shape: Of its weights, (C_out, C_in, h, w).
        changed_alone: Share of labels that change, 0 to 1, if only this layer is quantised.
        precision: What it computes in, ``int8`` or ``fp32``.
    """

    name: str
    weight_shape: list[int]
    changed_alone: float
    precision: str

    def text(self) -> str:
        """Return the layer as words for the terminal."""
        shape = "x".join(map(str, self.weight_shape))
        return f"{printable(self.name)} ({shape}): {self.changed_alone:.2%}"


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantisation gave; ``model_int8.json`` or ``model_ncnn_int8.json`` holds it.

    Attributes:
        model: Name of the file of the graph in INT8.
        images: Number of calibration images.
        measured_images: How many of them the layers were measured on.
        tolerance: Share of labels that a layer may change, 0 to 1.
        agreement_all: Share of labels equal to float32's, with all layers in INT8.
        agreement: The same with the layers in INT8 that are so in the written model.
        layers: The convolutions, in the order of the graph.
    """

    model: str
    images: int
    measured_images: int
    tolerance: float
    agreement_all: float
    agreement: float
    layers: list[QuantizedLayer]

    def to_json(self) -> dict[str, Any]:
        """Return a document for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> QuantizationReport:
        """Read what :meth:`to_json` returns.

        Raises:
            KeyError, TypeError: If a value is missing or unknown.
        """
        layers = [QuantizedLayer(**layer) for layer in document["layers"]]
        return cls(**{**document, "layers": layers})

    def in_float(self) -> list[QuantizedLayer]:
        """Return the layers that stay in float32, from the one that changes most labels."""
        floats = [layer for layer in self.layers if layer.precision == "fp32"]
        return sorted(floats, key=lambda layer: -layer.changed_alone)

    def text(self, *, verbose: bool = False) -> str:
        """Return lines for the terminal, with all layers that stay in float32 or only the worst."""
        floats = self.in_float()
        lines = [
            f"{self.model}: {len(self.layers) - len(floats)} of {len(self.layers)} convolutions in "
            f"INT8, calibrated on {self.images} images",
            f"labels equal to float32's: {self.agreement:.2%} (with all convolutions in INT8: "
            f"{self.agreement_all:.2%})",
        ]
        if floats:
            lines.append(
                f"{len(floats)} stay in float32: each alone changes more than "
                f"{self.tolerance:.2%} of the labels; the most: {floats[0].text()}"
            )
        if verbose:
            lines += [f"  {layer.text()}" for layer in floats]
        elif len(floats) > 1:
            lines[-1] += " (--verbose lists all)"
        return "\n".join(lines)
