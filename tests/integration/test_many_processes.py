"""Several processes: the same objects in every step, every object evaluated once, and no process that waits for
ever.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DistributedType
from safetensors.torch import load_file

from attrtrain import launcher, runtime
from attrtrain.cli import main
from attrtrain.data.reader import ShardSet
from attrtrain.errors import ConfigError
from attrtrain.launcher import _tasks_on_node, adopt_slurm_step
from attrtrain.runtime import build_runtime
from attrtrain.train import main as train_main
from tests import small_training
from tests.damage import damage_crop
from tools.soak_resume import metrics, trained_objects

ROOT = Path(__file__).parents[2]
TRACED = str(Path(__file__).with_name("traced_train.py"))
SMALL = [
    *(
        "demo",
        "--model.backbone",
        "resnet18",
        "--model.weights",
        "none",
        "--data.image_px",
        "32",
        "--train.global_batch",
        "12",
    ),
    *(
        "--optim.schedule",
        "constant",
        "--track.wandb",
        "disabled",
        "--track.every_steps",
        "3",
        "--train.precision",
        "no",
    ),
]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def launch(world_size: int, command: list[str], *, only: int | None = None) -> list[subprocess.Popen[str]]:
    """Starts one process a rank, as srun does, or the process of one rank only."""
    port = str(free_port())
    shared = os.environ | {
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    shared |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (range(world_size) if only is None else [only])
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]], expected: int = 0) -> list[str]:
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (stdout, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == expected, stdout + stderr
    return [stdout + stderr for stdout, stderr in outputs]


def train(world_size: int, run: Path, shards: Path, *flags: str) -> list[str]:
    return finish(launch(world_size, [TRACED, str(run), *SMALL, "--data.shards", str(shards), *flags]))


def require_left_without_model(run: Path) -> None:
    """Both ranks ended their group, and no prepared model was left then to end it in its own way, in which a process
    may hang.
    """
    for rank in (0, 1):
        told = run / f"models_alive_{rank}"
        assert told.read_text() == "0", told
        told.unlink()


def global_steps(run: Path) -> dict[int, list[int]]:
    """step → its samples, the ranks' parts one after the other."""
    steps: dict[int, list[int]] = {}
    for (step, _), samples in sorted(trained_objects(run).items()):
        steps.setdefault(step, []).extend(samples)
    return steps


@pytest.fixture(scope="module")
def alone(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs by one process."""
    run = tmp_path_factory.mktemp("world") / "alone"
    train(1, run, toy_shards, "--train.epochs", "3")
    return run


@pytest.mark.slow
def test_one_two_one_processes_see_the_same_objects_in_every_step(
    toy_shards: Path, tmp_path: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    for epochs, world_size in ((1, 1), (2, 2), (3, 1)):
        train(world_size, run, toy_shards, "--train.epochs", str(epochs))
    assert global_steps(run) == global_steps(alone)
    ranks = {rank for _, rank in trained_objects(run)}
    assert ranks == {0, 1}
    lines, reference = metrics(run), metrics(alone)
    assert [(line["kind"], line["step"], line["epoch"]) for line in lines] == [
        (line["kind"], line["step"], line["epoch"]) for line in reference
    ]
    assert [line["lr"] for line in lines if line["kind"] == "train"] == [
        line["lr"] for line in reference if line["kind"] == "train"
    ]


@pytest.mark.slow
def test_ranks_end_with_equal_weights_and_a_resumed_pair_with_the_undisturbed_pairs(
    toy_shards: Path, tmp_path: Path
) -> None:
    """With parts that no gradient reaches, rates of their own, and activations that are computed again."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [
        *("--train.epochs", "2", "--train.micro_batch", "3", "--model.frozen", "2", "--optim.layer_decay", "0.8"),
        *("--optim.head_epochs", "0.5", "--train.checkpoint_activations", "true", "--train.ema", "0.9"),
    ]
    train(2, whole, toy_shards, *flags)
    command = [
        TRACED,
        str(stopped),
        *SMALL,
        "--data.shards",
        str(toy_shards),
        *flags,
    ]
    processes = launch(2, command)
    while not (stopped / "trained_objects.jsonl").exists():
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGUSR1)  # one rank is told, both leave
    finish(processes, expected=85)
    require_left_without_model(stopped)
    finish(launch(2, command))
    require_left_without_model(stopped)
    final = [sorted((run / "checkpoints").glob("step-*"))[-1] / "model.safetensors" for run in (whole, stopped)]
    assert final[0].read_bytes() == final[1].read_bytes()
    assert metrics(whole) == metrics(stopped)
    weights = load_file(final[0])
    assert not weights["backbone.layer1.1.bn2.running_mean"].any()  # frozen: as it was drawn
    assert weights["backbone.layer2.1.bn2.running_mean"].any()


