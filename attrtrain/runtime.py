"""The one place that builds an Accelerator."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DDPCommunicationHookType,
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    KwargsHandler,
    broadcast,
    broadcast_object_list,
    set_seed,
)

from attrtrain.config.schema import Precision
from attrtrain.device import device_type, to_device
from attrtrain.errors import (
    AttrtrainError,
    CheckpointError,
    ConfigError,
    MemoryExceededError,
    OneProcessError,
    ProcessLostError,
    ShardError,
)
from attrtrain.keyed_random import mix64
from attrtrain.launcher import adopt_slurm_step, prepare_cpu, process_cores
from attrtrain.wording import counted, first_line


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
        """Decoding threads for this process; -1 leaves a CPU to the model and gives a GPU up to 8 of the machine's
        cores.
        """
        return decoding_workers(self.device, asked)

    def any_rank(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on any rank. Collective."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        own = torch.tensor(flags, dtype=torch.float32, device=self.device)
        return [count > 0 for count in self.accelerator.reduce(own, reduction="sum").tolist()]

    def from_main(self, *texts: str) -> list[str]:
        """The main process's texts; those of others do not count. Collective."""
        told = list(texts)
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told, from_process=0)
        return told

    def agree_on_buffers(self, model: torch.nn.Module) -> None:
        """Gives every rank the buffers of rank 0: running statistics of batch normalisation differ by what each rank
        has seen. Collective.
        """
        if self.accelerator.num_processes > 1:
            for buffer in model.buffers():
                broadcast(buffer, from_process=0)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copies a tensor of the CPU to the device; a CUDA GPU is not waited for, which fetches from pinned memory: the
        driver may wait where memory is not.
        """
        return to_device(tensor.pin_memory() if self.device.type == "cuda" else tensor, self.device)

    def autocast(self) -> torch.autocast:
        """The context in which networks compute, in training and evaluation alike."""
        return autocast(self.device, self.precision)


def autocast(device: torch.device, precision: Literal["no", "fp16", "bf16"]) -> torch.autocast:
    """The context in which a network computes in a precision on a device."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "no")


def usable_precision(precision: Precision, device: str) -> Literal["no", "fp16", "bf16"]:
    """The precision that a model was evaluated in where a kind of device ("cuda", "mps", "cpu") computes in it; for a
    mixed one that it lacks, the device's own choice.
    """
    own = resolve_precision("auto", device)
    if precision == "no" or (precision == "fp16" and device == "cuda"):
        return precision
    return own


def decoding_workers(device: torch.device, asked: int) -> int:
    """How many help a process on a device to decode; -1 leaves a CPU to the model and gives a GPU up to 8 of the
    machine's cores.
    """
    if asked >= 0:
        return asked
    return min(8, process_cores()) if device.type == "cuda" else 0


@dataclass(frozen=True)
class DistributedOptions:
    """How DistributedDataParallel shares gradients.

    Attributes:
        static_graph: the same parameters get gradients in every step, in one backward pass a step; lets DDP skip its
            search for unused ones.
        compress: gradients travel as bf16.
    """

    static_graph: bool
    compress: bool

    def handler(self) -> DistributedDataParallelKwargs:
        """As Accelerate takes it."""
        return DistributedDataParallelKwargs(
            gradient_as_bucket_view=True,
            static_graph=self.static_graph,
            comm_hook=DDPCommunicationHookType.BF16 if self.compress else DDPCommunicationHookType.NO,
        )


PATIENCE_SECONDS = 600.0
_OTHER_ENGINES = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
_OTHER_PARALLELISM = {"TP": "tensor", "CP": "context", "SP": "sequence"}  # in which processes share their objects


def build_runtime(
    precision: Precision, timeout_seconds: float = PATIENCE_SECONDS, distributed: DistributedOptions | None = None
) -> Runtime:
    """Sets up devices, precision and the process group from the environment that `accelerate launch`, torchrun, srun or
    nothing at all gives.

    Several processes return together. If rank 0 went ahead and found a mistake in its settings, the others could still
    be asking it for each other's addresses.

    Args:
        precision: as configured; "auto" is resolved here.
        timeout_seconds: how long a process waits for the others before it gives up.
        distributed: how gradients are shared; torch's defaults without.

    Raises:
        ConfigError: fp16 where the device does not compute in it, a launch in which every process believes it is alone,
            or one for an engine of another's.
        ProcessLostError: the processes did not all meet within the timeout, or one of them died before.
    """
    _require_own_engine()
    adopt_slurm_step()
    device = device_type()
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    _require_own_data_parallelism(device, launched)
    if device == "cpu":
        prepare_cpu()
    chosen = resolve_precision(precision, device)
    AcceleratorState._reset_state()  # kept for the whole process; another command in it may need another precision
    handlers: list[KwargsHandler] = [InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_seconds))]
    if distributed is not None:
        handlers.append(distributed.handler())
    with _explained_meeting(launched):
        # All said here, because Accelerate would else take it from the environment, and divide gradients that we
        # accumulate ourselves.
        accelerator = Accelerator(
            mixed_precision=chosen,
            cpu=device == "cpu",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            dynamo_backend="no",
            kwargs_handlers=handlers,
        )
        if launched != accelerator.num_processes:
            raise ConfigError(
                f"{launched} processes were launched, but Accelerate knows of {accelerator.num_processes}, so each would train alone; on CPUs launch "
                f"with `ACCELERATE_USE_CPU=true torchrun --nproc_per_node {launched} -m attrtrain.train ...`, on GPUs with "
                f"`accelerate launch --multi_gpu --num_processes {launched} -m attrtrain.train ...`"
            )
        accelerator.wait_for_everyone()
    return Runtime(accelerator, chosen)


