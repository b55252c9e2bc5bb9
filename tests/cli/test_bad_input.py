"""Mistakes that users make: one clear message, an exit code, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from liteseg_plugin.errors import ConfigError


@pytest.fixture()
def street(toy, tmp_path):
    """A copy of the data set to spoil, and the function that writes a config for it."""
    root = tmp_path / "street"
    shutil.copytree(toy.root, root)

    def config(**changes):
        for name in ("train", "val"):
            changes.setdefault(f"{name}_dataset__dataset_root", str(root))
            changes.setdefault(f"{name}_dataset__{name}_path", str(root / f"{name}.txt"))
        return toy.config(tmp_path, **changes)

    config.root = root
    config.first_label = root / "annot" / "train_0000.png"
    config.first_image = root / "images" / "train_0000.png"
    return config


def test_missing_config_suggests_its_neighbours(fails, street):
    path = street()
    message = fails.train(path.with_name("confg.yml"))
    assert "config not found" in message
    assert f"{path.parent} is a folder; --config takes a .yml file" in fails.train(path.parent)
    assert f"did you mean {path}" in message


def test_config_that_is_no_yaml(fails, tmp_path):
    path = tmp_path / "broken.yml"
    path.write_text("model: [")
    assert f"config {path} is not valid YAML" in fails.train(path)


@pytest.fixture(scope="module")
def read_config():
    """Return the commands' reading of configs, in this process."""
    from liteseg_plugin.integration.config import load

    return load


@pytest.mark.parametrize("name", ["child.yml", "parent.yml"])
def test_config_whose_merges_explode(read_config, tmp_path, name):
    (tmp_path / "child.yml").write_text("_base_: parent.yml\n")
    (tmp_path / "parent.yml").write_text("batch_size: 2\n")
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    with (tmp_path / name).open("a") as file:
        file.write("\n".join(lines))
    with pytest.raises(ConfigError, match=rf"config .*{name} .* aliases .* expand to more than"):
        read_config(str(tmp_path / "child.yml"))


@pytest.mark.parametrize("name", ["child.yml", "parent.yml"])
def test_config_builds_no_objects(read_config, tmp_path, name):
    (tmp_path / "child.yml").write_text("_base_: parent.yml\n")
    (tmp_path / "parent.yml").write_text("batch_size: 2\n")
    with (tmp_path / name).open("a") as file:
        file.write("iters: !!python/name:os.system\n")
    with pytest.raises(ConfigError, match=rf"{name} is not valid YAML.*python/name:os.system"):
        read_config(str(tmp_path / "child.yml"))


def test_config_that_is_not_utf8(read_config, tmp_path):
    path = tmp_path / "latin.yml"
    path.write_bytes("batch_size: 2  # Größe\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"latin\.yml is not UTF-8: byte 0xf6 at line 1, .*save"):
        read_config(str(path))


def test_config_that_is_its_own_base(read_config, tmp_path):
    (tmp_path / "a.yml").write_text("_base_: b.yml\n")
    (tmp_path / "b.yml").write_text("_base_: a.yml\n")
    with pytest.raises(ConfigError, match=r"config .*a\.yml is its own _base_"):
        read_config(str(tmp_path / "a.yml"))


def test_config_without_a_section(fails, tmp_path):
    path = tmp_path / "short.yml"
    path.write_text("batch_size: 2\n")
    assert "No iters specified" in fails.train(path)


def test_missing_base_is_named(fails, tmp_path):
    path = tmp_path / "child.yml"
    path.write_text("_base_: parent.yml\n")
    message = fails.train(path)
    assert "parent.yml does not exist" in message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("learning_rat", "lr_scheduler.learning_rate"),
        ("learning_rate", "lr_scheduler.learning_rate"),
        ("batchsize", "batch_size"),
        ("modle.type", "model"),
    ],
)
def test_unknown_key_of_opts_names_the_nearest(read_config, toy, tmp_path, key, meant):
    head = key.partition(".")[0]
    with pytest.raises(ConfigError, match=f"--opts {head}: .* did you mean (.* or )?{meant}"):
        read_config(str(toy.config(tmp_path)), [f"{key}=3"])