@pytest.mark.slow
@pytest.mark.parametrize(("micro_batch", "left_at"), [("0", (1, 3)), ("2", (3,))])
def test_three_that_go_on_add_up_gradients_in_the_order_of_an_undisturbed_three(
    toy_shards: Path, tmp_path: Path, micro_batch: str, left_at: tuple[int, ...]
) -> None:
    """Of three numbers the sum is rounded by which two are added first; of two it is not."""
    flags = [
        *("--model.backbone", "timm:test_vit", "--train.epochs", "1", "--train.micro_batch", micro_batch),
        *("--checkpoint.every_steps", "1", "--checkpoint.keep_last", "20"),
    ]
    train(3, tmp_path / "whole", toy_shards, *flags)
    saved = sorted((tmp_path / "whole" / "checkpoints").glob("step-*"))
    for step in left_at:
        run = tmp_path / str(step)
        train(3, run, toy_shards, *flags, "--checkpoint.resume", str(saved[step - 1]))
        for place in saved[step:]:
            own = run / "checkpoints" / place.name / "model.safetensors"
            assert own.read_bytes() == (place / "model.safetensors").read_bytes(), place.name


BEHIND = """
import os, sys
from pathlib import Path
from attrtrain import checkpoint
from tools.soak_resume import traced_training
if os.environ["RANK"] == "1":
    checkpoint.find_latest = lambda folder: (min(folder.glob("step-*")), [])
sys.exit(traced_training(sys.argv[2:], Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_all_processes_go_on_from_one_checkpoint_whatever_each_finds(
    toy_shards: Path, tmp_path: Path, alone: Path
) -> None:
    """A machine may still see a shared folder as it was before."""
    run = tmp_path / "run"
    shutil.copytree(alone, run)
    newest = max((run / "checkpoints").glob("step-*"))
    assert min((run / "checkpoints").glob("step-*")) != newest
    (run / "trained_objects.jsonl").unlink()
    flags = [*SMALL, "--data.shards", str(toy_shards), "--train.epochs", "4", "--run.timeout_seconds", "20"]
    finish(launch(2, ["-c", BEHIND, str(run), *flags]))
    begun = int(newest.name.removeprefix("step-"))
    for rank in (0, 1):
        assert min(step for step, of in trained_objects(run) if of == rank) == begun


@pytest.mark.slow
def test_two_processes_follow_one_as_closely_as_batch_statistics_let_them(
    toy_shards: Path, tmp_path: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    train(2, run, toy_shards, "--train.epochs", "3")
    losses = [[line["loss"] for line in metrics(folder) if line["kind"] == "train"] for folder in (run, alone)]
    assert len(losses[0]) == len(losses[1]) == 12
    assert losses[0][:8] == pytest.approx(losses[1][:8], rel=0.2)
    # In the third epoch single lines, of a few objects each, have drifted apart with the batch statistics, by how much
    # differs from processor to processor; its mean less so.
    epochs = [np.array(one).reshape(3, -1).mean(axis=1) for one in losses]
    assert epochs[0][:2] == pytest.approx(epochs[1][:2], rel=0.15)
    assert epochs[0][2] == pytest.approx(epochs[1][2], rel=0.3)


@pytest.mark.slow
def test_two_processes_follow_one_closely_where_no_object_depends_on_others(toy_shards: Path, tmp_path: Path) -> None:
    """A transformer has no batch statistics: what is left is the order in which sums are rounded."""
    losses = []
    for world_size in (1, 2):
        run = tmp_path / str(world_size)
        train(world_size, run, toy_shards, "--train.epochs", "2", "--model.backbone", "timm:test_vit")
        losses.append([line["loss"] for line in metrics(run) if line["kind"] == "train"])
    assert len(losses[0]) == 8
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_two_processes_take_steps_as_long_as_ones_in_whole_and_in_cut_batches(toy_shards: Path, tmp_path: Path) -> None:
    """With SGD that shortens nothing, a step is as long as its gradient."""
    plain = ("--train.epochs", "2", "--model.backbone", "timm:test_vit", "--optim.name", "sgd", "--optim.lr", "0.01")
    told = []
    for world_size, micro_batch in ((1, "0"), (2, "0"), (2, "3")):
        run = tmp_path / f"{world_size}-{micro_batch}"
        train(world_size, run, toy_shards, *plain, "--train.clip_norm", "0", "--train.micro_batch", micro_batch)
        lines = [line for line in metrics(run) if line["kind"] == "train"]
        told.append([line[name] for name in ("loss", "grad_norm") for line in lines])
    assert len(told[0]) == 16
    assert told[1] == pytest.approx(told[0], rel=1e-4) and told[2] == pytest.approx(told[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "train"])
def test_evaluation_by_one_two_and_three_processes_gives_the_same_numbers(
    toy_shards: Path, tmp_path: Path, alone: Path, split: str
) -> None:
    found = []
    for world_size in (1, 2, 3):
        out = tmp_path / str(world_size)
        command = [
            "-m",
            "attrtrain",
            "evaluate",
            "--model",
            str(alone),
            "--shards",
            str(toy_shards),
            "--split",
            split,
            "--out",
            str(out),
        ]
        finish(launch(world_size, command))
        found.append((out / "metrics.json").read_text())
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_fewer_objects_than_processes_are_each_counted_once(toy_coco: Path, alone: Path, tmp_path: Path) -> None:
    names = json.loads((alone / "bundle" / "model.json").read_text())["vocabulary"]["names"]
    photograph = sorted((toy_coco / "val2017").glob("*.jpg"))[0].name
    rows = [
        f"{photograph},val,{10 * number},5,40,40,{','.join('01'[(number + i) % 2] for i in range(len(names)))}"
        for number in range(2)
    ]
    (tmp_path / "two.csv").write_text("\n".join([f"file_name,split,x,y,w,h,{','.join(names)}", *rows]))
    shards = tmp_path / "shards"
    assert (
        main(
            [
                "shard",
                "--labels",
                str(tmp_path / "two.csv"),
                "--images",
                str(toy_coco / "val2017"),
                "--out",
                str(shards),
                "--workers",
                "1",
            ]
        )
        == 0
    )
    card = json.loads((alone / "bundle" / "model.json").read_text())
    card["vocabulary"] = json.loads((shards / "manifest.json").read_text())["vocabulary"]
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model.json").write_text(json.dumps(card))
    (bundle / "weights.safetensors").write_bytes((alone / "bundle" / "weights.safetensors").read_bytes())
    found = []
    for world_size in (1, 3):
        out = tmp_path / str(world_size)
        finish(
            launch(
                world_size,
                ["-m", "attrtrain", "evaluate", "--model", str(bundle), "--shards", str(shards), "--out", str(out)],
            )
        )
        found.append(json.loads((out / "metrics.json").read_text()))
    assert found[0] == found[1] and found[0]["objects"] == 2


@pytest.mark.slow
def test_a_rank_that_dies_stops_the_others_with_one_clear_line(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = launch(
        2,
        [
            TRACED,
            str(run),
            *SMALL,
            "--data.shards",
            str(toy_shards),
            "--train.epochs",
            "500",
            "--run.timeout_seconds",
            "20",
        ],
    )
    while not (run / "trained_objects.jsonl").exists():
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[1].kill()
    begun = time.monotonic()
    _, stderr = processes[0].communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert processes[0].returncode == 1
    told = [line for line in stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "process 0 of 2 stops" in told[0], stderr
    assert "Traceback" not in stderr
    processes[1].communicate()


@pytest.mark.slow
def test_a_rank_that_hangs_is_given_up_after_the_timeout(toy_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [TRACED, str(run), *SMALL, "--data.shards", str(toy_shards), "--train.epochs", "500"]
    processes = launch(2, [*command, "--run.timeout_seconds", "8"])
    while not (run / "trained_objects.jsonl").exists():
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        _, stderr = processes[0].communicate(timeout=60)
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert processes[0].returncode == 1
    told = [line for line in stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "another one did not answer within run.timeout_seconds" in told[0], stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_who_meets_a_damaged_object_says_so_and_the_other_that_it_is_gone(
    toy_shards: Path, tmp_path: Path, rank: int
) -> None:
    probe, shards, run = tmp_path / "probe", tmp_path / "shards", tmp_path / "run"
    train(2, probe, toy_shards, "--train.epochs", "1")
    sample = trained_objects(probe)[(3, rank)][0]
    shutil.copytree(toy_shards, shards)
    object_id, shard = damage_crop(ShardSet([shards], "train"), sample)
    processes = launch(2, [TRACED, str(run), *SMALL, "--data.shards", str(shards), "--train.epochs", "1"])
    told = [process.communicate(timeout=60)[1].replace("\r", "\n").splitlines() for process in processes]
    errors = [[line for line in lines if line.startswith("error: ")] for lines in told]
    assert [process.returncode for process in processes] == [1, 1], told
    assert [len(lines) for lines in errors] == [1, 1], told
    assert f"process {rank} of 2: object {object_id} in {shard}: " in errors[rank][0]
    assert "another one is gone" in errors[1 - rank][0]


@pytest.mark.parametrize(("rank", "local_rank", "speaks"), [("0", "0", True), ("5", "1", False), ("4", "0", True)])
def test_one_process_of_each_machine_tells_what_is_missing_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str,
    local_rank: str,
    speaks: bool,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert train_main(["demo", "--data.shards", str(tmp_path / "none"), "--run.dir", str(tmp_path / "run")]) == 1
    assert (f"error: {tmp_path / 'none'}" in capsys.readouterr().err) == speaks


@pytest.mark.slow
def test_an_evaluation_that_one_process_cannot_do_ends_with_one_line_each(
    toy_shards: Path, tmp_path: Path, alone: Path
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(toy_shards, shards)
    damage_crop(ShardSet([shards], "val"), len(ShardSet([shards], "val")) - 1)
    command = ["-m", "attrtrain", "evaluate", "--model", str(alone), "--shards", str(shards)]
    processes = launch(2, command)
    told = [process.communicate(timeout=60)[1].replace("\r", "\n") for process in processes]
    errors = [line for one in told for line in one.splitlines() if line.startswith("error: ")]
    assert [process.returncode for process in processes] == [1, 1], told
    assert len(errors) == 2 and "Traceback" not in "".join(told), told
    lost, met = sorted(errors, key=lambda line: "attrtrain verify" in line)
    assert "another one is gone" in lost and "attrtrain verify" not in lost
    assert "of 2: object " in met and "another one is gone" not in met


@pytest.mark.slow
def test_a_damaged_crop_that_one_process_meets_before_training_goes_on_is_told_by_it(
    toy_shards: Path, tmp_path: Path, alone: Path
) -> None:
    """The bundle is gone, and the best epoch is judged again to make it anew."""
    shards, run = shutil.copytree(toy_shards, tmp_path / "shards"), shutil.copytree(alone, tmp_path / "run")
    damage_crop(ShardSet([shards], "val"), len(ShardSet([shards], "val")) - 1)
    shutil.rmtree(run / "bundle")
    processes = launch(2, [TRACED, str(run), *SMALL, "--data.shards", str(shards), "--train.epochs", "4"])
    told = [process.communicate(timeout=60)[1].replace("\r", "\n") for process in processes]
    errors = [line for one in told for line in one.splitlines() if line.startswith("error: ")]
    assert [process.returncode for process in processes] == [1, 1], told
    assert len(errors) == 2 and "Traceback" not in "".join(told), told
    lost, met = sorted(errors, key=lambda line: "attrtrain verify" in line)
    assert "another one is gone" in lost and "of 2: object " in met


def test_a_training_asks_whether_settings_and_shards_are_the_main_processs(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = ShardSet([toy_shards], "train").fingerprint
    for own, told, code in (('"seed": 0', "run.seed: 0 here, 7 there", 2), (fingerprint, "here they are other", 1)):
        other = '"seed": 7' if code == 2 else "of an older copy"
        monkeypatch.setattr(
            runtime.Runtime,
            "from_main",
            lambda _, *texts, own=own, other=other: [text.replace(own, other) for text in texts],
        )
        assert small_training.train(tmp_path / "run", toy_shards) == code
        assert told in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_evaluation_asks_whether_shards_are_the_main_processs(
    toy_shards: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime.Runtime, "from_main", lambda *_: ["of an older copy"])
    assert main(["evaluate", "--model", str(alone), "--shards", str(toy_shards)]) == 1
    assert "here they are other shards" in capsys.readouterr().err


IN_A_GROUP = """
import sys, threading, time
import torch
from attrtrain import train, wiring
from attrtrain.errors import LabelError