def _require_own_engine() -> None:
    """Refuses what `accelerate launch` was configured for, perhaps for another project, and which makes steps and
    checkpoints in ways of its own. Raises ConfigError.
    """
    asked = [engine for variable, engine in _OTHER_ENGINES.items() if _asks_for(variable)]
    asked += [f"{what} parallelism" for axis, what in _OTHER_PARALLELISM.items() if _asked_size(axis) != 1]
    if asked:
        raise ConfigError(
            f"Accelerate's configuration asks for {asked[0]}, through which attrtrain cannot train; launch with --config_file and one of accelerate_configs/"
        )


def _require_own_data_parallelism(device: str, launched: int) -> None:
    """Refuses sizes of data parallelism that do not fit what was launched, which Accelerate fails on in several ways;
    it has none on CPUs. Raises ConfigError.
    """
    asked = _asked_size("DP_REPLICATE") * _asked_size("DP_SHARD")
    if asked != 1 and (asked != launched or device == "cpu"):
        raise ConfigError(
            f"Accelerate's configuration asks for data parallelism over {asked} GPUs, but {counted(launched, 'process was', 'processes were')} "
            f"started, on {device}; launch with --config_file and one of accelerate_configs/"
        )


def _asks_for(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def _asked_size(axis: str) -> int:
    """Over how many processes Accelerate's configuration spreads one kind of parallelism."""
    if not _asks_for("ACCELERATE_USE_PARALLELISM_CONFIG"):
        return 1
    return int(os.environ.get(f"PARALLELISM_CONFIG_{axis}_SIZE", "1"))


# What gloo and NCCL say, as plain RuntimeErrors, of a peer that is gone or silent.
_SIGNS_OF_A_LOST_PROCESS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "pair closure")


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    words = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(sign in words for sign in _SIGNS_OF_A_LOST_PROCESS)


@contextmanager
def _explained_meeting(launched: int) -> Iterator[None]:
    """Turns what torch says when so many processes do not all meet into one line."""
    try:
        yield
    except RuntimeError as error:
        if launched == 1 or not _tells_of_a_lost_process(error):
            raise
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ProcessLostError(
            f"process {os.environ.get('RANK')} of {launched} stops: not all of them met at {place} ({first_line(error).rstrip('.')}); another "
            "one's log may say why. If none does, MASTER_ADDR and MASTER_PORT must be the same for all, reachable from each, and the port free"
        ) from None


@contextmanager
def explained_process_loss(runtime: Runtime, patience: str, then: str) -> Iterator[None]:
    """Turns a broken connection to another process into one line.

    Args:
        runtime: of this process.
        patience: how long the others are waited for, in words.
        then: what starting all of them again does.

    Raises:
        ProcessLostError: a collective failed because another process died, or did not come within the timeout.
    """
    try:
        yield
    except RuntimeError as error:
        if runtime.accelerator.num_processes == 1 or not _tells_of_a_lost_process(error):
            raise
        words = str(error).lower()
        what = f"did not answer within {patience}" if "timed out" in words or "timeout" in words else "is gone"
        raise ProcessLostError(
            f"process {runtime.accelerator.process_index} of {runtime.accelerator.num_processes} stops: another one {what}. Its own log says why; "
            f"start all of them again {then}"
        ) from None


def of_one_process(runtime: Runtime, error: AttrtrainError) -> AttrtrainError:
    """The error as it is to be raised where this process of several may be the only one that met it: of a crop, a file
    or memory. The others only see that it is gone.
    """
    accelerator = runtime.accelerator
    if accelerator.num_processes == 1 or not isinstance(error, ShardError | CheckpointError | MemoryExceededError):
        return error
    return OneProcessError(f"process {accelerator.process_index} of {accelerator.num_processes}: {error}")


def leave_group(runtime: Runtime) -> None:
    """Ends this process's part in the group, where there is one, when it has no more to say to the others. Whoever
    calls it holds no prepared model any more.

    A process that leaves while its group still stands is now and then aborted by the group's own threads. And where a
    prepared model is the last to hold the group, its end waits for these threads without letting go of the interpreter,
    for which they may be waiting: a run that has finished would never leave.
    """
    runtime.accelerator.free_memory()
    gc.collect()  # a prepared model is part of cycles
    runtime.accelerator.end_training()


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, for building the model; equal on every rank."""
    set_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch for one optimizer step, so that dropout follows from (seed, step, rank) and there is no generator
    state to lose.
    """
    torch.manual_seed(int(mix64(seed, step, rank)) >> 1)


def resolve_precision(precision: Precision, device: str) -> Literal["no", "fp16", "bf16"]:
    """What "auto" comes to on a kind of device ("cuda", "mps", "cpu"); any other precision is itself.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    match precision, device:
        case "auto", "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        case "auto", "cpu":
            # Emulated bf16 is slower than float32; these two are the instruction sets that compute in it.
            return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"
        case "auto", _:
            return "no"
        case "fp16", "cpu":
            raise ConfigError("train.precision: fp16 needs a GPU; use bf16, auto or no on a CPU")
        case ("no" | "fp16" | "bf16") as given, _:
            return given
    raise AssertionError(precision)
