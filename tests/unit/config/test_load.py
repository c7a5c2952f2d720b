"""Configuration: what a user types becomes what they meant, or one line that says why not."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from attrtrain.config.help import config_help
from attrtrain.config.load import _parser, dump_config, load_config, presets
from attrtrain.config.schema import TrainConfig
from attrtrain.errors import ConfigError


def test_flags_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {shards: [x], image_px: 96}\noptim: {lr: 5e-5, name: sgd}\n")
    config = load_config([str(file), "--optim.lr", "3e-4"])
    assert (config.data.image_px, config.optim.name, config.optim.lr) == (96, "sgd", 3e-4)
    assert config.train.epochs == TrainConfig().train.epochs


def test_the_flags_people_type_most() -> None:
    config = load_config(
        [
            "demo",
            "--run.dir",
            "runs/x",
            "--run.seed",
            "7",
            "--data.shards",
            "a",
            "b",
            "--data.image_px",
            "112",
            "--model.backbone",
            "resnet50",
            "--model.head",
            "mlp",
            "--model.weights",
            "w.pth",
            "--train.epochs",
            "2",
            "--train.global_batch",
            "32",
            "--train.precision",
            "auto",
            "--optim.name",
            "adamw",
            "--optim.lr",
            "3e-4",
            "--track.wandb",
            "disabled",
        ]
    )
    assert config.run.dir == "runs/x" and config.run.seed == 7
    assert config.data.shards == ["a", "b"] and config.data.image_px == 112
    assert (config.model.backbone, config.model.head, config.model.weights) == ("resnet50", "mlp", "w.pth")
    assert (config.train.epochs, config.train.global_batch, config.train.precision) == (2, 32, "auto")
    assert (config.optim.name, config.optim.lr, config.track.wandb) == ("adamw", 3e-4, "disabled")


def test_flags_alone_start_from_the_default_preset() -> None:
    assert load_config(["--data.shards", "x"]) == load_config(["resnet50", "--data.shards", "x"])


@pytest.mark.parametrize(
    ("yaml_text", "told"),
    [
        ("train: {epoks: 3}", ["train.epoks", "did you mean train.epochs"]),
        ("trian: {epochs: 3}", ["trian"]),
        ("train: {epochs: many}", ["train.epochs", "int"]),
        ("train: {epochs: 2.5}", ["train.epochs", "int"]),
        ("train: {epochs: 0}", ["train.epochs", "at least 1"]),
        ("optim: {lr: 0}", ["optim.lr", "above 0"]),
        ("labels: {positive_at: 1.5}", ["labels.positive_at", "at most 1"]),
        ("train: {precision: fp8}", ["train.precision", "bf16"]),
        ("model: {backbone: resnet51}", ["model.backbone", "resnet50"]),
        ("train: {epochs: }", ["train.epochs", "holds nothing"]),
        ("optim: {lr: null}", ["optim.lr", "holds nothing"]),
        ("data: {cache_gb: .inf}", ["data.cache_gb", "finite"]),
        ("data: {cache_gb: 1.0e+300}", ["data.cache_gb", "at most 1000000000"]),  # whose bytes no whole number counts
        ("data: {image_px: 5000}", ["data.image_px", "at most 4096"]),
        ("model: {hidden: 70000}", ["model.hidden", "at most 65536"]),
        ("run: {seed: 5000000000}", ["run.seed", "at most 4294967295"]),
        ("train: [1, 2]", ["train"]),
        ("- a", ["no sections"]),
        ("a: {b", ["YAML"]),
        ("train: {ema: 0.9}\noptim: {lr: 0.1}\ntrain: {epochs: 3}", ["train stands on line 1 and again on line 3"]),
        ("train:\n  epochs: 3\n  epochs: 4", ["epochs stands on line 2 and again on line 3"]),
        ("train: {precision: no}", ["train.precision", 'write "no" with quotes']),
        ("run: {dir: ''}", ["run.dir: is empty"]),
        ("track: {name: 2026-11-31}", ["YAML", "day is out of range"]),
        ("train: {compile: !!bool maybe}", ["YAML", "maybe"]),
        ("[" * 20_000, ["YAML"]),
        ("config: {a: b}", ["config: no such section"]),
        ("train: &train {epochs: *train}", ["train.epochs"]),
        ("\n".join(["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}" for n in range(1, 32))]), ["a0"]),
    ],
)
def test_a_fault_in_a_file_is_one_line_naming_file_and_key(tmp_path: Path, yaml_text: str, told: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml_text)
    with pytest.raises(ConfigError) as caught:
        load_config([str(file), "--data.shards", "x"])
    message = str(caught.value)
    assert "\n" not in message and str(file) in message
    for part in told:
        assert part in message


def test_paths_arrive_as_they_were_given() -> None:
    paths = ["a\\b", "a'b\"c", "x\u00a0y", "1", "true", "[a]b", "é"]
    assert load_config(["--data.shards", *paths, "--train.epochs", "3"]).data.shards == paths
    assert load_config([f"--data.shards={paths[1]}"]).data.shards == [paths[1]]


def test_a_shard_folder_may_be_called_like_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="resnet50 is no shard folder; a preset or YAML file comes first"):
        load_config(["--data.shards", "resnet50"])
    (tmp_path / "resnet50").mkdir()
    assert load_config(["--data.shards", "resnet50"]).data.shards == ["resnet50"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--train.epoch", "3"], ["--train.epoch", "did you mean train.epochs"]),
        (["--optim.learning_rate", "3"], ["--optim.learning_rate", "did you mean optim.lr?"]),
        (["--train.batch_size", "3"], ["did you mean train.global_batch?"]),
        (["--train.lr", "3"], ["did you mean optim.lr?"]),
        (["--lr", "3"], ["did you mean optim.lr?"]),
        (["--train.zebra", "3"], ["--train.zebra: no such setting; `--help` lists them"]),
        (["--train.epochs", "-1"], ["train.epochs", "at least 1"]),
        (["--optim.lr", "fast"], ["optim.lr", "fast"]),
        (["--data.context", "-1"], ["data.context", "at least 0"]),
        (["--data.fit", "stretch"], ["data.fit", "squash"]),
        (["--data.workers", "100000"], ["data.workers", "at most 1024"]),
        (["--train.channels_last", "maybe"], ["train.channels_last", "bool"]),
        (["--optim.warmup_epochs", "99"], ["optim.warmup_epochs", "train.epochs"]),
        (["--train.epochs", "5", "--optim.warmup_epochs", "5"], ["optim.warmup_epochs: 5 must be less than"]),
        (["--train.epochs", "5", "--optim.head_epochs", "5"], ["optim.head_epochs: 5 must be less than"]),
        (["--data.image_px", "512", "--data.scales", "1", "9"], ["data.scales: 9 of", "between 32 and 4096 pixels"]),
        (["--data.repeat_below", "0.1", "--data.order", "block"], ["data.repeat_below", "data.order global"]),
        (["--loss.name", "asll"], ["loss.name", "asl"]),
        (["--loss.positive_weight", "0.5"], ["loss.positive_weight", "at least 1"]),
        (["--loss.positive_weight", "1e300"], ["loss.positive_weight", "at most 1000000000"]),
        (["--optim.head_epochs", "99"], ["optim.head_epochs", "train.epochs", "--model.frozen -1"]),
        (["--optim.layer_decay", "0"], ["optim.layer_decay", "above 0"]),
        (["--model.frozen", "-2"], ["model.frozen", "at least -1"]),
        (["--model.backbone", "convnext_tiny"], ["model.backbone", "timm:NAME", "'convnext_tiny'"]),
        (["--model.backbone", "timm:"], ["model.backbone", "timm:NAME"]),
        (["--train.compile", "true", "--train.checkpoint_activations", "true"], ["train.compile"]),
    ],
)
def test_a_fault_in_a_flag_is_one_line(flags: list[str], told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["demo", "--data.shards", "x", *flags])
    message = str(caught.value)
    assert "\n" not in message
    for part in told:
        assert part in message


def test_two_settings_that_disagree_are_put_down_to_the_file_or_to_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 10}\noptim: {warmup_epochs: 20}\n")
    words = [str(path), "--data.shards", "x"]
    with pytest.raises(ConfigError, match=r"mine\.yaml: optim\.warmup_epochs: 20 must be less than train\.epochs, 10"):
        load_config(words)
    assert load_config([*words, "--train.epochs", "30"]).optim.warmup_epochs == 20  # flags may mend it
    with pytest.raises(ConfigError, match=r"command line: optim\.warmup_epochs: 20 must be less than train\.epochs, 5"):
        load_config([*words, "--train.epochs", "5"])


def test_no_shards_and_no_such_preset_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"--data\.shards DIR"):
        load_config(["demo"])
    for words in (["--run.dir", "x", "demo", "--data.shards", "x"], ["--train.epochs", "3", "mine.yaml"]):
        with pytest.raises(ConfigError, match=rf"{words[2]}: is no flag; a preset or YAML file comes first"):
            load_config(words)
    for name in ("demo", "mine.yaml"):
        with pytest.raises(ConfigError, match=rf"data\.shards: {name} is no shard folder; a preset or YAML file comes"):
            load_config(["--data.shards", "x", name])
    with pytest.raises(ConfigError, match=r"nope: neither a preset \(demo, reference_report, resnet50\)"):
        load_config(["nope"])


def test_a_run_directory_that_no_model_could_be_read_from_is_refused_before_anything_is_done() -> None:
    with pytest.raises(ConfigError, match=r"run\.dir: runs/caf\\udce9 is no UTF-8"):
        load_config(["demo", "--data.shards", "x", "--run.dir", "runs/caf\udce9"])


@pytest.mark.parametrize("preset", presets())
def test_a_dumped_configuration_reads_back_equal(tmp_path: Path, preset: str) -> None:
    config = load_config([preset, "--data.shards", "a", "b"])
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    assert load_config([str(file)]) == config


def test_the_reference_report_is_kept_exactly() -> None:
    config = load_config(["reference_report", "--data.shards", "x"])
    assert (config.data.image_px, config.train.epochs, config.train.global_batch) == (224, 30, 8)
    assert (config.model.backbone, config.model.head, config.model.hidden) == ("resnet50", "mlp", 512)
    assert config.model.dropout > 0
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-4, 1e-4)
    assert (config.optim.schedule, config.optim.halve_every, config.optim.warmup_epochs) == ("step", 15, 0)
    assert config.checkpoint.every_epochs == 10


def test_every_knob_is_explained_in_help() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "attrtrain.train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for section, kind in get_type_hints(TrainConfig).items():
        for knob in dataclasses.fields(kind):
            begin = shown.index(f"\n  --{section}.{knob.name}") + 3
            explanation = shown[begin:].split("\n  --", 1)[0]
            assert "(type:" in explanation and explanation.index("(type:") > 35, f"{section}.{knob.name} has no help"


def test_help_lists_the_flags_that_are_parsed() -> None:
    """The help is drawn from the schema; the parser is jsonargparse's."""
    parsed = {flag for action in _parser("x")._actions for flag in action.option_strings}
    shown = config_help("x", "x", "x")
    assert set(re.findall(r"(?:^  |, )(--?[\w.+]+)", shown, re.MULTILINE)) == parsed


