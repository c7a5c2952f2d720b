"""`attrtrain find`: a micro-batch and a learning rate to start with."""

import argparse
from dataclasses import replace
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.garbage import no_garbage_collection
from attrtrain.urls import require_writable

_HIGHEST = 1e12
TAKES_MORE = True  # of the words that `attrtrain train` takes
EXAMPLES = """A few steps are made with micro-batches of several sizes, and the largest that fits into memory and is nearly as fast as the fastest is taken. Then a rate that rises in
every step is tried until the loss goes up, and a tenth of the rate at which the loss was lowest is taken. That is a start, not an optimum: hold it against others
with a sweep.

What else is given is as for `attrtrain train`: a preset or YAML file, and then its flags.

examples:
  attrtrain find --out found.yaml resnet50 --data.shards shards/coco
  accelerate launch -m attrtrain.train found.yaml --run.dir runs/coco"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.yaml", help="the configuration with what was found"
    )
    parser.add_argument(
        "--from", dest="low", type=float, default=1e-6, metavar="RATE", help="lowest rate (default: %(default)g)"
    )
    parser.add_argument(
        "--to", dest="high", type=float, default=1.0, metavar="RATE", help="highest (default: %(default)g)"
    )
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="between them (default: %(default)s)")
    parser.usage = "attrtrain find --out FILE.yaml [--from RATE] [--to RATE] [--steps N] [PRESET or FILE.yaml] [--section.key value ...]"


def run(arguments: argparse.Namespace) -> int:
    """Finds, writes and tells; returns 0."""
    from attrtrain.config.load import dump_config, load_config
    from attrtrain.files import atomic_write

    if not 0 < arguments.low < arguments.high <= _HIGHEST * arguments.low:
        raise ConfigError(
            f"--from {arguments.low:g} --to {arguments.high:g}: the first must be above 0 and below the second, which may be {_HIGHEST:g} times as large"
        )
    if arguments.steps < 10:
        raise ConfigError(f"--steps {arguments.steps}: fewer than 10 show nothing")
    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise ConfigError(
            f"--out {arguments.out}: cannot be written there; give the name of a file in a folder that exists"
        )
    require_writable("--out", arguments.out.parent)
    config = load_config(arguments.more, prog="attrtrain find --out FILE.yaml")
    with no_garbage_collection():
        from attrtrain.starting_point import find_start

    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        print(line, flush=True)  # at once: each takes its time, and the next thing may fail

    def tell_speed(size: int, speed: float | None) -> None:
        came_to = f"{speed:.1f} objects a second" if speed is not None else "does not fit into memory"
        tell(f"micro-batch {size}: {came_to}")

    micro, rate = find_start(
        config,
        arguments.low,
        arguments.high,
        arguments.steps,
        tell_speed,
        lambda micro: tell(f"train.micro_batch {micro.chosen}: the largest that is nearly as fast as the fastest"),
    )
    for rates, loss in _some(rate.rates, rate.losses):
        tell(f"rate {rates:.2e}: loss {loss:.4f}")
    tell(f"optim.lr {rate.chosen:g}: a tenth of the rate at which the smoothed loss was lowest")
    found = replace(
        config,
        # 0, all of a process's share, goes on fitting when there are more processes.
        train=replace(config.train, micro_batch=micro.chosen if micro.chosen < config.train.global_batch else 0),
        optim=replace(config.optim, lr=rate.chosen),
    )
    comments = "".join(f"# {line}\n" for line in ["Found by `attrtrain find`:", *told])
    try:
        with atomic_write(arguments.out) as file:
            file.write((comments + dump_config(found)).encode())
    except OSError as error:
        raise ConfigError(f"--out {arguments.out}: {error.strerror or error}") from None
    print(f"{arguments.out} has both")
    return 0


def _some(rates: list[float], losses: list[float]) -> list[tuple[float, float]]:
    """About a dozen points of the curve, its end among them."""
    step = max(1, len(rates) // 12)
    return [*zip(rates, losses, strict=True)][::-1][::step][::-1]