def fails(config):
    torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
    threading.Thread(target=time.sleep, args=(300,)).start()  # Python would wait for it, as groups wait for threads of theirs
    print("before")
    raise LabelError("the labels are wrong")

wiring.run = fails
sys.exit(train.main(["demo", "--data.shards", "none", "--run.dir", "none"]))
"""


@pytest.mark.slow
def test_an_error_ends_a_process_though_threads_of_its_group_live(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_GROUP, str(tmp_path / "rendezvous")], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (1, "error: the labels are wrong\n")
    own = [line for line in ended.stdout.splitlines() if not line.startswith("[Gloo] ")]  # torch 2.8 has some
    assert own == ["before"]


@pytest.mark.slow
def test_compressed_gradients_train(toy_shards: Path, tmp_path: Path) -> None:
    train(2, tmp_path / "run", toy_shards, "--train.epochs", "1", "--train.compress_gradients", "true")
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_model_sharded_by_fsdp2_resumes_and_ships_whole_tensors(toy_shards: Path, tmp_path: Path) -> None:
    sharded = str(Path(__file__).with_name("sharded_train.py"))
    flags = [*SMALL, "--data.shards", str(toy_shards), "--train.channels_last", "false"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    finish(launch(2, [sharded, str(whole), *flags, "--train.epochs", "2"]))
    for epochs in ("1", "2"):
        finish(launch(2, [sharded, str(resumed), *flags, "--train.epochs", epochs]))
    final = [sorted((run / "checkpoints").glob("step-*"))[-1] / "model.safetensors" for run in (whole, resumed)]
    assert final[0].read_bytes() == final[1].read_bytes()
    out = tmp_path / "evaluated"
    assert main(["evaluate", "--model", str(whole), "--shards", str(toy_shards), "--out", str(out)]) == 0
    told = json.loads((whole / "result.json").read_text())["val"]["map"]
    assert json.loads((out / "metrics.json").read_text())["overall"]["map"] == pytest.approx(told, abs=1e-3)


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_our_configurations(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1 and config.mixed_precision == "no"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_by_their_own_launchers(toy_shards: Path, tmp_path: Path, launcher: str) -> None:
    port = str(free_port())
    commands = {
        "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", port],
        "accelerate": [
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
            "--main_process_port",
            port,
        ],
    }
    given = [*SMALL, "--run.dir", str(tmp_path / "run"), "--data.shards", str(toy_shards), "--train.epochs", "1"]
    result = subprocess.run(
        [sys.executable, "-m", *commands[launcher], "-m", "attrtrain.train", *given],
        capture_output=True, text=True, env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 x cpu" in result.stdout and "batch 12 = 2 x 1 x 6" in result.stdout
    assert result.stdout.count("best epoch") == 1


def test_a_launch_whose_processes_would_train_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("attrtrain.runtime.Accelerator", lambda **_: type("Alone", (), {"num_processes": 1})())
    with pytest.raises(
        ConfigError, match=r"2 processes were launched.*ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2"
    ):
        build_runtime("no")


def test_a_world_that_does_not_divide_the_batch_is_refused_with_those_that_do(toy_shards: Path, tmp_path: Path) -> None:
    processes = launch(5, [TRACED, str(tmp_path / "run"), *SMALL, "--data.shards", str(toy_shards)])
    outputs = finish(processes, expected=2)
    assert "process counts that do: 1, 2, 3, 4, 6, 12" in outputs[0]
    assert not (tmp_path / "run").exists()


LATE = """
import os, sys, time
from pathlib import Path
import attrtrain.runtime
came, rank = Path(sys.argv[1]), int(os.environ["RANK"])
build = attrtrain.runtime.Accelerator
def late(**settings):
    accelerator = build(**settings)
    if rank == 1:
        time.sleep(3)
        came.touch()
    return accelerator
