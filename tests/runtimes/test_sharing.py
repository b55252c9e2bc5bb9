"""A predictor that is shared: by threads, which take turns, and by a fork, which is refused."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from liteseg_plugin.errors import ExportError
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.inference import predictor as predictor_module
from liteseg_plugin.inference.predictor import Predictor

WITH_ONNX = find_spec("paddle2onnx") is not None
RUNTIMES = [
    "paddle",
    *(
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                not WITH_ONNX or find_spec(name) is None,
                reason=f"needs {name} and paddle2onnx, which scripts/test.sh installs",
            ),
        )
        for name in ("onnxruntime", "openvino")
    ),
]


@pytest.fixture(scope="module")
def folder(pointwise, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    opset = 13 if WITH_ONNX else None
    export_model(pointwise(), folder, transforms=[{"type": "Normalize"}], onnx_opset=opset)
    return folder


def photos():
    rng = np.random.default_rng(0)
    sizes = [(120, 160), (97, 131), (120, 160), (64, 200)]
    return [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in sizes]


@pytest.fixture
def often_switched():
    """Let threads take turns after each few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_predictor_shared_by_threads_gives_each_its_own_labels(folder, runtime, often_switched):
    images = photos() * 25
    alone = Predictor(folder, runtime, threads=1)
    expected = [alone(image) for image in images]
    shared = Predictor(folder, runtime, threads=1)
    with ThreadPoolExecutor(4) as pool:
        labels = list(pool.map(shared, images))
    wrong = [not np.array_equal(label, right) for label, right in zip(labels, expected)]
    assert sum(wrong) == 0
    assert len(shared.engine_ms) == len(images)


def test_one_thread_runs_paddle_whichever_calls(folder, monkeypatch):
    """Paddle keeps memory for each thread that ran a model."""
    predictor = Predictor(folder, "paddle", threads=1)
    compute, ran_in = predictor._engine.compute, []

    def compute_and_note():
        ran_in.append(threading.get_ident())
        compute()

    monkeypatch.setattr(predictor._engine, "compute", compute_and_note)
    callers = [threading.Thread(target=predictor, args=photos()[:1]) for _ in range(3)]
    for caller in callers:  # one after the other would get the same number
        caller.start()
    for caller in callers:
        caller.join()
    assert len(ran_in) == 3 and len(set(ran_in)) == 1
    assert ran_in[0] not in {caller.ident for caller in callers}


def test_predictor_gives_each_call_its_own_time(folder, often_switched, monkeypatch):
    predictor = Predictor(folder, threads=1)
    images = photos()
    times = {image.shape: 1.0 + number for number, image in enumerate(images)}

    def run_timed(batch):
        _, _, height, width = batch.shape
        return np.zeros((1, height, width), "int32"), times[height, width, 3] / 1000

    monkeypatch.setattr(predictor._engine, "run_timed", run_timed)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(predictor.timed, images * 200))
    for image, (label, milliseconds) in zip(images * 200, results):
        assert label.shape == image.shape[:2]
        assert milliseconds == pytest.approx(times[image.shape])


def test_predictor_remembers_a_bounded_number_of_times(folder, monkeypatch):
    monkeypatch.setattr(predictor_module, "KEPT_TIMES", 3)
    for bounded in (
        shared := Predictor(folder, threads=1),
        Predictor.from_engine(shared.exported, shared._engine),
    ):
        for image in photos() * 2:
            bounded(image)
        assert len(bounded.engine_ms) == 3


def _answer(predictor, image, sender):
    try:
        predictor(image)
    except ExportError as error:
        sender.send(str(error))
    else:
        sender.send("it ran")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_predictor_refuses_to_run_in_a_fork(folder):
    predictor = Predictor(folder, threads=2)
    [image, *_] = photos()
    label = predictor(image)
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(predictor, image, sender))
    process.start()
    try:
        assert receiver.poll(60), "the fork hangs"
        assert "create the Predictor in each worker process, or use the spawn" in receiver.recv()
    finally:
        process.kill()
        process.join()
    np.testing.assert_array_equal(predictor(image), label)


@pytest.mark.skipif(
    not WITH_ONNX or find_spec("openvino") is None,
    reason="needs openvino and paddle2onnx, which scripts/test.sh installs",
)
@pytest.mark.parametrize("known", [True, False])
def test_openvino_bounds_what_it_keeps_of_sizes(folder, monkeypatch, known):
    import openvino

    handed, compile_model = [], openvino.Core.compile_model

    def compile_and_note(core, model, device, settings):
        handed.append(settings)
        return compile_model(core, model, device, settings)

    def refuse(core, device, settings):
        raise RuntimeError(f"Unsupported property {settings}")

    monkeypatch.setattr(openvino.Core, "compile_model", compile_and_note)
    if not known:
        monkeypatch.setattr(openvino.Core, "set_property", refuse)
    Predictor(folder, "openvino")(photos()[0])
    assert [settings.get("CPU_RUNTIME_CACHE_CAPACITY") for settings in handed] == [
        200 if known else None
    ]
