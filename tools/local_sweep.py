#!/usr/bin/env python
"""A W&B sweep's YAML without W&B: the same parameters, tried one after the other on this machine.

    python -m tools.local_sweep slurm/sweep.yaml --out runs/sweep --count 8 resnet50 --data.shards shards/coco [train
    flags ...]

`method: grid` tries every combination of the values that the YAML lists. Otherwise trials are drawn at random; `bayes`
asks for a server that learns, so it is drawn at random too, and `early_terminate` for one that compares; both are said.
Trial k is the same whenever it is drawn, and what is done is kept: the same command goes on where it was stopped, a
larger --count adds trials. Asked to stop, it waits until the trial has saved. A finished trial of other settings,
because the YAML or the flags have changed, is refused. One that fails has no number, is tried again by the next such
command, and does not keep the others from being tried. Writes OUT/sweep.md, the trials by the metric that the YAML
names. The YAML's `command` is for W&B's agent and not used here.
"""

import argparse
import json
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import yaml

from attrtrain.config.changes import changes, decides_numbers
from attrtrain.config.load import load_config
from attrtrain.errors import AttrtrainError, ConfigError
from attrtrain.keyed_random import uniform
from attrtrain.run_layout import CONFIG, HISTORY, RESULT
from attrtrain.signals import STOP_SIGNALS
from attrtrain.wording import one_line

Trial = dict[str, Any]
_BEGUN_WITH = {("run", "seed"), ("data", "shards")}


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        SystemExit: it cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SystemExit(f"error: {path}: {one_line(error)}") from None


def read_sweep(path: Path) -> dict[str, Any]:
    """The sweep of a YAML file.

    Raises:
        SystemExit: it is no such file.
    """
    sweep = read_yaml(path)
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise SystemExit(f"error: {path}: holds no W&B sweep with `parameters`")
    for name, parameter in sweep["parameters"].items():
        if not isinstance(parameter, dict):
            raise SystemExit(f"error: {path}: {name}: must hold value, values, or min and max, not {parameter!r}")
        if "probabilities" in parameter:
            raise SystemExit(f"error: {path}: {name}: probabilities are not known here; leave them out")
        if "values" in parameter and not (isinstance(parameter["values"], list) and parameter["values"]):
            raise SystemExit(f"error: {path}: {name}: values must be a list of at least one")
        for end in ("min", "max"):
            if isinstance(parameter.get(end, 0), bool | list | dict | None):
                raise SystemExit(f"error: {path}: {name}: {end}: {parameter[end]!r} is no number")
            if isinstance(parameter.get(end), str):
                raise SystemExit(
                    f"error: {path}: {name}: {end}: {parameter[end]!r} is no number to YAML, which wants 1.0e-4 for 1e-4"
                )
        if parameter.get("distribution") == "log_uniform_values" and not parameter.get("min", 1) > 0:
            raise SystemExit(f"error: {path}: {name}: log_uniform_values begins above 0")
        if {"min", "max"} <= parameter.keys() and parameter["min"] > parameter["max"]:
            raise SystemExit(f"error: {path}: {name}: min {parameter['min']} is more than max {parameter['max']}")
    if not sweep["parameters"]:
        raise SystemExit(f"error: {path}: has no parameters to try")
    metric = sweep.get("metric", {"name": ""})
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise SystemExit(
            f"error: {path}: metric: must hold a name, such as {{name: val/best_map, goal: maximize}}, not {metric!r}"
        )
    return sweep


def grid(parameters: dict[str, dict[str, Any]]) -> list[Trial]:
    """Every combination of the values of each parameter, the last one changing fastest.

    Raises:
        SystemExit: a parameter has a range in place of values.
    """
    for name, parameter in parameters.items():
        if "values" not in parameter and "value" not in parameter:
            raise SystemExit(f"error: {name}: a grid needs `values` or `value`")
    values = [parameter.get("values", [parameter.get("value")]) for parameter in parameters.values()]
    return [dict(zip(parameters, chosen, strict=True)) for chosen in product(*values)]


def draw(parameters: dict[str, dict[str, Any]], seed: int, number: int) -> Trial:
    """Trial `number` of a random search: a function of the seed, the number and each parameter's name.

    Raises:
        SystemExit: a distribution that is not known here.
    """
    return {
        name: _value(name, parameter, float(uniform(seed, number, crc32(name.encode()))))
        for name, parameter in parameters.items()
    }


def _value(name: str, parameter: dict[str, Any], share: float) -> Any:
    """The value at a share in [0, 1) of a parameter's distribution."""
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return parameter["values"][int(share * len(parameter["values"]))]
    low, high = parameter.get("min"), parameter.get("max")
    if low is None or high is None:
        raise SystemExit(f"error: {name}: needs value, values, or min and max")
    whole = isinstance(low, int) and isinstance(high, int)
    match parameter.get("distribution", "int_uniform" if whole else "uniform"):
        case "uniform":
            return low + share * (high - low)
        case "int_uniform":
            return low + int(share * (high - low + 1))
        case "log_uniform_values":
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        case other:
            raise SystemExit(
                f"error: {name}: the distribution {other} is not known here; uniform, int_uniform and log_uniform_values are"
            )


def flags_of(settings: Trial) -> list[str]:
    """Settings by name as flags of the trainer."""
    return [f"--{name}={_as_flag(value)}" for name, value in settings.items()]