attrtrain.runtime.Accelerator = late
runtime = attrtrain.runtime.build_runtime("no")
assert came.exists()
attrtrain.runtime.leave_group(runtime)
"""


def test_no_process_goes_ahead_before_all_have_met(tmp_path: Path) -> None:
    finish(launch(2, ["-c", LATE, str(tmp_path / "came")]))


@pytest.mark.parametrize(
    ("rank", "reason"), [(0, "1/2 clients joined"), (1, "timed out after 1000ms while trying to connect")]
)
def test_a_process_that_meets_nobody_says_so(rank: int, reason: str, toy_shards: Path, tmp_path: Path) -> None:
    flags = ["--data.shards", str(toy_shards), "--run.timeout_seconds", "1"]
    (output,) = finish(launch(2, [TRACED, str(tmp_path / "run"), *SMALL, *flags], only=rank), expected=1)
    line = output.splitlines()[-1]
    assert line.startswith(f"error: process {rank} of 2 stops: not all of them met at 127.0.0.1:")
    assert reason in line
    assert "MASTER_ADDR and MASTER_PORT must be the same" in line
    assert "Traceback" not in output


def test_slurms_task_counts_are_read() -> None:
    assert [_tasks_on_node("2(x3),1", node) for node in range(4)] == [2, 2, 2, 1]
    assert _tasks_on_node("4", 0) == 4


def test_tasks_that_srun_hides_each_others_gpus_from_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="node1\nnode2\n"))
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ConfigError, match=r"started 4 tasks on this node, and this one sees 1 GPU; ask for GPUs by --gpus-per-node"
    ):
        adopt_slurm_step()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    adopt_slurm_step()
    assert (os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"]) == ("5", "1", "4")
    port = os.environ["MASTER_PORT"]
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    for name in ("WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name)
    adopt_slurm_step()  # a step beside the other one, which may be on the same nodes
    assert os.environ["MASTER_PORT"] not in ("", port)


@pytest.mark.parametrize(
    ("tasks", "usable", "workers"),
    [("4", 6, 6), ("4", 24, 6), ("1", 6, 1), ("1", 24, 6), ("4", 2, 2)],
    ids=["bound by srun", "unbound", "parts of a bound task", "parts of a task", "fewer than asked for"],
)
def test_a_task_decodes_on_the_cores_that_srun_bound_it_to(
    monkeypatch: pytest.MonkeyPatch, tasks: str, usable: int, workers: int
) -> None:
    monkeypatch.setattr(launcher, "core_count", lambda: usable)
    for name, value in {
        "SLURM_STEP_NUM_TASKS": tasks, "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_PER_TASK": "6",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert runtime.decoding_workers(torch.device("cuda"), -1) == workers


def test_blocks_in_lists_are_refused_where_fsdp_cannot_shard_them(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As torch's fully_shard says of EVA-02, BEiT or CaiT, with the whole network printed."""

    def prepare(*_: object) -> None:
        raise ValueError(
            "fully_shard does not support containers that do not implement forward: ModuleList(\n(0): Block("
        )

    monkeypatch.setattr(Accelerator, "prepare", prepare)
    assert small_training.train(tmp_path / "run", toy_shards) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "keeps its blocks in lists, which FSDP cannot shard" in line


