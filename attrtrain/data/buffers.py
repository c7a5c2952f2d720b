"""Memory for decoded pictures that is used over and over.

A batch is megabytes, which the C library takes from the system and gives back each time, and the system maps page by
page: on virtual machines that takes a quarter of the time of reading. Here a buffer stays, and is handed out again once
nobody holds a tensor in it any more.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST = 8  # buffers kept; whoever collects batches gets memory of its own beyond them
_IDLE = 2  # references to a buffer that nobody uses: the list's, and that of getrefcount's argument


class Buffers:
    """Buffers of one thread; those who use the tensors may be others."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def take(self, size: int) -> Tensor:
        """(size,) uint8 of any content, in memory that no living tensor shares."""
        for place in range(len(self._kept)):
            if sys.getrefcount(self._kept[place]) == _IDLE:
                if len(self._kept[place]) < size:
                    self._kept[place] = np.empty(size, dtype=np.uint8)
                return torch.from_numpy(self._kept[place][:size])
        fresh = np.empty(size, dtype=np.uint8)
        if len(self._kept) < _MOST:
            self._kept.append(fresh)
        return torch.from_numpy(fresh[:size])
