"""What is around tracking: a sweep as W&B's own agent runs it, and a dashboard."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb_server import API_KEY, serving

from attrtrain.config.load import load_config

ROOT = Path(__file__).parents[2]
WANDB = Path(sys.executable).with_name("wandb")
TRIALS: list[dict[str, Any]] = [
    {"optim.lr": 0.00012345, "optim.schedule": "one_cycle", "model.head": "mlp", "train.ema": 0, "train.channels_last": True},
    {"optim.lr": 1e-05, "optim.weight_decay": 0.1, "train.ema": 0.999, "train.channels_last": False},
]  # fmt: skip


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def test_the_sweep_s_parameters_are_settings() -> None:
    sweep = yaml.safe_load((ROOT / "slurm" / "sweep.yaml").read_text())
    for name, parameter in sweep["parameters"].items():
        for value in parameter.get("values") or [parameter["min"], parameter["max"]]:
            config = load_config(["--data.shards", "x", f"--{name}={value}"])  # as W&B's agent spells it
            section, knob = name.split(".")
            assert getattr(getattr(config, section), knob) == value


def test_an_agent_of_the_sweep_trains_with_the_values_it_is_given(tmp_path: Path) -> None:
    stub = tmp_path / "bin" / "python"  # writes down its arguments, one a line
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/called-$WANDB_RUN_ID\n')
    stub.chmod(0o755)
    with serving() as server:
        more = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
        environ = environment(tmp_path, **more)
        begun = subprocess.run(
            [str(WANDB), "sweep", str(ROOT / "slurm" / "sweep.yaml")], capture_output=True, text=True, env=environ, cwd=tmp_path
        )  # fmt: skip
        assert begun.returncode == 0, begun.stderr
        path = re.search(r"wandb agent (\S+)", begun.stderr)
        assert path is not None and path[1].endswith("attrtrain/sweep1"), begun.stderr
        server.trials = [dict(trial) for trial in TRIALS]
        agent = [str(WANDB), "agent", "--count", str(len(TRIALS)), path[1]]
        ended = subprocess.run(agent, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=500)
        assert ended.returncode == 0, ended.stderr
        assert not server.unknown
    for number, trial in enumerate(reversed(TRIALS)):
        words = (tmp_path / f"called-trial{number}").read_text().splitlines()
        assert words[:2] == ["-m", "attrtrain.train"]
        config = load_config(words[2:])
        assert config.run.dir == f"runs/sweep/trial{number}" and config.data.shards == ["shards/coco"]
        for name, value in trial.items():
            section, knob = name.split(".")
            assert getattr(getattr(config, section), knob) == value


# A trial that takes a while to save when it is asked to stop.
STOPPED = """#!/bin/bash
trap 'sleep 2; touch saved; exit 85' USR1 TERM
touch running
for _ in {1..300}; do sleep 0.1; done
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\necho $$ >agent\nexec "$@"\n'


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_an_agent_that_is_stopped_waits_until_its_trial_has_saved(number: signal.Signals, tmp_path: Path) -> None:
    """SLURM ends what a task leaves behind, and its task is the agent."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("python", STOPPED), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "wandb").symlink_to(WANDB)
    with serving() as server:
        job = {
            "SLURM_JOB_ID": "1",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_CPUS_ON_NODE": "1",
        }
        more = {
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": API_KEY,
            "PATH": f"{programs}:{os.environ['PATH']}",
            **job,
        }
        environ = environment(tmp_path, **more, ATTRTRAIN_VENV=str(tmp_path))
        sweep = [str(WANDB), "sweep", str(ROOT / "slurm" / "sweep.yaml")]
        subprocess.run(sweep, capture_output=True, env=environ, cwd=tmp_path, check=True)
        server.trials = [dict(TRIALS[0])]
        script = subprocess.Popen(
            ["bash", ROOT / "slurm" / "sweep.sbatch"],
            env=environ | {"WANDB_SWEEP": "tester/attrtrain/sweep1"}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            while not (tmp_path / "running").exists():
                assert script.poll() is None
                time.sleep(0.05)
            if number == signal.SIGTERM:  # which SLURM sends to the step, not to the script
                os.kill(int((tmp_path / "agent").read_text()), number)
            else:
                script.send_signal(number)
            said, _ = script.communicate(timeout=60)
        finally:
            script.kill()
    assert (tmp_path / "saved").exists(), said


def workspace(home: Path, *flags: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.wandb_workspace", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, **more), cwd=ROOT)


def test_a_workspace_holds_the_panels_that_matter(tmp_path: Path) -> None:
    with serving() as server:
        made = workspace(tmp_path, "--name", "coco", WANDB_BASE_URL=server.url, WANDB_API_KEY=API_KEY)
        assert (made.returncode, made.stderr) == (0, "") and made.stdout.startswith(
            f"{server.url}/tester/attrtrain?nw="
        )
        assert not server.unknown
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("tester", "attrtrain", "coco")
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    panels = [panel for section in sections if section["name"] for panel in section["panels"]]
    shown = json.dumps(panels)
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    drawn = {metric for line in lines for metric in line["metrics"]}
    assert {
        "val/map",
        "val/prior_map",
        "val/best_map",
        "val/loss",
        "train/loss",
        "train/lr",
        "train/grad_norm",
    } <= drawn
    assert {"train/objects_per_second", "train/data_wait_share", "train/gpu_memory_gib"} <= drawn
    together = [line for line in lines if "val/map" in line["metrics"]]
    assert together[0]["metrics"] == ["val/map", "val/prior_map"] and together[0]["xAxis"] == "train/global_step"
    for name in (
        "val/attributes",
        "best/attributes",
        "best/precision_recall_table",
        "best/calibration_table",
        "best/gallery",
    ):
        assert name in shown, name


@pytest.mark.parametrize(("key", "told"), [("", "no W&B login; `wandb login` once"), ("b" * 40, "invalid API key")])
def test_a_workspace_without_a_login_is_one_line(tmp_path: Path, key: str, told: str) -> None:
    with serving() as server:
        given = {"WANDB_API_KEY": key} if key else {}
        made = workspace(tmp_path, WANDB_BASE_URL=server.url, **given)
    assert made.returncode != 0 and made.stderr.startswith("error: ") and told in made.stderr
    assert made.stderr.count("\n") == 1


def test_a_workspace_without_its_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'wandb_workspaces' else find(n, *a)\n"
    )
    made = workspace(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert made.returncode == 2
    assert (
        made.stderr
        == 'error: the package wandb-workspaces is not installed; `pip install "attrtrain[wandb-workspaces]"`\n'
    )