def _as_flag(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def require_same(folder: Path, words: Sequence[str]) -> None:
    """Refuses a finished run of other settings than would be trained now, which would stand under the wrong name.

    Args:
        folder: of the run.
        words: the trainer's command line.

    Raises:
        SystemExit: it names what differs.
    """
    if not (folder / CONFIG).exists():
        return
    try:
        before, now = asdict(load_config([str(folder / CONFIG)])), load_config(list(words))
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    differing = [
        f"{'.'.join(key)}: {old} → {new}"
        for key, (old, new) in changes(before, now).items()
        if decides_numbers(key) or key in _BEGUN_WITH
    ]
    if differing:
        raise SystemExit(
            f"error: {folder} was trained under other settings ({'; '.join(differing)}); give another --out, or remove that folder"
        )


def run_training(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Runs the trainer and returns its exit code: 128 + N where signal N ended it. Who asks this process to stop asks
    the trainer, which saves first.

    Raises:
        SystemExit: with the trainer's exit code, where it was asked to stop.
    """
    asked: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _: object) -> None:
        asked.append(number)
        for process in started:
            if number != signal.SIGINT:  # a terminal sends Ctrl-C to both, and the second would end it at once
                process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in STOP_SIGNALS}
    try:
        with subprocess.Popen(command, env=environment) as process:
            started.append(process)
            for number in asked:  # before it was there
                process.send_signal(number)
            ended = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = ended if ended >= 0 else 128 - ended
    if asked:
        raise SystemExit(code or 128 + asked[0])  # it may have been done before it heard
    return code


def run_trial(trial: Trial, folder: Path, train: Sequence[str]) -> bool:
    """Trains one trial, if that is not done.

    Returns:
        Whether it came to its end: a rate that is too high, or a network too large for the memory, is no reason not to
        try the others.

    Raises:
        SystemExit: it was stopped, or its settings are refused, and the trainer has said why; or it was trained under
            other settings.
    """
    words = [*train, "--run.dir", str(folder), *flags_of(trial)]
    if (folder / RESULT).exists():
        require_same(folder, words)
        return True
    command = [sys.executable, "-m", "attrtrain.train", *words]
    print(f"$ {shlex.join(['python', *command[1:]])}", flush=True)
    code = run_training(command)
    if code not in (0, AttrtrainError.exit_code):
        raise SystemExit(code)
    return code == 0


def outcome(folder: Path, metric: str) -> float:
    """The last value of a metric such as val/best_map in a run directory; NaN where it was never a number.

    Raises:
        SystemExit: the run has no such metric; it names those it has.
    """
    logged: dict[str, list[float | None]] = {}
    for line in map(json.loads, (folder / HISTORY).read_text().splitlines()):
        for name, value in line.items():
            if name not in ("kind", "step"):
                logged.setdefault(f"{line['kind']}/{name}", []).append(value)
    if metric not in logged:
        raise SystemExit(f"error: metric: {folder} has no {metric}, but {', '.join(sorted(logged))}")
    found = [value for value in logged[metric] if value is not None]
    return float(found[-1]) if found else math.nan


def table(metric: str, largest_first: bool, trials: Sequence[Trial], values: Sequence[float]) -> str:
    """The trials as a Markdown table, the best first."""
    names = list(trials[0])
    rows = [f"| trial | {metric} | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    by_value = sorted(
        range(len(trials)), key=lambda number: (math.isnan(values[number]), (-1) ** largest_first * values[number])
    )
    for number in by_value:
        told = [
            f"{value:.4g}" if isinstance(value, float) else str(value) for value in (trials[number][n] for n in names)
        ]
        rows.append(f"| {number:04d} | {values[number]:.4f} | {' | '.join(told)} |")
    return "\n".join([*rows, ""])


def main() -> int:
    """Parses the command line, runs what is missing, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and table")
    parser.add_argument("--count", type=int, metavar="N", help="trials, at least 1; a grid has as many as it has")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws")
    arguments, train = parser.parse_known_args()
    out: Path = arguments.out
    if arguments.count is not None and arguments.count < 1:
        raise SystemExit(f"error: --count {arguments.count}: must be at least 1")
    sweep = read_sweep(arguments.sweep)
    if sweep.get("method") == "grid":
        trials = grid(sweep["parameters"])[: arguments.count]
    else:
        if arguments.count is None:
            raise SystemExit("error: --count: trials that are drawn at random have no end; say how many")
        if sweep.get("method") == "bayes":
            print("method bayes: drawn at random here, for nothing learns between trials", file=sys.stderr)
        trials = [draw(sweep["parameters"], arguments.seed, number) for number in range(arguments.count)]
    if "early_terminate" in sweep:
        print("early_terminate: every trial is trained to its end here", file=sys.stderr)
    metric = sweep.get("metric", {"name": "val/best_map", "goal": "maximize"})
    folders = [out / f"{number:04d}" for number in range(len(trials))]
    values = []
    for trial, folder in zip(trials, folders, strict=True):  # a metric that no run has is told after the first
        values.append(outcome(folder, metric["name"]) if run_trial(trial, folder, train) else None)
    failed = [folder for folder, value in zip(folders, values, strict=True) if value is None]
    if len(failed) == len(folders):
        raise SystemExit("error: every trial failed; the trainer has said why")
    numbers = [math.nan if value is None else value for value in values]
    text = table(metric["name"], metric.get("goal") == "maximize", trials, numbers)
    (out / "sweep.md").write_text(text)
    print(text)
    if failed:
        print("failed, so without a number: trials", *(folder.name for folder in failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
