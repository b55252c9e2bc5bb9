"""Which device computes: the one that was asked for, or an error; ``auto`` takes the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from liteseg_plugin.errors import DeviceError

KINDS = ("auto", "cpu", "gpu", "xpu", "npu", "mlu")
"""Devices by the names that ``--device`` takes; a number may follow, as in ``gpu:0``."""


@dataclass(frozen=True)
class Devices:
    """The devices that one engine can use on this machine.

    Attributes:
        engine: Name and version of the engine.
        present: Names with numbers, such as ``gpu:0``, except ``cpu``; the best first.
        missing: Why there are no others, and what to do; empty if there is nothing to say.
    """

    engine: str
    present: tuple[str, ...] = ("cpu",)
    missing: str = ""

    def choose(self, asked: str) -> str:
        """Return the device to use: ``asked``, or for ``auto`` the kind of the best.

        Raises:
            DeviceError: If the name is unknown, or there is no such device.
        """
        kind, colon, number = asked.partition(":")
        if kind not in KINDS or (colon and not number.isdecimal()):
            raise DeviceError(f"unknown device {asked!r}; choose one of {', '.join(KINDS)}")
        if asked == "auto" and self.present:
            return kind_of(self.present[0])
        if asked in self.present or asked in map(kind_of, self.present):
            return asked
        here = f"has {', '.join(self.present)} here" if self.present else "has no device here"
        reason = f" ({self.missing})" if self.missing else ""
        way_out = "; --device auto takes what is there" if self.present else ""
        raise DeviceError(
            f"--device {asked}: there is no such device. {self.engine} {here}{reason}{way_out}"
        )

    def only(self, usable: Callable[[str], bool]) -> Devices:
        """Return those devices whose kind is usable."""
        kept = tuple(name for name in self.present if usable(kind_of(name)))
        return replace(self, present=kept)

    def describe(self, asked: str, chosen: str) -> str:
        """Return one line that says which device computes, and why ``auto`` took it."""
        if asked != "auto":
            return f"Device: {chosen}"
        reason = f": {self.missing}" if self.missing and chosen == "cpu" else ""
        return f"Device: {chosen} (--device auto; {self.engine}{reason})"


def kind_of(device: str) -> str:
    """Return the kind of a device: ``gpu`` of ``gpu:0``."""
    return device.partition(":")[0]


def visible_gpus(chosen: str | None = None) -> int:
    """Return the number of GPUs that Paddle can use, or of those in a list such as ``0,1``."""
    if chosen:
        return len(chosen.split(","))
    return [kind_of(name) for name in paddle_devices().present].count("gpu")


def paddle_devices() -> Devices:
    """Return the devices that Paddle can use in this process."""
    import paddle

    cuda, gpus = paddle.is_compiled_with_cuda(), 0
    if cuda:
        gpus = paddle.device.cuda.device_count()
    found = [f"gpu:{number}" for number in range(gpus)]
    if paddle.is_compiled_with_xpu():
        found.append("xpu:0")
    # A device that is alone has no number.
    others = paddle.device.get_available_custom_device() or ()
    found += [name if ":" in name else f"{name}:0" for name in others]
    missing = ""
    if not cuda:
        missing = "it is built without CUDA; for a GPU install paddlepaddle-gpu instead"
    elif not gpus:
        missing = "it finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return Devices(f"Paddle {paddle.__version__}", (*found, "cpu"), missing)
