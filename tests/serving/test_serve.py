"""`liteseg serve`, driven by Triton's client."""

# ruff: noqa: E402 - what needs the extra is imported after the check for it

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
from PIL import Image

from liteseg_plugin.datasets.base import ClassInfo
from liteseg_plugin.export.writer import export_model
from liteseg_plugin.exported import ExportedModel
from liteseg_plugin.inference.predictor import Predictor
from liteseg_plugin.inference.segmentation import Segmentation

EXTRA = "the extra serve is not installed"
pytest.importorskip("uvicorn", reason=EXTRA)
pytest.importorskip("prometheus_client", reason=EXTRA)
pytest.importorskip("grpc", reason=EXTRA)
grpc_client = pytest.importorskip("tritonclient.grpc", reason=EXTRA)
pytest.importorskip("geventhttpclient", reason="tritonclient[http] is not installed")
http_client = pytest.importorskip("tritonclient.http")

from liteseg_plugin.serving import service
from liteseg_plugin.serving.model import ServedModel
from liteseg_plugin.serving.server import Server
from liteseg_plugin.serving.service import Limits, Service

PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8), (0, 0), 3
)
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()
CLASSES = [ClassInfo(f"class {n}", (40 * n, 200 - 40 * n, 90)) for n in range(5)]
TRANSFORMS = [{"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}]


@pytest.fixture(scope="module")
def exports(pointwise, tmp_path_factory):
    """Folders of three exports: labels, probabilities, and labels of two images of 24x32."""
    folder = tmp_path_factory.mktemp("exports")
    more = {
        "street": {},
        "soft": {"output_op": "softmax"},
        "pair": {"input_shape": [2, 3, 24, 32]},
    }
    for name, options in more.items():
        export_model(pointwise(), folder / name, transforms=TRANSFORMS, classes=CLASSES, **options)
    return folder


@pytest.fixture(scope="module")
def predictor(exports):
    return Predictor(exports / "street", "paddle", "cpu", 1)


@pytest.fixture(scope="module")
def served(exports):
    """The three models."""
    return [
        ServedModel(ExportedModel.read(exports / name), "paddle", "cpu", 1, "fp32", 1)
        for name in ("street", "soft", "pair")
    ]


@contextlib.contextmanager
def running(models, limits, token=None, engines=1):
    """Run a server in a thread."""
    server = Server(Service(models, engines, limits, token), "127.0.0.1", 0, 0)
    started = threading.Event()
    thread = threading.Thread(target=server.run, args=(started.set,))
    thread.start()
    assert started.wait(30)
    address = f"127.0.0.1:{server.http_port}"
    try:
        yield SimpleNamespace(
            service=server._service,
            http=address,
            url=f"http://{address}",
            grpc=f"127.0.0.1:{server.grpc_port}",
            end=server.end,
            thread=thread,
        )
    finally:
        server.end()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(served):
    with running(served, Limits(body=1 << 20, seconds=30)) as server:
        yield server


class Held:
    """A model whose engine waits for `go`, and that notes its batches."""

    def __init__(self, model):
        self._model, self.go, self.started = model, threading.Event(), threading.Event()
        self.shapes = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def run(self, engine, batch):
        self.shapes.append(batch.shape)
        self.started.set()
        assert self.go.wait(30)
        return self._model.run(0, batch)


def clients(server):
    """Return Triton's clients and their modules."""
    return (
        (http_client, http_client.InferenceServerClient(server.http, network_timeout=30)),
        (grpc_client, grpc_client.InferenceServerClient(server.grpc)),
    )


def filled(module, x, **options):
    tensor = module.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x, **options)
    return [tensor]


def infer(server, x, model="street"):
    """Ask for an output over gRPC."""
    with grpc_client.InferenceServerClient(server.grpc) as client:
        return client.infer(model, filled(grpc_client, x)).as_numpy("labels")


def test_tritonclient_gets_the_predictors_labels_to_the_bit(server, predictor):
    x, wanted = predictor.preprocess(PICTURE), predictor(PICTURE)
    assert len(np.unique(wanted)) > 1
    for module, client in clients(server):
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("street") and client.is_model_ready("street", "1")
        for options in [{}, {"binary_data": False}] if "http" in module.__name__ else [{}]:
            asked = [module.InferRequestedOutput("labels", **options)]
            for outputs in (None, asked):
                result = client.infer(
                    "street", filled(module, x, **options), outputs=outputs, request_id="7"
                )
                labels = result.as_numpy("labels")
                assert labels.dtype == np.int32 and np.array_equal(labels[0], wanted)
        client.close()


def test_metadata_names_inputs_and_outputs(server):
    (_, http), (_, grpc) = clients(server)
    expected = {
        "street": ("labels", "INT32", [-1, 3, -1, -1], [-1, -1, -1]),
        "soft": ("probabilities", "FP32", [-1, 3, -1, -1], [-1, 5, -1, -1]),
        "pair": ("labels", "INT32", [-1, 3, 24, 32], [-1, 24, 32]),
    }
    for name, (output, datatype, taken, given) in expected.items():
        assert http.get_model_metadata(name) == {
            "name": name,
            "versions": ["1"],
            "platform": "paddle",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": taken}],
            "outputs": [{"name": output, "datatype": datatype, "shape": given}],
        }
        described = grpc.get_model_metadata(name)
        assert list(described.inputs[0].shape) == taken and described.outputs[0].name == output
    assert http.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert grpc.get_server_metadata().name == "liteseg"


def test_scores_are_those_of_the_predictor(server, exports):
    predictor = Predictor(exports / "soft", "paddle", "cpu", 1)
    x = np.concatenate([predictor.preprocess(image) for image in (PICTURE, PICTURE[::-1])])
    (_, http), _ = clients(server)
    scores = http.infer("soft", filled(http_client, x)).as_numpy("probabilities")
    assert np.array_equal(scores, predictor.run(x))


def test_batch_of_fixed_size_is_filled(server, exports):
    image = PICTURE[:24, :32]
    predictor = Predictor(exports / "pair", "paddle", "cpu", 1)
    x = predictor.preprocess(image)
    assert np.array_equal(infer(server, x, "pair")[0], predictor(image))
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.* the export takes 2x3x24x32"):
        infer(server, np.concatenate([x] * 3), "pair")


@pytest.mark.parametrize("sent", ["body", "form"])
def test_image_file_is_answered_by_labels_overlay_or_polygons(server, predictor, sent):
    send = {"data": PNG} if sent == "body" else {"files": {"file": ("street.png", PNG)}}
    answers = {
        answer: requests.post(
            f"{server.url}/v2/models/street/segment", params={"answer": answer}, timeout=30, **send
        )
        for answer in ("labels", "overlay", "polygons")
    }
    assert {reply.status_code for reply in answers.values()} == {200}
    expected = Segmentation(PICTURE, predictor(PICTURE), CLASSES)
    with Image.open(io.BytesIO(answers["labels"].content)) as labels:
        assert labels.mode == "P" and np.array_equal(np.asarray(labels), expected.labels)
    overlay = cv2.imdecode(np.frombuffer(answers["overlay"].content, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(overlay, expected.overlay())
    polygons = answers["polygons"].json()
    assert (polygons["width"], polygons["height"]) == (60, 40)
    assert polygons["polygons"] == [outline.to_json() for outline in expected.polygons()]


def tensor(**changes):
    return {"name": "x", "shape": [1, 3, 1, 1], "datatype": "FP32", "data": [1, 2, 3], **changes}


BAD_TENSORS = {
    "not of the input": {"name": "y"},
    "another type": {"datatype": "FP64"},
    "a shape of text": {"shape": "1311"},
    "a negative shape": {"shape": [1, 3, -1, -1]},
    "a huge shape": {"shape": [1, 3, 10**30, 1]},
    "two channels": {"shape": [1, 2, 1, 1], "data": [1, 2]},
    "too few numbers": {"data": [1, 2]},
    "ragged numbers": {"data": [[1, 2], [3]]},
    "text": {"data": ["1", "2", "3"]},
    "no data": {"data": None},
    "numbers without end": {"data": [1, 2, 10**400]},
    "the size of data that are not there": {"parameters": {"binary_data_size": 12}},
    "shared memory": {"parameters": {"shared_memory_region": "/dev/shm/x"}},
    "a location": {"data": "file:///etc/passwd"},
}


def test_bad_requests_are_answered_by_their_status_and_disturb_nobody(server, predictor):
    def post(path, **options):
        return requests.post(f"{server.url}/v2/models/{path}", timeout=30, **options)

    big = json.dumps({"inputs": [tensor(shape=[1, 3, 5000, 5000])]})
    rows = [({"json": {"inputs": [tensor(**changes)]}}, 400) for changes in BAD_TENSORS.values()]
    rows += [
        ({"data": b""}, 400),
        ({"data": b"\xff\xfe"}, 400),
        ({"data": b"[" * 100_000}, 400),
        ({"json": []}, 400),
        ({"json": {"inputs": [tensor(), tensor()]}}, 400),
        ({"json": {"inputs": [tensor()], "outputs": [{"name": "other"}]}}, 400),
        ({"json": {"inputs": [tensor()]}, "headers": {"Content-Encoding": "gzip"}}, 415),
        ({"data": b"{}", "headers": {"Inference-Header-Content-Length": "99"}}, 400),
        ({"data": b"{}", "headers": {"Inference-Header-Content-Length": "-1"}}, 400),
        ({"data": big}, 413),
        ({"data": bytes((1 << 20) + 1)}, 413),
        ({"data": iter([bytes(1 << 19)] * 3)}, 413),  # of unknown length
    ]
    for options, status in rows:
        reply = post("street/infer", **options)
        assert reply.status_code == status and reply.json()["error"], (options, reply.text)
    form = {"data": {"file": "http://127.0.0.1:9/a.png"}, "files": {"a": PNG, "b": PNG}}
    for options, status in [
        ({"data": PNG[:300]}, 400),
        ({"data": b"http://127.0.0.1:9/street.png"}, 400),
        ({"data": cv2.imencode(".png", np.zeros((1, 9000, 3), np.uint8))[1].tobytes()}, 413),
        ({"data": PNG, "params": {"answer": "all"}}, 400),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        (form, 400),
    ]:
        reply = post("street/segment", **options)
        assert reply.status_code == status and reply.json()["error"], (options, reply.text)
    for path in ("none/infer", "street/versions/2/infer", "..%2fstreet/infer"):
        assert post(path, json={"inputs": [tensor()]}).status_code == 404
    assert np.array_equal(infer(server, predictor.preprocess(PICTURE))[0], predictor(PICTURE))


def test_outlines_of_noise_are_refused(server, monkeypatch):
    monkeypatch.setattr(service, "MAX_CHANGES", 3)
    url = f"{server.url}/v2/models/street/segment?answer=polygons"
    reply = requests.post(url, data=PNG, timeout=30)
    assert reply.status_code == 413 and "at most 3 for polygons" in reply.json()["error"]


def test_bad_calls_have_the_codes_of_grpc(server):
    def call(x, model="street", **options):
        with grpc_client.InferenceServerClient(server.grpc) as client:
            client.infer(model, filled(grpc_client, x), **options)

    x = np.zeros((1, 3, 2, 2), np.float32)
    other = [grpc_client.InferRequestedOutput("other")]
    for arguments, code in [
        ((x, "none"), "NOT_FOUND"),
        ((np.zeros((1, 2, 2, 2), np.float32),), "INVALID_ARGUMENT"),
        ((np.zeros((3, 2, 2), np.float32),), "INVALID_ARGUMENT"),
        ((np.zeros((1, 3, 400, 400), np.float32),), "RESOURCE_EXHAUSTED"),
    ]:
        with pytest.raises(Exception, match=code):
            call(*arguments)
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.* the output is labels"):
        call(x, outputs=other)
    call(x)


def test_requests_of_one_size_that_wait_run_together(served, predictor):
    held = Held(served[0])
    images = [PICTURE, PICTURE[::-1].copy(), PICTURE[:, ::-1].copy(), PICTURE // 2]
    images += [PICTURE[:20], PICTURE[:20] // 2]
    with running([held], Limits()) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(infer, server, predictor.preprocess(PICTURE))
        assert held.started.wait(30)
        answers = []
        for number, image in enumerate(images, start=1):  # while the engine is busy
            answers.append(pool.submit(infer, server, predictor.preprocess(image)))
            wait_until(lambda wanted=number: server.service._batcher.waiting() == wanted)
        held.go.set()
        labels = [answer.result(30)[0] for answer in answers]  # before Paddle runs here, too
        for image, label in zip(images, labels):
            assert np.array_equal(label, predictor(image))
        assert np.array_equal(first.result(30)[0], predictor(PICTURE))
        text = requests.get(f"{server.url}/metrics", timeout=30).text
    assert held.shapes == [(1, 3, 40, 60), (4, 3, 40, 60), (2, 3, 20, 60)]
    assert 'liteseg_images_total{model="street"} 7.0' in text
    assert 'liteseg_requests_total{model="street",protocol="grpc",status="200"} 7.0' in text


def test_engines_run_side_by_side(served, predictor):
    held = Held(served[0])
    images = [PICTURE, PICTURE[:20], PICTURE[:30]]
    with running([held], Limits(), engines=2) as server, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(infer, server, predictor.preprocess(image)) for image in images]
        wait_until(lambda: len(held.shapes) == 2 and server.service._batcher.waiting() == 1)
        held.go.set()
        labels = [answer.result(30)[0] for answer in answers]  # before Paddle runs here, too
        for image, label in zip(images, labels):
            assert np.array_equal(label, predictor(image))


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_full_server_refuses_and_late_answers_are_errors(served, predictor):
    held = Held(served[0])
    path = "/v2/models/street/segment"
    with running([held], Limits(requests=2, seconds=2)) as server, ThreadPoolExecutor(4) as pool:
        late = [
            pool.submit(requests.post, server.url + path, data=PNG, timeout=30) for _ in range(2)
        ]
        wait_until(lambda: server.service.held == 2)
        full = requests.post(server.url + path, data=PNG, timeout=30)
        assert full.status_code == 503 and int(full.headers["Retry-After"]) > 0
        with pytest.raises(Exception, match=r"UNAVAILABLE.* holds 2 requests already"):
            infer(server, predictor.preprocess(PICTURE))
        assert {answer.result(30).status_code for answer in late} == {504}
        with (
            grpc_client.InferenceServerClient(server.grpc) as client,
            pytest.raises(Exception, match="DEADLINE_EXCEEDED"),
        ):
            x = predictor.preprocess(PICTURE)
            client.infer("street", filled(grpc_client, x), client_timeout=0.2)
        wait_until(lambda: server.service.held == 0)
        held.go.set()
        assert requests.post(server.url + path, data=PNG, timeout=30).status_code == 200
        with socket.create_connection(server.http.split(":"), timeout=30) as slow:
            slow.sendall(
                b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1" % path.encode()
            )
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    assert len(held.shapes) == 2  # what nobody waits for any more did not run


def test_token_is_required_but_for_probes(served):
    x = np.zeros((1, 3, 2, 2), np.float32)
    with running(served[:1], Limits(), token="secret") as server:
        for path, status in [
            ("/v2/health/live", 200),
            ("/v2/health/ready", 200),
            ("/v2", 401),
            ("/metrics", 401),
            ("/v2/models/street", 401),
        ]:
            assert requests.get(server.url + path, timeout=30).status_code == status, path
        for value, status in [("Bearer secret", 200), ("Bearer secre", 401), ("secret", 401)]:
            header = {"Authorization": value}
            reply = requests.get(f"{server.url}/v2", headers=header, timeout=30)
            assert reply.status_code == status
        with grpc_client.InferenceServerClient(server.grpc) as client:
            assert client.is_server_ready()
            with pytest.raises(Exception, match="UNAUTHENTICATED"):
                client.infer("street", filled(grpc_client, x))
            header = {"authorization": "Bearer secret"}
            client.infer("street", filled(grpc_client, x), headers=header)


def test_ending_server_answers_what_is_in_flight(served, predictor):
    held = Held(served[0])
    with running([held], Limits()) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(infer, server, predictor.preprocess(PICTURE))
        assert held.started.wait(30)
        server.end()
        wait_until(lambda: server.service.draining)
        assert requests.get(f"{server.url}/v2/health/ready", timeout=30).status_code == 503
        assert requests.get(f"{server.url}/v2/health/live", timeout=30).status_code == 200
        refused = requests.post(f"{server.url}/v2/models/street/segment", data=PNG, timeout=30)
        assert refused.status_code == 503
        held.go.set()
        assert np.array_equal(answer.result(30)[0], predictor(PICTURE))
        server.thread.join(30)
        assert not server.thread.is_alive()


def test_client_of_the_docs_gets_the_label_map(server, predictor, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "street.png").write_bytes(PNG)
    (tmp_path / "client.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["", server.http, "street", "street.png", "labels.png"])
    runpy.run_path("client.py")
    labels = cv2.imread("labels.png", cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, predictor(PICTURE))


def test_command_serves_several_models_until_sigterm(exports, predictor):
    command = [
        sys.executable,
        "-m",
        "liteseg_plugin",
        "serve",
        exports / "street",
        exports / "soft",
    ]
    command += ["--runtime", "paddle", "--device", "cpu", "--http_port", "0", "--grpc_port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while "ends." not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            assert "Models: street (paddle), soft (paddle); fp32" in said
            assert "Open to this machine only, without a token." in said
            port = re.search(r"HTTP port (\d+)", said)[1]
            url = f"http://127.0.0.1:{port}/v2/models/street/segment"
            reply = requests.post(url, data=PNG, timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    with Image.open(io.BytesIO(reply.content)) as labels:
        assert np.array_equal(np.asarray(labels), predictor(PICTURE))


def test_serve_says_what_is_wrong_with_its_arguments(exports, fails, tmp_path, monkeypatch):
    street = exports / "street"
    assert "have one name" in fails("serve", street, street)
    token = tmp_path / "token"
    token.write_text("\n")
    assert "must hold a token" in fails("serve", street, "--token_file", token)
    assert "--http_port" in fails("serve", street, "--device", "cpu", "--http_port", 70000)
    two = fails("serve", street, "--runtime", "paddle", "--device", "cpu", "--engines", 2)
    assert "Paddle runs one engine, not 2" in two
    assert "--engines must be at least 1" in fails("serve", street, "--engines", 0)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "uvicorn is not installed: pip install 'liteseg_plugin[serve]'" in fails("serve", street)
