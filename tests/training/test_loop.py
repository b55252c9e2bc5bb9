"""Our loop against PaddleSeg's, in one process: the same losses, learning rates and weights."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import signal
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle.distributed import fleet
from paddleseg.cvlibs import Config, SegBuilder
from paddleseg.utils import utils

from liteseg_plugin.errors import DataError, TrainingError
from liteseg_plugin.training import checkpoint, trainer
from liteseg_plugin.training.settings import Settings
from liteseg_plugin.training.signals import Interrupted
from liteseg_plugin.weights import read_state_dict


@pytest.fixture(scope="module")
def config(toy, tmp_path_factory):
    """Eight small images in batches of three: an epoch has two batches and leaves two images."""
    return toy.config(
        tmp_path_factory.mktemp("loop"),
        batch_size=3,
        train_dataset__transforms=[
            {"type": "RandomPaddingCrop", "crop_size": [64, 64]},
            {"type": "RandomHorizontalFlip"},
            {"type": "RandomDistort", "brightness_range": 0.5, "brightness_prob": 0.5},
            {"type": "Normalize"},
        ],
    )


@pytest.fixture(scope="module")
def train(config):
    """Train with one of the two loops; return what each step was and the trained weights."""

    def train(which, save_dir, iters=5, evaluate=False, optimizer=None, **options):
        builder = SegBuilder(Config(str(config)))
        builder.config.dic["iters"] = iters
        if optimizer:
            builder.config.dic["optimizer"] = optimizer
        utils.set_seed(7)
        model = builder.model
        parts = (model, builder.train_dataset)
        common = {"iters": iters, "batch_size": 3, "log_iters": 1, "save_dir": str(save_dir)}
        common.update(options)
        if which == "paddleseg":
            import_module("paddleseg.core").train(
                *parts,
                val_dataset=builder.val_dataset if evaluate else None,
                optimizer=builder.optimizer,
                losses=builder.loss,
                **common,
            )
        else:
            trainer.train(
                model,
                builder.optimizer,
                builder.loss,
                parts[1],
                Settings(**common),
                builder.val_dataset if evaluate else None,
            )
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    return train


def steps(text: str) -> list[str]:
    return re.findall(r"\[TRAIN\] (epoch.*?), batch_cost", text)


def evaluations(text: str) -> list[str]:
    return re.findall(r"\[EVAL\] #.*|The .*saved at iter \d+", text)


def tree(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".pdparams", ".pdopt")
    }


@pytest.fixture
def losses_with_a_dimension(monkeypatch):
    """Let PaddleSeg's loop log losses on this Paddle; its scripts get that from the plugin."""
    loop = import_module("paddleseg.core.train")
    computation = loop.loss_computation
    monkeypatch.setattr(
        loop, "loss_computation", lambda *a, **kw: [x.reshape([1]) for x in computation(*a, **kw)]
    )


@pytest.mark.usefixtures("losses_with_a_dimension")
def test_steps_are_those_of_paddleseg_bit_for_bit(train, tmp_path, capfd):
    said, weights = {}, {}
    for which in ("paddleseg", "ours"):
        weights[which] = train(
            which, tmp_path / which, evaluate=True, use_ema=True, save_interval=3
        )
        said[which] = capfd.readouterr().out
    assert len(steps(said["ours"])) == 5
    assert steps(said["ours"]) == steps(said["paddleseg"])
    assert len(evaluations(said["ours"])) == 8
    assert evaluations(said["ours"]) == evaluations(said["paddleseg"])
    for name, value in weights["ours"].items():  # counting operators adds some to PaddleSeg's
        np.testing.assert_array_equal(weights["paddleseg"][name], value, err_msg=name)
    assert tree(tmp_path / "ours") == tree(tmp_path / "paddleseg")
    for name in ("iter_5/model.pdparams", "iter_5/model.pdopt", "iter_5/ema_model.pdparams"):
        ours, theirs = (paddle.load(str(tmp_path / w / name)) for w in ("ours", "paddleseg"))
        theirs = [v for v in theirs.values() if isinstance(v, paddle.Tensor)]
        ours = [v for v in ours.values() if isinstance(v, paddle.Tensor)]
        assert len(ours) == len(theirs) > 100
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(ours, theirs))

    # A checkpoint of PaddleSeg's own loop, from the middle of an epoch.
    train(
        "ours", tmp_path / "resumed", resume_model=tmp_path / "paddleseg" / "iter_3", use_ema=True
    )
    said = capfd.readouterr().out
    assert [step.split(", loss")[0] for step in steps(said)] == [
        "epoch: 2, iter: 4/5",
        "epoch: 3, iter: 5/5",
    ]
    assert "iter_3: random state; best mIoU; loss scale of fp16" in said


