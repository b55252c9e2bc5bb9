"""Each incompatibility: the failure without its repair, and that the repair mends it.

A failure is expected exactly where the entry's own probe finds one, so that a probe that is wrong
fails its test on every Paddle. Everything runs in processes of its own.
"""

from __future__ import annotations

import json
import textwrap

import pytest
import yaml

from liteseg_plugin.integration import compat

SNIPPETS = {
    "zlib-first": """
        import paddle, zlib
        zlib.decompress(zlib.compress(bytes(10000)))
    """,
    "mkl-amd": """
        import ctypes, glob, os
        folder = os.path.join(os.path.dirname(paddle.__file__), "libs")
        for path in glob.glob(folder + "/libmklml_intel.so"):
            assert ctypes.CDLL(path).mkl_serv_cpu_detect() >= 5
    """,
    "ohem-dtype": """
        from paddleseg.cvlibs import manager
        loss = manager.LOSSES["OhemCrossEntropyLoss"](min_kept=1)
        loss(paddle.zeros([1, 2, 4, 4]), paddle.zeros([1, 4, 4], dtype="int64"))
    """,
    "cross-entropy-dtype": """
        from paddleseg.cvlibs import manager
        loss = manager.LOSSES["CrossEntropyLoss"]()
        loss(paddle.zeros([1, 2, 4, 4]), paddle.zeros([1, 4, 4], dtype="int64"))
    """,
    "dice-labels": """
        from paddleseg.models import losses
        label = paddle.full([1, 2, 2], 255, dtype="int64")
        logit = paddle.zeros([1, 2, 2, 2])
        logit.stop_gradient = False
        parts = [losses.DiceLoss(), paddle.nn.CrossEntropyLoss(axis=1, ignore_index=255)]
        sum(loss(logit, label) for loss in (parts[1], *parts)).backward()
        assert label.tolist() == [[[255] * 2] * 2]
    """,
    "scalar-losses": """
        import numpy, tempfile
        from paddleseg.core import train

        class Net(paddle.nn.Layer):
            def __init__(self):
                super().__init__()
                self.conv = paddle.nn.Conv2D(3, 2, 1)

            def forward(self, x):
                return [self.conv(x)]

        class Data(paddle.io.Dataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                image = numpy.ones((3, 4, 4), "float32")
                return {"img": image, "label": numpy.zeros((4, 4), "int64")}

        net = Net()
        train(
            net, Data(), optimizer=paddle.optimizer.SGD(0.1, net.parameters()), iters=1,
            batch_size=1, log_iters=1, save_dir=tempfile.mkdtemp(),
            losses={"types": [paddle.nn.CrossEntropyLoss(axis=1)], "coef": [1]},
        )
    """,
    "calculate-area": """
        from paddleseg.utils import metrics
        label = paddle.to_tensor([[[0, 1], [2, 255]]])
        area = metrics.calculate_area(paddle.to_tensor([[[0, 2], [2, 0]]]), label, 3)
        assert [a.tolist() for a in area] == [[1, 0, 1], [1, 0, 2], [1, 1, 1]], area
    """,
    "backbone-download": """
        from paddleseg.cvlibs import Builder, manager
        url = "https://example.invalid/weights.tar.gz"
        Builder(None, [manager.BACKBONES]).build_component({"type": "STDC1", "pretrained": url})
    """,
    "deploy-yaml": """
        import os, yaml
        spec = [paddle.static.InputSpec([1, 1], "float32")]
        paddle.jit.save(paddle.jit.to_static(paddle.nn.ReLU(), spec), "model")
        with open("deploy.yaml", "w") as file:
            yaml.safe_dump({"Deploy": {"model": "model.pdmodel"}}, file)
    """,
    "inference-memory": """
        import os
        net = paddle.nn.Sequential(paddle.nn.Linear(1, 1), paddle.nn.ReLU())
        spec = [paddle.static.InputSpec([1, 1], "float32")]
        paddle.jit.save(paddle.jit.to_static(net, spec), "model")
        name = next(f for f in ("model.json", "model.pdmodel") if os.path.exists(f))
        config = paddle.inference.Config(name, "model.pdiparams")
        config.enable_memory_optim()
        paddle.inference.create_predictor(config)
    """,
}
STOCK = "import sys, zlib, paddle, paddleseg\nsys.argv[:] = ['val.py', '--model_path=x']\n"
MENDED = STOCK + "import liteseg_plugin\nliteseg_plugin.activate(sys.argv)\n"
# Loading Paddle takes seconds: one process does so, and each snippet runs in a copy of it.
IN_COPIES = """
import json, os
works = {}
for name, code in json.load(open("snippets.json")).items():
    if os.fork() == 0:
        os.mkdir(name)
        os.chdir(name)
        exec(code)
        sys.exit()
    works[name] = os.wait()[1] == 0
json.dump(works, open("works.json", "w"))
"""


