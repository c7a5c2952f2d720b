"""A CUDA GPU where there is none: tensors that say they are on it lie in memory of the CPU, and refuse what a GPU's
refuse, to be computed with beside others of the CPU, and to be read by NumPy.

It shows that everything is where it has to be, in whole commands and with gradients, and that what is there only for a
GPU runs. It computes in single precision whatever is asked for, copies at once, and waits for nothing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")  # by places on the CPU, too
_to = Tensor.to
_tensor = torch.tensor


class GpuTensor(Tensor):
    """Says of itself that it is on the GPU, and holds a tensor of the CPU.

    To torch's own code it is one of the CPU, so that autograd asks no driver for streams.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "GpuTensor":
        """Takes over a tensor of the CPU, without its gradient."""
        held = held.detach()
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # torch gives it no types
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CPU
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    device = property(lambda _: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_cpu = property(lambda _: False)  # type: ignore[assignment]

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return _ToCpu.apply(self)  # type: ignore[no-any-return, no-untyped-call]

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = GpuTensor(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, _: Any) -> Any:
        raise TypeError("a tensor of the GPU is saved as it is")  # it would come back on whichever GPU there is

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class _ToCpu(Function):
    @staticmethod
    def forward(ctx: Any, there: GpuTensor) -> Tensor:
        return there.held.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return GpuTensor(gradient)


class _ToGpu(Function):
    @staticmethod
    def forward(ctx: Any, here: Tensor) -> Tensor:
        return GpuTensor(here.clone())

    @staticmethod
    def backward(ctx: Any, gradient: GpuTensor) -> Any:
        return gradient.held


class _OnGpu(TorchDispatchMode):
    """Makes there what is asked for on a GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_gpu(kwargs.get("device")) or any(isinstance(value, GpuTensor) for value in tree_leaves((args, kwargs))):
            return _computed(function, args, kwargs)
        return function(*args, **kwargs)


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on what the tensors hold, which must all be on the GPU, but for single numbers."""
    name = function._schema.name.removeprefix("aten::")
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor) and tensor.dim() > 0]
    by_places = name in _INDEXED and isinstance(args[0], GpuTensor)
    if there and here and name != "copy_" and not by_places:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got some of cuda:0 and the CPU")
    device = kwargs.get("device")
    stays = bool(there) if device is None else _is_gpu(device)
    given = tree_map(lambda value: value.held if isinstance(value, GpuTensor) else value, (args, kwargs))
    result = function(*given[0], **given[1] | ({"device": CPU} if _is_gpu(device) else {}))
    if not function._schema.returns:
        return None
    if function._schema.is_mutable and name.endswith("_"):  # it is the first tensor that it has changed
        return args[0]
    return tree_map(lambda value: GpuTensor(value) if stays and isinstance(value, Tensor) else value, result)


def _moved(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """As `Tensor.to`."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    options = {} if memory_format is None else {"memory_format": memory_format}
    if isinstance(tensor, GpuTensor) and device is not None and device.type == "cpu":
        tensor = tensor.cpu()
    elif not isinstance(tensor, GpuTensor) and _is_gpu(device):
        tensor = _ToGpu.apply(tensor)  # type: ignore[no-untyped-call]
    return _to(tensor, dtype or tensor.dtype, copy=copy, **options)


def _made(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    """As `torch.tensor`."""
    if not _is_gpu(device):
        return _tensor(data, device=device, requires_grad=requires_grad, **options)
    return GpuTensor(_tensor(data, **options)).requires_grad_(requires_grad)


def _pinned(tensor: Tensor) -> Tensor:
    """As `Tensor.pin_memory`."""
    if isinstance(tensor, GpuTensor):
        raise RuntimeError("cannot pin a tensor of the GPU")
    return tensor.clone()


class _Stream:
    """A stream on which all is done at once."""

    def __init__(self, *_: Any) -> None:
        pass

    def record_event(self) -> None:
        """Nothing is to be waited for."""

    def wait_event(self, _: None) -> None:
        """As above."""


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has torch, in all threads that are started within, believe in one GPU."""
    run_thread = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with _OnGpu():
            run_thread(thread)

    said = {
        "_lazy_init": None, "is_available": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True,
        "set_device": None, "synchronize": None, "manual_seed_all": None,
        "reset_peak_memory_stats": None, "max_memory_allocated": 2**20, "set_rng_state": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8), "stream": nullcontext(),
        "current_stream": _Stream(),
    }  # fmt: skip
    for name, answer in said.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    for name in ("current_device_index", "set_device_index"):
        monkeypatch.setattr(torch.accelerator, name, lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch, "tensor", _made)
    monkeypatch.setattr(Tensor, "to", _moved)
    monkeypatch.setattr(Tensor, "pin_memory", _pinned)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(threading.Thread, "run", run)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # of later and earlier
        monkeypatch.setattr(torch.optim.Optimizer, name, lambda _: None, raising=False)  # releases; asks the driver
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # else a module's parameters stay plain tensors
    try:
        with _OnGpu():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