def test_keys_of_a_config_may_be_set(read_config, toy, tmp_path):
    config = read_config(
        str(toy.config(tmp_path, mine={"key": 1})),
        ["mine.key=2", "to_static_training=True", "model.num_classes=11"],
    )
    assert config.dic["mine"] == {"key": 2}
    assert config.to_static_training is True


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --config c.yml --iters 0", "--iters must be at least 1, got 0"),
        ("train --config c.yml --batch_size 0", "--batch_size must be at least 1, got 0"),
        ("train --config c.yml --log_iters 0", "--log_iters must be at least 1, got 0"),
        ("train --config c.yml --num_workers -1", "--num_workers must be at least 0, got -1"),
        ("train --config c.yml --learning_rate 0", "--learning_rate must be greater than 0, got 0"),
        ("train --config c.yml --learning_rate nan", "must be greater than 0, got nan"),
        ("val --config c.yml --model_path m --num_workers -2", "--num_workers must be at least 0"),
        ("val --config c.yml --model_path m --worst -1", "--worst must be at least 0, got -1"),
        ("val --config c.yml --model_path m --scales 1 0", "--scales must be greater than 0"),
        ("infer --config e --image_path i --cpu_threads 0", "--cpu_threads must be at least 1"),
        ("quantize e --image_path i --num_images 0", "--num_images must be at least 1, got 0"),
        ("benchmark --exported e --repeats 0", "--repeats must be at least 1, got 0"),
        ("data toy street --size 0 3", "--size must be at least 1, got 0"),
    ],
)
def test_numbers_that_a_command_cannot_use(fails, command, message):
    assert message in fails(*command.split())


def test_iterations_of_a_config_are_checked_too(fails, street):
    assert "iters must be at least 1, got 0" in fails.train(street(iters=0))
    assert "batch_size must be at least 1, got two" in fails.train(street(batch_size="two"))


def test_unknown_component_lists_choices(fails, street):
    message = fails.train(street(model__type="PPLightSeg"))
    assert "unknown component 'PPLightSeg'" in message
    assert "did you mean PPLiteSeg" in message


def test_unknown_fusion_block_lists_choices(fails, street):
    message = fails.train(street(model__arm_type="UAFM_SpAttention"))
    assert "unknown arm_type 'UAFM_SpAttention'" in message
    assert "UAFM_SpAtten_S" in message


def test_misspelt_argument_lists_those_accepted(fails, street):
    message = fails.train(street(model__arm_out_channels=[32, 64, 128]))
    assert "arm_out_channels" in message
    assert "arm_out_chs" in message


def test_channels_that_do_not_fit_the_indices(fails, street):
    message = fails.train(street(model__arm_out_chs=[32, 64]))
    assert "2 arm_out_chs [32, 64] for 3 backbone_indices [2, 3, 4]" in message


def test_classes_that_contradict_the_data_set(fails, street):
    message = fails.train(street(model__num_classes=19))
    assert "num_classes" in message
    assert "11" in message
    assert "19" in message


def test_label_out_of_range_names_file_and_value(fails, street):
    label = cv2.imread(str(street.first_label), cv2.IMREAD_UNCHANGED)
    label[:2, :3] = 42
    for path in (street.root / "annot").glob("train_*.png"):
        cv2.imwrite(str(path), label)
    message = fails.train(street())
    assert "label values out of range: 42 (6 pixels)" in message
    assert "annot/train_" in message
    assert "0 to 10" in message


def test_colour_label_is_told_from_indices(fails, street):
    for path in (street.root / "annot").glob("train_*.png"):
        cv2.imwrite(str(path), np.zeros((96, 128, 3), np.uint8))
    assert "the label has 3 channels" in fails.train(street())


def test_image_and_label_of_different_size(fails, street):
    for path in (street.root / "annot").glob("train_*.png"):
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
    message = fails.train(street())
    assert "image and label differ in size: 128x96 and 64x48" in message


def test_unreadable_image_in_training(fails, street):
    for path in (street.root / "images").glob("train_*.png"):
        path.write_text("not an image")
    message = fails.train(street())
    assert "cannot read image" in message
    assert "images/train_" in message


def test_missing_image_is_named(fails, street):
    for path in (street.root / "images").glob("train_*.png"):
        path.unlink()
    assert "image not found" in fails.train(street())


def test_truncated_label_in_evaluation(fails, street, trained):
    path = street.root / "annot" / "val_0000.png"
    path.write_bytes(path.read_bytes()[:200])
    message = fails("val", "--config", street(), "--model_path", trained.weights)
    assert f"cannot read label {path}" in message


def test_empty_list(fails, street):
    (street.root / "train.txt").write_text("")
    message = fails.train(street())
    assert "train.txt" in message
    assert "empty" in message


def test_fewer_images_than_a_batch(fails, street):
    assert "8 training images do not fill one batch of 9" in fails.train(street(batch_size=9))


def test_missing_data_set_folder(fails, street):
    message = fails.train(street(train_dataset__dataset_root="nowhere"))
    assert (
        f"dataset_root not found: nowhere (relative to the working folder {Path.cwd()})" in message
    )


