"""The network as a torch.export program in a file."""

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.export import ExportedProgram

from attrtrain.exporting.record import EXTRA_FILE, ExportRecord


def serialise(program: ExportedProgram, record: ExportRecord) -> bytes:
    """The bytes of a .pt2 file that says what it is."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={EXTRA_FILE: record.to_json()})
    return buffer.getvalue()


def loaded(content: bytes) -> Callable[..., Tensor]:
    """What such a file computes once it is read back: images, and codes of categories where it reads them → logits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch 2.11, of memory of its own
        module = torch.export.load(io.BytesIO(content)).module()

    def logits(*given: Tensor) -> Tensor:
        found: Tensor = module(*given)[0]
        return found

    return logits