def test_help_tells_ranges_choices_and_defaults() -> None:
    shown = " ".join(config_help("x", "x", "x").split())
    assert "Passes over the training split. (type: int, at least 1, default: 10)" in shown
    assert "--data.order {global,block} global: every epoch" in shown
    assert "Memory layout that convolutions run fastest in. (type: bool, default: true)" in shown
    assert "(type: float, at least 0, at most 1, default: 0.5)" in shown
    assert "(type: list[str], default: [])" in shown
    assert "--data.interpolation {bilinear,bicubic,auto} How crops" in shown and "typing." not in shown.lower()


def test_a_setting_that_may_be_left_open_says_so_and_takes_a_number() -> None:
    assert "(type: float | None, at least 0, default: null)" in " ".join(config_help("x", "x", "x").split())
    assert load_config(["--data.shards", "x", "--data.context", "0.1"]).data.context == 0.1
    assert load_config(["--data.shards", "x", "--data.context", "null"]).data.context is None


def test_print_config_prints_what_would_be_used() -> None:
    command = [
        sys.executable,
        "-m",
        "attrtrain.train",
        "demo",
        "--data.shards",
        "x",
        "--train.epochs",
        "3",
        "--print_config",
    ]
    printed = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert printed["train"]["epochs"] == 3 and printed["data"]["shards"] == ["x"]


def test_a_mistake_is_told_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from attrtrain.train import main; code = main(['demo', '--train.epochs', '0']); "
        "assert code == 2, code; assert not {'torch', 'accelerate', 'wandb', 'torchvision'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: command line: train.epochs")


def test_shard_folders_are_added_to_those_that_were_named() -> None:
    assert load_config(["--data.shards", "a", "--data.shards+", "b", "c"]).data.shards == ["a", "b", "c"]
    assert load_config(["--data.shards=a b", "--data.shards+=c"]).data.shards == ["a b", "c"]
    assert load_config(['--data.shards=["a", "b"]']).data.shards == ["a", "b"]


def test_sizes_are_multiples_of_the_side_and_no_smaller_than_the_network_takes() -> None:
    assert load_config(["--data.shards", "x", "--data.scales", "0.75", "1", "1.25"]).data.scales == [0.75, 1, 1.25]
    with pytest.raises(
        ConfigError, match=r"data\.scales: 0\.1 of data\.image_px, 224, is not between 32 and 4096 pixels"
    ):
        load_config(["--data.shards", "x", "--data.scales", "1", "0.1"])