def test_data_set_without_lists_names_the_command_that_makes_them(fails, street):
    (street.root / "train.txt").unlink()
    config = street(train_dataset__train_path=None)
    said = f"no list train.txt in {street.root}; `liteseg data split {street.root}` creates"
    assert said in fails.train(config)
    assert said in fails("data", "check", "--config", config)
    missing = street(train_dataset__train_path=str(street.root / "train.txt"))
    assert f"train_path not found: {street.root}/train.txt" in fails.train(missing)
    for name in ("val.txt", "test.txt"):
        (street.root / name).unlink()
    assert "no list train, val or test (.txt or .list)" in fails("data", "check", street.root)


def test_weights_of_another_model_name_the_keys(fails, street, trained):
    config = street(model__backbone__type="STDC2")
    for command in ("val", "export"):
        message = fails(command, "--config", config, "--model_path", trained.weights)
        assert "do not fit PPLiteSeg" in message
        assert "missing: backbone.features." in message
        assert "of another shape: backbone.features." in message


def test_missing_weights(fails, trained):
    message = fails("val", "--config", trained.config, "--model_path", "gone.pdparams")
    assert "weights not found: gone.pdparams" in message


def test_unreachable_url_says_how_to_work_offline(fails, street):
    url = "https://example.invalid/PP_STDCNet1.tar.gz"
    message = fails.train(street(model__backbone__pretrained=url))
    assert f"cannot download {url}" in message
    assert "To work offline" in message
    assert "model.backbone.pretrained=None model.backbone_init=kaiming" in message


def test_backbone_weights_of_another_network(fails, street, tmp_path):
    import paddle

    path = tmp_path / "other.pdparams"
    paddle.save({"fc.weight": paddle.zeros([2])}, str(path))
    message = fails.train(street(model__backbone__pretrained=str(path)))
    assert "none of the" in message
    assert "fc.weight" in message


def test_unreadable_image_in_inference(fails, exported, tmp_path):
    picture = tmp_path / "text.png"
    picture.write_text("no picture")
    message = fails("infer", "--config", exported.folder, "--image_path", picture)
    assert f"cannot read image {picture}" in message


def test_inference_without_an_export(fails, tmp_path):
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((4, 4, 3), "uint8"))
    message = fails("infer", "--config", tmp_path, "--image_path", tmp_path)
    assert "is not an exported folder" in message


def test_run_says_the_same_as_the_commands(fails, street, tmp_path):
    script = Path(__file__).parents[1] / "data" / "paddleseg_script.py"
    for path in (street.root / "annot").glob("train_*.png"):
        cv2.imwrite(str(path), np.full((96, 128), 42, np.uint8))
    message = fails("run", script, street(), tmp_path / "out")
    assert "label values out of range: 42 (12288 pixels)" in message


def test_empty_list_of_evaluation(fails, street, trained):
    (street.root / "val.txt").write_text("")
    message = fails("val", "--config", street(), "--model_path", trained.weights)
    assert "val.txt" in message
    assert "empty" in message


def test_sliding_window_without_its_size(fails, trained):
    weights = ("--config", trained.config, "--model_path", trained.weights)
    assert "--is_slide needs --crop_size" in fails("val", *weights, "--is_slide")


def test_run_without_a_script(fails):
    assert "script not found: tools/train.py" in fails("run", "tools/train.py")


def test_debug_shows_the_traceback(run, trained):
    result = run(
        *("val", "--config", trained.config, "--model_path", "gone", "--debug"),
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.slow
def test_messages_of_commands_rest_on_no_replacement(process, toy, trained, tmp_path):
    """Nothing of PaddleSeg's is replaced for them: not in a thread or a process of the loader."""
    root = tmp_path / "street"
    shutil.copytree(toy.root, root)
    for path in (root / "annot").glob("*.png"):
        cv2.imwrite(str(path), np.full((96, 128), 42, np.uint8))
    data = {f"{n}_dataset__dataset_root": str(root) for n in ("train", "val")}
    data.update({f"{n}_dataset__{n}_path": str(root / f"{n}.txt") for n in ("train", "val")})
    config = toy.config(tmp_path, **data)
    code = f"""
import liteseg_plugin
from liteseg_plugin.cli import main
train = ["train", "--config", {str(config)!r}, "--save_dir", {str(tmp_path / "out")!r}]
val = ["val", "--config", {str(config)!r}, "--model_path", {str(trained.weights)!r}]
codes = [main([*train, "--num_workers", n]) for n in "02"]
codes += [main([*val, "--num_workers", n]) for n in "01"]
from liteseg_plugin.integration import table
active = [e.name for e in table.ENTRIES if e.scripts_only and table.is_active(e.name)]
print(codes, active)
"""
    result = process("python", "-c", code)
    assert result.stdout.splitlines()[-1] == "[1, 1, 1, 1] []"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert all("label values out of range: 42 (12288 pixels)" in line for line in errors)
    assert "Traceback" not in result.stderr