def test_the_first_version_of_fsdp_is_refused(
    toy_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda _: DistributedType.FSDP))
    assert small_training.train(tmp_path / "run", toy_shards) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "the first version of FSDP" in line and "set fsdp_version: 2" in line


@pytest.mark.parametrize(
    ("variable", "engine"), [("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM")]
)
def test_what_makes_steps_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, engine: str) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=f"asks for {engine}, .* accelerate_configs/"):
        build_runtime("no")


@pytest.mark.parametrize(("axis", "what"), [("TP", "tensor"), ("CP", "context"), ("SP", "sequence")])
def test_processes_that_would_share_their_objects_are_refused(
    monkeypatch: pytest.MonkeyPatch, axis: str, what: str
) -> None:
    """As `accelerate launch --use_parallelism_config` says it, all sizes at once."""
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    for size in ("DP_REPLICATE", "DP_SHARD", "TP", "CP", "SP"):
        monkeypatch.setenv(f"PARALLELISM_CONFIG_{size}_SIZE", "2" if size == axis else "1")
    with pytest.raises(ConfigError, match=f"asks for {what} parallelism, .* accelerate_configs/"):
        build_runtime("no")


@pytest.mark.parametrize(("world_size", "were"), [(1, "1 process was"), (2, "2 processes were")])
def test_data_parallelism_of_gpus_that_are_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, world_size: int, were: str, toy_shards: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    monkeypatch.setenv("PARALLELISM_CONFIG_DP_SHARD_SIZE", "2")
    processes = launch(world_size, [TRACED, str(tmp_path / "run"), *SMALL, "--data.shards", str(toy_shards)])
    assert "".join(finish(processes, expected=2)) == (
        f"error: Accelerate's configuration asks for data parallelism over 2 GPUs, but {were} started, on cpu; "
        "launch with --config_file and one of accelerate_configs/\n"
    )