@pytest.fixture(scope="session")
def works(process, made_once):
    """Tell of each entry whether its snippet works in PaddleSeg as it is, and repaired."""
    snippets = {name: textwrap.dedent(code) for name, code in SNIPPETS.items()}
    first = snippets.pop("zlib-first")

    def run(folder, preparation, first):
        folder.mkdir()
        (folder / "snippets.json").write_text(json.dumps(snippets))
        process("python", "-c", preparation + IN_COPIES, cwd=folder)
        works = json.loads((folder / "works.json").read_text())
        named = folder / "deploy-yaml" / "deploy.yaml"
        model = yaml.safe_load(named.read_text())["Deploy"]["model"]
        works["deploy-yaml"] &= named.with_name(model).exists()
        works["zlib-first"] = process("python", "-c", first, check=False).returncode == 0
        return works

    def make(folder):
        results = {
            "before": run(folder / "before", STOCK, first),
            "after": run(folder / "after", MENDED, "import liteseg_plugin\n" + first),
        }
        (folder / "works.json").write_text(json.dumps(results))

    return json.loads((made_once("compat", make) / "works.json").read_text())


def test_every_entry_has_a_snippet(doctor):
    assert {entry["name"] for entry in doctor["compat"]} == set(SNIPPETS)
    assert all(entry["active"] for entry in doctor["compat"] if entry["broken_here"])


@pytest.mark.smoke
@pytest.mark.parametrize("name", SNIPPETS)
def test_entry_fails_without_and_works_with_the_repair(works, doctor, name):
    broken_here = next(e["broken_here"] for e in doctor["compat"] if e["name"] == name)
    assert works["before"][name] != broken_here
    assert works["after"][name]


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("top_k", [1.0, 0.25])
def test_repaired_cross_entropy_is_that_of_numpy(weight, top_k):
    import numpy as np
    import paddle
    from paddleseg.models.losses import CrossEntropyLoss

    rng = np.random.default_rng(0)
    logit = rng.normal(size=(2, 3, 5, 7)).astype("float32")
    label = rng.integers(0, 3, (2, 5, 7))
    label[0, :2] = 255
    loss = CrossEntropyLoss(weight=weight, top_k_percent_pixels=top_k)
    actual = float(loss(paddle.to_tensor(logit), paddle.to_tensor(label)))

    factor = np.ones(3) if weight is None else np.array(weight)
    kept = label != 255
    true = np.where(kept, label, 0)
    log_prob = logit - np.log(np.exp(logit).sum(1, keepdims=True))
    per_pixel = -np.take_along_axis(log_prob, true[:, None], 1)[:, 0] * factor[true] * kept
    if top_k == 1.0:
        expected = per_pixel.mean() / (kept * factor[true]).mean()
    else:
        hardest = np.argsort(-per_pixel.ravel())[: int(top_k * label.size)]
        expected = per_pixel.ravel()[hardest].mean() / factor[true].ravel()[hardest].mean()
    assert actual == pytest.approx(expected, rel=1e-5)


def test_installed_numpy_and_opencv_are_the_pair_that_imports():
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.version import Version

    declared = {r.name: r for r in map(Requirement, metadata.requires("liteseg_plugin"))}
    # OpenCV 4.5.5, all that paddleseg's pin leaves, is built for NumPy 1.
    assert not declared["numpy"].specifier.contains("2.0.0")
    assert Version(metadata.version("numpy")) < Version("2")
    import cv2

    assert cv2.__version__


@pytest.mark.parametrize(
    ("vendor", "flags", "path"),
    [
        ("AuthenticAMD", "fma avx2 avx512f avx512cd avx512bw avx512dq avx512vl", "7"),
        ("AuthenticAMD", "fma avx2 avx512f", "5"),
        ("HygonGenuine", "sse4_2 fma avx2", "5"),
        ("AuthenticAMD", "avx", None),
        ("GenuineIntel", "fma avx2", None),
    ],
)
def test_path_of_mkl(tmp_path, vendor, flags, path):
    cpuinfo = tmp_path / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\n"
    cpuinfo.write_text(one * 2)
    assert compat.mkl_path(cpuinfo) == path
    assert compat.mkl_path(tmp_path / "absent") is None


def test_mkl_path_that_a_user_chose_stays(process):
    code = "import liteseg_plugin as p, os; p.activate(); print(os.environ['MKL_DEBUG_CPU_TYPE'])"
    assert process("python", "-c", code, MKL_DEBUG_CPU_TYPE="4").stdout.splitlines()[-1] == "4"
