"""Each replacement: the failure without it, and that it does what its record says.

A failure is expected exactly where the entry's own probe finds one, so that a probe that is wrong
fails its test on every Paddle. Everything runs in processes of its own.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from liteseg_plugin import __version__
from liteseg_plugin.integration import compat, table

SNIPPETS = {
    "zlib-first": """
        import paddle, zlib
        zlib.decompress(zlib.compress(bytes(10000)))
    """,
    "late-imports": """
        import sys, zlib, paddleseg
        late = {"httpx", "requests", "sklearn", "pandas", "scipy.ndimage", "scipy.optimize"}
        assert not late & set(sys.modules)
        assert "paddle.utils.cpp_extension.cpp_extension" not in sys.modules
        import numpy, paddle
        from paddle.utils import cpp_extension
        assert paddle.utils.cpp_extension.load is cpp_extension.load
        assert paddle.utils.cpp_extension.extension_utils.IS_WINDOWS is False
        from paddle.utils import download as of_paddle
        from paddleseg.utils import download
        import httpx, requests
        assert of_paddle.httpx.stream is httpx.stream
        assert download.requests.get is requests.get
        from paddleseg.models.losses import decoupledsegnet_relax_boundary_loss, maskformer_loss
        from paddleseg.transforms import functional
        from paddleseg.utils import metrics
        one = numpy.array([[0, 1], [1, 1]])
        assert functional.distance_transform_edt(one).sum() == 2 + 2**0.5
        assert decoupledsegnet_relax_boundary_loss.shift(one, (1, 0)).tolist() == [[0, 0], [0, 1]]
        assert maskformer_loss.linear_sum_assignment(one)[1].tolist() == [0, 1]
        import scipy.ndimage, scipy.optimize
        assert scipy.ndimage.shift is sys.modules["scipy.ndimage"].shift
        assert scipy.optimize.linear_sum_assignment.__module__.startswith("scipy.optimize")
        assert metrics.skmetrics.roc_auc_score([0, 1], [0.2, 0.7]) == 1
        import sklearn.metrics
        assert sklearn.metrics.roc_auc_score is metrics.skmetrics.roc_auc_score
    """,
    "mkl-amd": """
        import ctypes, glob, os
        folder = os.path.join(os.path.dirname(paddle.__file__), "libs")
        for path in glob.glob(folder + "/libmklml_intel.so"):
            assert ctypes.CDLL(path).mkl_serv_cpu_detect() >= 5
    """,
    "archives": """
        import tarfile
        from paddleseg.utils import download

        with tarfile.open("a.tar", "w") as file:
            for name, kind in (("a", tarfile.DIRTYPE), ("a/link", tarfile.SYMTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, ".."
                file.addfile(member)
        try:
            download._uncompress_file("a.tar", "to", False, False)
        except Exception as error:
            assert "link" in str(error)
        assert not os.path.lexists("to/a/link")
        os.mkdir("b")
        open("b/model.pdparams", "w").close()
        with tarfile.open("b.tar.gz", "w:gz") as file:
            file.add("b")
        assert download._uncompress_file("b.tar.gz", "to", True, False) == "b"
        assert os.listdir("to/b") == ["model.pdparams"]
        assert not os.path.exists("b.tar.gz")
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
    "short-side": """
        import numpy
        from paddleseg.transforms import ResizeByShort
        resize = ResizeByShort(8, max_size=16)
        sizes = [(8, 8), (8, 32), (8, 8)]
        data = [{"img": numpy.zeros((*size, 3), "uint8"), "trans_info": []} for size in sizes]
        assert [resize(d)["img"].shape[:2] for d in data] == [(8, 8), (4, 16), (8, 8)]
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
    "progress-bar": """
        import contextlib, io
        from paddleseg.utils import progbar
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            bar = progbar.Progbar(target=100, verbose=1)
            for step in range(100):
                bar._last_update = -1.0  # as if time had passed
                bar.update(step + 1, [])
        assert len(printed.getvalue().splitlines()) < 10
    """,
    "deploy-yaml": """
        import os, yaml
        spec = [paddle.static.InputSpec([1, 1], "float32")]
        paddle.jit.save(paddle.jit.to_static(paddle.nn.ReLU(), spec), "model")
        with open("deploy.yaml", "w") as file:
            yaml.safe_dump({"Deploy": {"model": "model.pdmodel"}}, file)
    """,
    "old-format": """
        paddle.enable_static()
        x = paddle.static.data("x", [2, 2])
        paddle.argmax(paddle.matmul(x, paddle.floor(x)), axis=1, dtype="int32")
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
# Each of these asserts what a user of PaddleSeg's unmodified scripts sees; they run in one process.
MESSAGES = {
    "config-errors": """
        says("config not found: confg.yml", lambda: Config("confg.yml"))
    """,
    "unknown-component": """
        builder = Builder(None, [manager.MODELS])
        says("mean PPLiteSeg", lambda: builder.build_component({"type": "PPLightSeg"}))
    """,
    "parameter-groups": """
        optimizer = optimizers.SGD(custom_cfg=[{"name": "bakbone", "lr_mult": 2.0}])
        says("no parameter name contains 'bakbone'", lambda: optimizer(paddle.nn.Linear(1, 1), 0.1))
    """,
    "sample-errors": """
        cv2.imwrite("image.png", numpy.zeros((4, 4, 3), "uint8"))
        cv2.imwrite("label.png", numpy.full((4, 4), 42, "uint8"))
        with open("list.txt", "w") as file:
            file.write("image.png label.png")
        for mode in ("train", "val"):
            paths = {"train_path": "list.txt", "val_path": "list.txt"}
            data = datasets.Dataset(mode, ".", [transforms.Normalize()], 2, **paths)
            says("label values out of range: 42", lambda: data[0])
        cv2.imwrite("label.png", numpy.ones((4, 4), "uint16"))
        label = datasets.Dataset("train", ".", [transforms.Normalize()], 2, **paths)[0]["label"]
        assert (paddle.to_tensor(label).astype("int64") == 1).all(), label.dtype
        with open("image.png", "w") as file:
            file.write("no image")
        compose = transforms.Compose([transforms.Normalize()])
        says("cannot read image image.png", lambda: compose({"img": "image.png"}))
    """,
    "empty-data": """
        net = paddle.nn.Conv2D(3, 2, 1)
        says("no images to evaluate on", lambda: core.evaluate(net, ListDataset([])))
    """,
    "run-record": """
        read_config()
        given = dict(iters=3, batch_size=1, save_dir="run", val_dataset=None, optimizer=None)
        raised(lambda: core.train(None, ListDataset([1]), **given))  # which is no network
        with open("run/config.yml") as file:
            assert "iters: 3" in file.read()
        with open("run/train.log") as file:
            assert file.read().splitlines()[-1].startswith("error: ")
    """,
    "weights-errors": """
        with open("model.pdparams", "wb") as file:
            pickle.dump({"weight": fractions.Fraction(1)}, file)
        net = paddle.nn.Linear(1, 1)
        says("refused to load", lambda: utils.load_entire_model(net, "model.pdparams"))
        says("refused to load", lambda: utils.load_pretrained_model(net, "model.pdparams"))
        says("give a checkpoint folder", lambda: loop.resume(net, None, "model.pdparams"))
    """,
    "missing-device": """
        utils.set_device("npu")  # as the scripts do without --device: with what there is
        sys.argv.append("--device=npu")
        says("--device npu: there is no such device", lambda: utils.set_device("npu"))
    """,
    "image-channels": """
        read_config(img_channels=1)
        cv2.imwrite("grey.png", numpy.zeros((4, 6), "uint8"))
        net = Grey()
        paddle.save(net.state_dict(), "grey.pdparams")
        operations = [transforms.Normalize([0.5], [0.5])]
        compose = transforms.Compose(operations)
        core.predict(net, "grey.pdparams", transforms=compose, image_list=["grey.png"])
        assert cv2.imread("output/pseudo_color_prediction/grey.png").shape == (4, 6, 3)
        spec = [paddle.static.InputSpec([None, 3, None, None])]
        with mock.patch("atexit.register", lambda *call: at_exit.append(call)):
            paddle.jit.save(paddle.jit.to_static(net.conv, input_spec=spec), "grey/model")
        with open("grey/deploy.yaml", "w") as file:
            shape = {"input_shape": [-1, 3, -1, -1]}
            json.dump({"Deploy": {"model": "model.json", "transforms": [], **shape}}, file)
        for call, *given in at_exit:
            call(*given)
        config = DeployConfig("grey/deploy.yaml")
        assert config.dic["Deploy"]["input_shape"] == [-1, 1, -1, -1]
        assert config.transforms({"img": "grey.png"})["img"].shape == (1, 4, 6)
    """,
    "download-errors": """
        url = "http://127.0.0.1:9/model/model.pdparams"
        says("To work offline", lambda: utils.download_pretrained_model(url))
    """,
    "loader-thread": """
        loader = paddle.io.DataLoader(Unreadable(), batch_size=1)
        thread = threading.Thread(target=lambda: raised(lambda: next(iter(loader))), daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
    """,
    "tracebacks": """
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            sys.excepthook(DataError, DataError("no image"), None)
        assert printed.getvalue() == "error: no image\\n"
    """,
}
PREPARATION = """
import contextlib, fractions, importlib, io, json, pickle, threading
from unittest import mock
import cv2, numpy
from paddleseg import core, datasets, optimizers, transforms
from paddleseg.cvlibs import Builder, Config, manager
from paddleseg.deploy.infer import DeployConfig
from paddleseg.utils import utils
from liteseg_plugin.errors import DataError

loop = importlib.import_module("paddleseg.core.train")
at_exit = []

class ListDataset(paddle.io.Dataset):
    num_classes, ignore_index = 2, 255

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

class Grey(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(1, 2, 1)

    def forward(self, x):
        return [self.conv(x)]

class Unreadable(paddle.io.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError("cannot read")

def read_config(**data):
    data, loss = {"type": "Dataset", "num_classes": 2, **data}, {"type": "CrossEntropyLoss"}
    parts = {"iters": 2, "batch_size": 1, "train_dataset": data, "val_dataset": data}
    parts.update(optimizer={"type": "SGD"}, lr_scheduler={"type": "ExponentialDecay"})
    parts.update(loss={"types": [loss], "coef": [1]}, model={"type": "FCN"})
    with open("mine.yml", "w") as file:
        json.dump(parts, file)
    return Config("mine.yml")

def raised(action):
    try:
        action()
    except Exception as error:
        return str(error)
    return ""

def says(text, action):
    said = raised(action)
    assert text in said, said
"""
STOCK = "import sys, zlib, paddle, paddleseg\nsys.argv[:] = ['val.py', '--model_path=x']\n"
MENDED = f"import liteseg_plugin\n{STOCK}liteseg_plugin.activate(sys.argv)\n"
# Loading Paddle takes seconds: one process does so, and each snippet runs in a copy of it.
IN_COPIES = """
import gc, json, os
gc.freeze()  # or each copy would spend a second to clean up at its end
works = {}
for name, code in json.load(open("snippets.json")).items():
    if (copy := os.fork()) == 0:
        os.mkdir(name)
        os.chdir(name)
        exec(code)
        sys.exit()
    works[name] = os.waitpid(copy, 0)[1] == 0  # not wait(): Paddle may have started a child too
json.dump(works, open("works.json", "w"))
"""


@pytest.fixture(scope="session")
def works(process, made_once):
    """Tell of each entry whether its snippet works in PaddleSeg as it is, and repaired."""
    snippets = {name: textwrap.dedent(code) for name, code in SNIPPETS.items()}
    zlib_first = snippets.pop("zlib-first")

    def run(folder, preparation, first=""):
        folder.mkdir()
        (folder / "snippets.json").write_text(json.dumps(snippets))
        said = process("python", "-c", preparation + IN_COPIES, cwd=folder).stdout
        works = json.loads((folder / "works.json").read_text())
        named = folder / "deploy-yaml" / "deploy.yaml"
        model = yaml.safe_load(named.read_text())["Deploy"]["model"]
        works["deploy-yaml"] &= named.with_name(model).exists()
        alone = process("python", "-c", first + zlib_first, check=False)
        works["zlib-first"] = alone.returncode == 0
        works["said"] = said.splitlines()[-1:]
        return works

    def make(folder):
        results = {
            "before": run(folder / "before", STOCK),
            "after": run(folder / "after", MENDED, "import liteseg_plugin\n"),
        }
        (folder / "works.json").write_text(json.dumps(results))

    return json.loads((made_once("compat", make) / "works.json").read_text())


def test_every_entry_has_a_snippet(doctor):
    names = [entry.name for entry in table.ENTRIES]
    assert sorted(names) == sorted([*SNIPPETS, *MESSAGES])
    assert [entry["name"] for entry in doctor["compat"]] == names
    assert all(entry["active"] for entry in doctor["compat"] if entry["broken_here"])


def test_documentation_lists_every_entry():
    page = Path(__file__).parents[2] / "docs" / "compatibility.md"
    listed = {
        title: dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|", section, re.M))
        for title, section in re.findall(
            r"^## (.*?)\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S
        )
    }
    for title, for_scripts in (
        ("For every command", False),
        ("For PaddleSeg's unmodified scripts only", True),
    ):
        entries = [entry for entry in table.ENTRIES if entry.scripts_only == for_scripts]
        replaces = {name: text.replace("`", "") for name, text in listed[title].items()}
        assert replaces == {entry.name: entry.replaces for entry in entries}


def test_commands_of_the_plugin_make_no_replacement_for_scripts(process):
    code = (
        "from liteseg_plugin.integration import registry, table; registry.repair();"
        "print(*(e.name for e in table.ENTRIES if e.scripts_only and table.is_active(e.name)))"
    )
    assert process("python", "-c", code).stdout.split() == []


@pytest.mark.parametrize("preparation", ["stock", "mended"])
def test_messages_for_scripts(process, tmp_path, preparation):
    cases = {
        name: "\n".join(line[8:] for line in code.splitlines()) for name, code in MESSAGES.items()
    }
    code = f"""
works = {{}}
for name, code in {cases!r}.items():
    try:
        exec(code, dict(globals()))
        works[name] = True
    except Exception as error:
        print(name, type(error), error, file=sys.stderr)
        works[name] = False
print(json.dumps(works), flush=True)
import os
os._exit(0)  # without waiting for Paddle's threads
"""
    start = {"stock": STOCK, "mended": MENDED}[preparation]
    result = process("python", "-c", start + PREPARATION + code, cwd=tmp_path)
    works = json.loads(result.stdout.splitlines()[-1])
    assert works == dict.fromkeys(MESSAGES, preparation == "mended"), result.stderr[-3000:]


@pytest.mark.smoke
@pytest.mark.parametrize("name", SNIPPETS)
def test_entry_fails_without_and_works_with_the_repair(works, doctor, name):
    broken_here = next(e["broken_here"] for e in doctor["compat"] if e["name"] == name)
    assert works["before"][name] != broken_here
    assert works["after"][name]


def test_old_format_fails_without_and_works_with_the_repair(process, doctor):
    code = textwrap.dedent(SNIPPETS["old-format"])
    asked = {"check": False, "FLAGS_enable_pir_api": "0"}
    before, after = (process("python", "-c", start + code, **asked) for start in (STOCK, MENDED))
    is_new = "generated_tensor_methods_patch" in before.text  # from Paddle 3.3 on
    assert (before.returncode != 0) == is_new
    assert after.returncode == 0, after.text
    assert ("old-format" in after.text) == is_new


def test_log_of_a_script_ends_with_what_was_active(works):
    [line] = works["after"]["said"]
    assert f"{__version__} was active: PPLiteSeg is liteseg_plugin.models.pp_liteseg." in line
    assert "calculate-area" in line
    assert "was active" not in "".join(works["before"]["said"])


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
