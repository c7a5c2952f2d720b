"""The one place that builds an Accelerator, and knows how this process was launched."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from attrtrain.config.schema import Precision
from attrtrain.errors import ConfigError
from attrtrain.keyed_random import mix64


@dataclass(frozen=True)
class Runtime:
    """Where this process computes, and which of how many it is.

    Attributes:
        accelerator: prepares, steps and gathers.
        precision: what `auto` came to.
    """

    accelerator: Accelerator
    precision: Literal["no", "fp16", "bf16"]

    @property
    def device(self) -> torch.device:
        """Where batches and models belong."""
        return torch.device(self.accelerator.device)

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return bool(self.accelerator.is_main_process)

    def workers(self, asked: int) -> int:
        """Decoding processes for this process; -1 leaves a CPU to the model and gives a GPU up to 8 of the machine's cores."""
        if asked >= 0:
            return asked
        if self.device.type != "cuda":
            return 0
        return min(8, _cores())

    def autocast(self) -> torch.autocast:
        """The context in which networks compute, in training and evaluation alike."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "no")


def build_runtime(precision: Precision) -> Runtime:
    """Sets up devices, precision and the process group from the environment that `accelerate launch`, torchrun or nothing at all gives.

    Raises:
        ConfigError: fp16 where the device does not compute in it, or a launch in which every process believes it is alone.
    """
    device = _device_type()
    if device == "cpu":
        _use_all_cores()
    chosen = _resolve(precision, device)
    AcceleratorState._reset_state()  # kept for the whole process; another command in it may need another precision
    accelerator = Accelerator(mixed_precision=chosen, cpu=device == "cpu")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise ConfigError(
            f"{launched} processes were launched, but each would train alone ({accelerator.num_processes} known to Accelerate); on CPUs launch with "
            f"`ACCELERATE_USE_CPU=true torchrun --nproc_per_node {launched} -m attrtrain.train ...`"
        )
    return Runtime(accelerator, chosen)


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, for building the model; equal on every rank."""
    set_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch for one optimizer step, so that dropout follows from (seed, step, rank) and there is no generator state to lose."""
    torch.manual_seed(int(mix64(seed, step, rank)) >> 1)


def _cores() -> int:
    """Processor cores for each process on this machine."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _use_all_cores() -> None:
    """Gives a CPU process its share of the cores.

    `accelerate launch` and torchrun set OMP_NUM_THREADS to 1 where it was unset, which leaves all cores but one idle. Any other value is somebody's choice.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(_cores())


def _device_type() -> Literal["cuda", "mps", "cpu"]:
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _resolve(precision: Precision, device: str) -> Literal["no", "fp16", "bf16"]:
    match precision, device:
        case "auto", "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        case (
            "auto",
            "cpu",
        ):  # emulated bf16 is slower than float32; these two are the instruction sets that compute in it
            return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"
        case "auto", _:
            return "no"
        case "fp16", "cpu":
            raise ConfigError("train.precision: fp16 needs a GPU; use bf16, auto or no on a CPU")
        case ("no" | "fp16" | "bf16") as given, _:
            return given
    raise AssertionError(precision)
