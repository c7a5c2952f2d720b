"""Memory that is used again, and never while somebody looks at it."""

import gc
from collections import deque

import torch

from attrtrain.data.buffers import Buffers


def test_memory_is_used_again_once_nobody_holds_it() -> None:
    buffers = Buffers()
    first = buffers.take(1000)
    place = first.data_ptr()
    view = first.view(10, 100)[3]
    del first
    assert buffers.take(1000).data_ptr() != place  # a view of it is alive
    del view
    gc.collect()
    places = {buffers.take(size).data_ptr() for size in (1000, 10, 1000)}
    assert place in places and len(places) <= 2  # and smaller ones fit too


def test_no_two_living_tensors_share_memory() -> None:
    buffers = Buffers()
    alive: deque[torch.Tensor] = deque(maxlen=20)  # more than are kept
    for number in range(200):
        tensor = buffers.take(50 + number % 70)
        tensor.fill_(number % 251)
        alive.append(tensor)
        for age, one in enumerate(reversed(alive)):
            assert (one == (number - age) % 251).all() and len(one) == 50 + (number - age) % 70