@pytest.mark.slow
def test_steps_are_those_of_paddleseg_in_two_processes(process, config, tmp_path):
    script = Path(__file__).parents[1] / "data" / "both_loops.py"
    process(
        *("python", "-m", "paddle.distributed.launch", "--nproc_per_node", 2),
        *("--log_dir", tmp_path / "log", script, config, tmp_path / "out"),
    )
    logs = [(tmp_path / "log" / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    assert all("arrays are equal" in log for log in logs)
    lines = steps(logs[0])
    assert len(lines) == 6
    assert lines[:3] == lines[3:]


class Pixels(paddle.io.Dataset):
    """Eight images of 4x4 pixels; brightness is drawn at random, the class is the row's."""

    num_classes, ignore_index = 2, 255
    file_list = [(f"image_{i}.png", f"label_{i}.png") for i in range(8)]  # noqa: RUF012
    poisoned = None

    def __len__(self):
        return len(self.file_list)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.normal(size=(3, 4, 4)) + np.random.normal()
        if index == self.poisoned:
            image[0, 0, 0] = np.inf
        label = np.arange(16, dtype="int64").reshape(4, 4) // 8
        return {"img": image.astype("float32"), "label": label, "trans_info": []}


class Net(paddle.nn.Layer):
    """One output, as networks of PaddleSeg give it: a list of logits."""

    def __init__(self, with_norm=True):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 2, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(2) if with_norm else paddle.nn.Identity()

    def forward(self, x):
        return [self.norm(self.conv(x))]


@pytest.fixture
def small(tmp_path):
    """Train the small network; scores are what successive evaluations shall give."""

    def run(
        save_dir=tmp_path / "out",
        data=None,
        scores=None,
        seed=3,
        rate=0.1,
        net=None,
        evaluated=None,
        **options,
    ):
        utils.set_seed(seed)
        net = net or Net()
        schedule = rate if callable(rate) else paddle.optimizer.lr.PolynomialDecay(rate, 100)
        options = {"iters": 4, "batch_size": 2, "save_interval": 2, "log_iters": 1, **options}
        resume = checkpoint.prepare(Path(save_dir), options.pop("resume_model", None))
        clip = paddle.nn.ClipGradByGlobalNorm(1.0)
        optimizer = paddle.optimizer.Momentum(schedule, 0.9, net.parameters(), grad_clip=clip)
        patch = pytest.MonkeyPatch()
        if scores is not None:
            given = iter(scores)

            def evaluate(model, *args, **kw):
                if evaluated is not None:
                    evaluated.append(model.conv.weight.numpy())
                return next(given), 0.5, None, None, None

            patch.setattr(import_module("paddleseg.core"), "evaluate", evaluate)
        try:
            trainer.train(
                net,
                optimizer,
                {"types": [paddle.nn.CrossEntropyLoss(axis=1)], "coef": [1]},
                data or Pixels(),
                Settings(save_dir=str(save_dir), resume_model=resume, **options),
                None if scores is None else Pixels(),
            )
        finally:
            patch.undo()
        return net

    run.out = tmp_path / "out"
    return run


def weights(net):
    return np.concatenate([tensor.numpy().ravel() for tensor in net.state_dict().values()])


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact_in_the_middle_of_an_epoch(small, same_arrays, capfd, tmp_path, workers):
    """Four steps an epoch; the log averages three, so that its window is cut too."""
    flags = {"save_interval": 5, "log_iters": 3, "num_workers": workers, "use_ema": True}
    whole = small(tmp_path / "whole", iters=9, **flags)
    expected = steps(capfd.readouterr().out)
    shutil.copytree(tmp_path / "whole" / "iter_5", small.out / "iter_5")
    resumed = small(iters=9, resume_model="auto", seed=99, **flags)
    assert steps(capfd.readouterr().out) == expected[1:]
    assert len(expected) == 3
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    for name in ("model.pdparams", "ema_model.pdparams", "training.json"):
        ours, theirs = (folder / "iter_9" / name for folder in (small.out, tmp_path / "whole"))
        if name.endswith("json"):
            assert ours.read_text() == theirs.read_text()
        else:
            assert same_arrays(ours, theirs)


def test_augmentation_differs_between_epochs_samples_and_seeds_in_workers(small):
    from liteseg_plugin.training.batches import Batches

    def read(seed, start, count=8):
        stream = Batches(Pixels(), 1, 2, seed).start(start)
        with contextlib.closing(stream):
            return {b.files[0]: b.data["img"].numpy() for b, _ in zip(stream, range(count))}

    first, second, other = read(1, 0), read(1, 8), read(2, 0)
    assert len(first) == len(second) == 8
    shift = {name: float((first[name] - first["image_0.png"]).mean()) for name in first}
    assert len(set(shift.values())) == 8
    assert all((first[name] != second[name]).all() for name in first)
    assert all((first[name] != other[name]).all() for name in first)
    late = read(1, 5, 3)
    assert len(late) == 3
    assert all((late[name] == first[name]).all() for name in late)


def test_best_model_is_never_replaced_by_a_worse_one(small):
    small(scores=[0.4, 0.6], iters=4)
    best = small.out / "best_model" / "model.pdparams"
    kept = best.read_bytes()
    assert checkpoint.read_best(best.parent) == (0.6, 4)
    small(scores=[0.5, 0.55], iters=8, resume_model="auto")
    assert best.read_bytes() == kept
    small(scores=[0.7], iters=10, resume_model="auto")
    assert checkpoint.read_best(best.parent) == (0.7, 10)
    assert best.read_bytes() != kept
    # From before the best one, too.
    small(scores=[0.65], iters=4, resume_model=str(small.out / "iter_2"))
    assert checkpoint.read_best(best.parent) == (0.7, 10)


def test_best_model_of_paddleseg_is_evaluated_first(small, capfd):
    """Its loop notes nowhere how good it is, and its next evaluation would replace it."""
    small(scores=[0.4, 0.3])
    for path in (*small.out.glob("*/training.json"), small.out / "best_model" / "best.json"):
        path.unlink()
    shutil.rmtree(small.out / "iter_4")
    best = small.out / "best_model" / "model.pdparams"
    kept, evaluated = best.read_bytes(), []
    expected = paddle.load(str(best))["conv.weight"].numpy()
    small(scores=[0.4, 0.35], resume_model="auto", evaluated=evaluated)
    said = capfd.readouterr().out
    np.testing.assert_array_equal(evaluated[0], expected)
    assert "random state; best mIoU; loss scale of fp16" in said
    assert "Resumed from" in said
    assert best.read_bytes() == kept
    assert len(evaluated) == 2


def test_early_stop_counts_across_a_resume(small, capfd):
    small(scores=[0.5, 0.4], early_stop_intervals=2)
    small(scores=[0.5, 0.4, 0.9], early_stop_intervals=2, iters=20, resume_model="auto")
    said = capfd.readouterr().out
    assert "Early stopping at iter 8. The best mean IoU is 0.5000." in said
    assert "iter: 9/20" not in said


def test_loss_that_is_no_number_stops_and_names_the_images(small):
    data = Pixels()
    data.poisoned = 3
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at iteration (\d)") as caught:
        small(data=data, save_interval=1, keep_checkpoint_max=0)
    iteration = int(re.search(r"iteration (\d)", str(caught.value))[1])
    listed = json.loads((small.out / f"nan_iter_{iteration}.json").read_text())
    assert "image_3.png" in listed["files"]
    assert len(listed["files"]) == 2
    assert "image_3.png" in str(caught.value)
    saved = checkpoint.list_checkpoints(small.out)
    assert [path.name for path in saved] == [f"iter_{i}" for i in range(1, iteration)]
    for path in saved:
        arrays = read_state_dict(path / "model.pdparams").values()
        assert all(np.isfinite(array).all() for array in arrays)


def test_weights_that_are_no_numbers_are_not_saved(small):
    """A gradient may be NaN where the loss is not."""
    net = Net()
    net.conv.weight.register_hook(lambda gradient: gradient * np.nan)
    with pytest.raises(TrainingError, match=r"weights are not finite at iteration 1, on image_"):
        small(net=net, save_interval=1)
    assert {path.name for path in small.out.iterdir()} == {"nan_iter_1.json", "metrics.csv"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_at_the_end_of_the_iteration(small, number):
    before = signal.getsignal(number)
    calls = []

    def raise_signal(net, inputs):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(number)

    net = Net()
    net.register_forward_pre_hook(raise_signal)
    with pytest.raises(Interrupted) as caught:
        small(net=net, iters=8, save_interval=8)
    assert caught.value.checkpoint == small.out / "iter_3"
    assert (small.out / "iter_3" / "training.json").is_file()
    assert len(calls) == 3
    assert signal.getsignal(number) == before


def test_second_interrupt_does_not_wait(small):
    def raise_twice(net, inputs):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    net = Net()
    net.register_forward_pre_hook(raise_twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        small(net=net)
    assert not isinstance(caught.value, Interrupted)
    assert checkpoint.list_checkpoints(small.out) == []


def test_accumulated_steps_equal_those_of_the_whole_batch(small, capfd, tmp_path):
    """Without batch norm, whose statistics are those of the smaller batches."""
    whole = small(tmp_path / "whole", net=_seeded(Net(with_norm=False)), batch_size=4, iters=5)
    expected = steps(capfd.readouterr().out)
    parts = small(
        net=_seeded(Net(with_norm=False)), batch_size=2, gradient_accumulation_steps=2, iters=5
    )
    seen = steps(capfd.readouterr().out)
    assert [line.split(",")[0][-1] for line in seen] == ["1", "1", "2", "2", "3"]
    assert seen == expected
    np.testing.assert_allclose(weights(parts), weights(whole), rtol=1e-5, atol=1e-7)


def _seeded(net):
    rng = np.random.default_rng(0)
    net.set_state_dict(
        {k: rng.normal(size=v.shape).astype("float32") for k, v in net.state_dict().items()}
    )
    return net


def test_gradients_are_exchanged_once_a_step(small, monkeypatch):
    """Between processes, with the last of the passes that a step accumulates."""
    alone = []

    class Distributed(paddle.nn.Layer):
        """Notes which passes keep their gradients to themselves."""

        def __init__(self, net):
            super().__init__()
            self.net, self.is_alone = net, False

        def forward(self, x):
            alone.append(self.is_alone)
            return self.net(x)

        @contextlib.contextmanager
        def no_sync(self):
            self.is_alone = True
            yield
            self.is_alone = False

    environment = SimpleNamespace(nranks=2, world_size=2, local_rank=0, rank=0)
    monkeypatch.setattr(paddle.distributed, "ParallelEnv", lambda: environment)
    monkeypatch.setattr(
        paddle.distributed, "all_gather_object", lambda values, value: values.extend([value] * 2)
    )
    monkeypatch.setattr(fleet, "init", lambda **kw: None)
    monkeypatch.setattr(fleet, "distributed_optimizer", lambda optimizer: optimizer)
    monkeypatch.setattr(fleet, "distributed_model", Distributed)
    small(iters=2, gradient_accumulation_steps=3)
    assert alone == [True, True, False] * 2


def test_resume_between_accumulated_epochs_is_exact(small, tmp_path):
    """Three passes a step, four batches an epoch: steps straddle epochs."""
    flags = {"gradient_accumulation_steps": 3, "iters": 5}
    whole = small(tmp_path / "whole", **flags)
    shutil.copytree(tmp_path / "whole" / "iter_2", small.out / "iter_2")
    np.testing.assert_array_equal(weights(small(resume_model="auto", **flags)), weights(whole))


def test_plateau_schedule_is_stepped_with_the_loss_and_resumed(small, capfd, tmp_path):
    def schedule():
        return paddle.optimizer.lr.ReduceOnPlateau(0.5, patience=0, threshold=0.5, factor=0.5)

    whole = small(tmp_path / "whole", rate=schedule(), iters=6)
    rates = {line.split("lr: ")[1] for line in steps(capfd.readouterr().out)}
    assert len(rates) > 2
    shutil.copytree(tmp_path / "whole" / "iter_4", small.out / "iter_4")
    resumed = small(rate=schedule(), iters=6, resume_model="auto")
    np.testing.assert_array_equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_that_the_device_lacks_is_refused(small, precision):
    with pytest.raises(TrainingError, match=f"--precision {precision} does not work on cpu; use"):
        small(precision=precision)


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.filterwarnings("ignore")
def test_low_precision_takes_the_arguments_of_paddle(small, precision, level, monkeypatch):
    """As far as a CPU goes: Paddle computes in float32 there, but takes the same calls."""
    monkeypatch.setattr(trainer, "check_precision", lambda precision: None)
    contexts, cast = [], paddle.amp.auto_cast
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **kw: contexts.append(kw) or cast(**kw))
    if level == "O2":
        decorated = []
        monkeypatch.setattr(paddle.amp, "decorate", lambda *a, **kw: decorated.append(kw) or a)
    small(precision=precision, amp_level=level, iters=2)
    small(precision=precision, amp_level=level, iters=4, resume_model="auto")
    dtype = {"fp16": "float16", "bf16": "bfloat16"}[precision]
    assert len(contexts) == 4
    assert {(kw["dtype"], kw["level"]) for kw in contexts} == {(dtype, level)}
    if level == "O2":
        assert [kw["dtype"] for kw in decorated] == [dtype] * 2


def test_state_of_the_loss_scale_is_kept(small, monkeypatch):
    """A scaler that is switched on, though the device does not need it."""
    states = []

    class Scaler:
        count = 0

        def __init__(self, init_loss_scaling):
            assert init_loss_scaling == 1024

        def scale(self, loss):
            return loss * 1

        def step(self, optimizer):
            optimizer.step()

        def update(self):
            self.count += 1

        def state_dict(self):
            return {"scale": np.float32([512]), "incr_count": self.count}

        def load_state_dict(self, state):
            states.append(state)
            self.count = state["incr_count"]

    monkeypatch.setattr(trainer, "check_precision", lambda precision: None)
    monkeypatch.setattr(paddle.amp, "GradScaler", Scaler)
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **kw: contextlib.nullcontext())
    small(precision="fp16", iters=2)
    small(precision="fp16", iters=4, resume_model="auto")
    assert states == [{"scale": [512.0], "incr_count": 2}]
    saved = json.loads((small.out / "iter_4" / "training.json").read_text())
    assert saved["scaler"] == {"scale": [512.0], "incr_count": 4}


def test_ema_starts_from_the_weights_where_a_checkpoint_has_none(small, capfd):
    small(iters=2)
    small(iters=4, use_ema=True, resume_model="auto")
    assert "EMA, which starts from these weights" in capfd.readouterr().out
    assert (small.out / "iter_4" / "ema_model.pdparams").is_file()


def test_keeps_the_newest_checkpoints_of_the_whole_run(small):
    small(iters=4, save_interval=1, keep_checkpoint_max=2)
    small(iters=6, save_interval=1, keep_checkpoint_max=2, resume_model="auto")
    assert {path.name for path in small.out.glob("iter_*")} == {"iter_5", "iter_6"}


def test_visualdl_gets_the_scalars_of_paddleseg(small, monkeypatch):
    visualdl = pytest.importorskip("visualdl")
    scalars = []

    class Writer(visualdl.LogWriter):
        def add_scalar(self, tag, value, step, **kw):
            scalars.append((tag, step))
            super().add_scalar(tag, value, step, **kw)

    monkeypatch.setattr(visualdl, "LogWriter", Writer)
    small(iters=2, use_vdl=True, use_ema=True, scores=[0.1, 0.2])
    train_tags = ["Train/loss", "Train/lr", "Train/batch_cost", "Train/reader_cost"]
    tags = ["Evaluate/mIoU", "Evaluate/Acc", "Evaluate/Ema_mIoU", "Evaluate/Ema_Acc"]
    assert scalars == [(t, 1) for t in train_tags] + [(t, 2) for t in train_tags + tags]
    assert any(path.name.startswith("vdlrecords") for path in small.out.iterdir())


def test_metrics_of_a_resumed_run_are_those_of_the_whole(small, tmp_path):
    def table(folder):
        with (folder / "metrics.csv").open() as file:
            rows = [*csv.DictReader(file)]
        costs = ("batch_cost", "reader_cost", "ips")
        assert all(float(row[name]) > 0 for row in rows if row["loss"] for name in costs)
        return [{k: v for k, v in row.items() if k not in costs} for row in rows]

    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    flags = {"iters": 6, "log_iters": 3, "use_ema": True}
    small(tmp_path / "whole", scores=scores, **flags)
    whole = table(tmp_path / "whole")
    assert [row["iteration"] for row in whole] == ["2", "3", "4", "6", "6"]
    assert [row["ema_miou"] for row in whole] == ["0.2", "", "0.4", "", "0.6"]
    shutil.copytree(tmp_path / "whole", small.out)
    small(scores=scores[2:], **flags, resume_model=str(small.out / "iter_2"))
    assert table(small.out) == whole


def test_best_ema_of_paddleseg_is_evaluated_first(small):
    small(scores=[0.4, 0.5, 0.3, 0.35], use_ema=True)
    for path in (*small.out.glob("*/training.json"), *small.out.glob("*/best.json")):
        path.unlink()
    shutil.rmtree(small.out / "iter_4")
    best = small.out / "ema_best_model" / "ema_model.pdparams"
    kept = best.read_bytes()
    small(scores=[0.4, 0.5, 0.45, 0.45], use_ema=True, resume_model="auto")
    assert best.read_bytes() == kept


def test_fewer_images_than_a_batch_are_refused(small):
    with pytest.raises(DataError, match="8 training images do not fill one batch of 9"):
        small(batch_size=9)


@pytest.mark.parametrize("name", ["iters", "batch_size", "save_interval", "log_iters"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Settings(**{"iters": 1, "batch_size": 1, name: 0})


def test_finished_run_has_nothing_to_do(small, capfd):
    first = weights(small(iters=4))
    np.testing.assert_array_equal(weights(small(iters=4, resume_model="auto")), first)
    assert "nothing left to train" in capfd.readouterr().out


def test_log_says_once_that_training_waits_for_images(small, capfd):
    class Heavy(Pixels):
        def __getitem__(self, index):
            np.sort(np.random.default_rng(index).random(1_000_000))
            return super().__getitem__(index)

    small(data=Heavy())
    said = capfd.readouterr().out
    assert said.count("of the time went into waiting for images") == 1
    assert "fast_loading and cache_gb of train_dataset help, and --num_workers up to" in said


def test_loop_runs_outside_the_main_thread(small):
    """Where Python takes no signal handlers."""
    nets = []
    thread = threading.Thread(target=lambda: nets.append(small(iters=1)))
    thread.start()
    thread.join()
    assert len(nets) == 1
