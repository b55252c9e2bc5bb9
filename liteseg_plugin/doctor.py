"""What works in this environment, and why the rest does not.

Probes run in processes of their own: a missing wheel, a wrong NumPy or a crash of Paddle is then a
line of the report, not the end of it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from typing import NamedTuple

from liteseg_plugin import __version__, autoload
from liteseg_plugin.errors import telling_line
from liteseg_plugin.system.processes import python_command
from liteseg_plugin.system.versions import installed_versions

_DISTRIBUTIONS = (
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddleseg",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "paddle2onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "ncnn",
    "pnnx",
)


class Check(NamedTuple):
    """One check of the environment.

    Attributes:
        detail: What was found, or why it fails and what to do.
        essential: Whether the plugin is useless without it.
    """

    name: str
    works: bool
    detail: str
    essential: bool = False


def examine() -> dict:
    """Probe the environment.

    Returns:
        ``ok``, ``versions``, ``checks``, ``components``, ``compat`` and ``autoload``, ready for
        JSON. ``ok`` says whether everything essential works.
    """
    outcomes = _probe(
        "import numpy, cv2",
        "import zlib, paddle; print(paddle.device.get_device())",
        "import zlib, paddleseg",
        "import json, liteseg_plugin.doctor as d; print(json.dumps(d.inspect_inside()))",
    )
    if not outcomes[0].works:
        outcomes = [_Outcome("", outcome.reason + _NUMPY_HINT) for outcome in outcomes]
    *imported, inside = outcomes
    blocked = inside.reason
    names = ("import numpy, cv2", "import paddle", "import paddleseg", "train", "val", "predict")
    steps = [*imported, *[_Outcome("", blocked)] * 3]
    checks = [*map(_essential, names, steps), *_exports(blocked), *_runtimes(blocked)]
    found = json.loads(inside.output.splitlines()[-1]) if inside.works else {}
    return {
        "ok": all(check.works for check in checks if check.essential),
        "versions": {
            "liteseg_plugin": __version__,
            "python": platform.python_version(),
            **installed_versions(*_DISTRIBUTIONS),
            "platform": platform.platform(),
        },
        "device": found.get("device", "unknown"),
        "checks": [check._asdict() for check in checks],
        "components": found.get("components", {}),
        "compat": found.get("compat", []),
        "autoload": autoload.is_enabled(),
    }


def inspect_inside() -> dict:
    """Report components and incompatibilities; imports Paddle and PaddleSeg."""
    import paddle
    import paddleseg  # noqa: F401 - before the table, as in activate()

    from liteseg_plugin.integration import table
    from liteseg_plugin.integration.registry import activate, owners

    # Probed before anything is repaired.
    broken = {entry.name: entry.is_broken() for entry in table.ENTRIES}
    activate()
    return {
        "device": paddle.device.get_device(),
        "components": owners(),
        "compat": [
            {
                "name": entry.name,
                "broken_here": broken[entry.name],
                "active": table.is_active(entry.name),
                "symptom": entry.symptom,
                "repair": entry.repair_text,
                "reference": entry.reference,
            }
            for entry in table.ENTRIES
        ],
    }


def describe(report: dict) -> str:
    """Format the report of :func:`examine` as text."""
    lines = ["Versions"]
    lines += [f"  {name:24}{version}" for name, version in report["versions"].items()]
    lines += ["", "What works"]
    lines += [
        f"  {'yes' if c['works'] else 'NO ':4}{c['name']:20}{c['detail']}" for c in report["checks"]
    ]
    lines += ["", "Incompatibilities of PaddleSeg and Paddle"]
    for entry in report["compat"]:
        state = "broken here, repaired" if entry["broken_here"] else "not broken here"
        if not entry["broken_here"] and entry["active"]:
            state += ", applied anyway"
        lines += [f"  {entry['name']:20}{state}: {entry['repair']}"]
    lines += ["", "Registered components"]
    lines += [f"  {name:24}{owner}" for name, owner in report["components"].items()]
    lines += ["", f"autoload is {'enabled' if report['autoload'] else 'disabled'}"]
    return "\n".join(lines)


class _Outcome(NamedTuple):
    output: str
    reason: str

    @property
    def works(self) -> bool:
        return not self.reason


_NUMPY_HINT = "; OpenCV built for NumPy 1 needs numpy<2: pip install 'numpy<2'"


# What a process prints after each step.
_DONE = "-- done --\n"


def _probe(*steps: str) -> list[_Outcome]:
    """Run steps of Python code, one after the other, in a process of their own.

    Returns:
        The outcome of each step. The reason is empty where it succeeded; the steps after one that
        failed have its reason.
    """
    code = "import atexit, gc; atexit.register(gc.freeze)\n"  # ends half a second sooner
    code += "".join(f"{step}\nprint({_DONE!r}, end='', flush=True)\n" for step in steps)
    try:
        result = subprocess.run(
            python_command(code),
            capture_output=True,
            text=True,
            timeout=180,
            # The probes look at PaddleSeg as it is, before any repair.
            env={**os.environ, "GLOG_minloglevel": "3", "LITESEG_AUTOLOAD": "0"},
        )
    except subprocess.TimeoutExpired as expired:
        stdout = expired.stdout or ""
        printed = stdout if isinstance(stdout, str) else stdout.decode(errors="replace")
        reason = "no result within 3 minutes"
    else:
        printed, reason = result.stdout, ""
        if result.returncode < 0:
            reason = f"the process crashed (signal {-result.returncode})"
        elif result.returncode > 0:
            reason = telling_line(result.stderr) or f"exit code {result.returncode}"
    outputs = printed.split(_DONE)[:-1]
    if reason and len(outputs) == len(steps):  # the last step's process did not end well
        outputs.pop()
    succeeded = [_Outcome(output.strip(), "") for output in outputs]
    return succeeded + [_Outcome("", reason)] * (len(steps) - len(succeeded))


def _essential(name: str, outcome: _Outcome) -> Check:
    detail = outcome.reason or outcome.output or "ready"
    return Check(name, outcome.works, detail, essential=True)


def _exports(blocked: str) -> list[Check]:
    exported, converted = [_Outcome("", blocked)] * 2 if blocked else _probe(_EXPORT, _CONVERT)
    detail = "paddle2onnx converts a model of this Paddle"
    if not exported.works:
        detail = "needs a working export"
    elif not converted.works:
        detail = converted.reason.rpartition("ExportError: ")[2]
    return [_essential("export", exported), Check("onnx", converted.works, detail)]


_EXPORT = """
import os, tempfile, zlib, paddle
work = tempfile.TemporaryDirectory()
folder = work.name
net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 2, 3), paddle.nn.ReLU())
spec = [paddle.static.InputSpec([1, 3, 8, 8], 'float32')]
paddle.jit.save(paddle.jit.to_static(net, spec), folder + '/model')
print(', '.join(sorted(os.listdir(folder))))
"""
_CONVERT = """
from liteseg_plugin.export.onnx import convert
[model] = (f for f in os.listdir(folder) if f in ('model.json', 'model.pdmodel'))
convert(f'{folder}/{model}', f'{folder}/model.pdiparams', f'{folder}/model.onnx')
"""


_TENSORRT_IN_PADDLE = """
import zlib, paddle.inference
version = paddle.inference.get_trt_compile_version()
if not any(version):
    raise SystemExit("this Paddle was compiled without TensorRT")
print("TensorRT", *version)
"""


def _runtimes(blocked: str) -> list[Check]:
    probes = (
        ("paddle_tensorrt", _TENSORRT_IN_PADDLE, ""),
        ("onnxruntime", "import onnxruntime as o; print(', '.join(o.get_available_providers()))",
         "pip install 'liteseg_plugin[onnx]'"),
        ("openvino", "import openvino as o; print(', '.join(o.Core().available_devices))",
         "pip install 'liteseg_plugin[openvino]'"),
        ("tensorrt", "import tensorrt as t; print(t.__version__)",
         "needs an NVIDIA GPU; pip install 'liteseg_plugin[tensorrt]'"),
        ("ncnn", "import ncnn; print(ncnn.__version__)", "pip install 'liteseg_plugin[ncnn]'"),
    )  # fmt: skip
    found = [Check("paddle inference", not blocked, blocked or "part of the installed Paddle")]
    for name, code, way_out in probes:
        [outcome] = _probe(code)
        absent = f"No module named '{name}'" in outcome.reason
        detail = outcome.output or (f"not installed: {way_out}" if absent else outcome.reason)
        found.append(Check(name, outcome.works, detail))
    return found
