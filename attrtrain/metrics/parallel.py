"""The same for each attribute, on all cores: NumPy lets go of the interpreter while it sorts, gathers and adds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from attrtrain.cores import core_count

T = TypeVar("T")
_LEAST_OBJECTS = 4096  # of fewer, a call is over before a thread has begun


def each_attribute(function: Callable[[int], T], attributes: int, objects: int) -> list[T]:
    """[function(0), …, function(attributes - 1)]. The calls must not depend on each other.

    Args:
        function: what is done with one attribute, by its number.
        attributes: how many.
        objects: that each call goes through.
    """
    threads = min(core_count(), attributes)
    if threads < 2 or objects < _LEAST_OBJECTS:
        return [function(attribute) for attribute in range(attributes)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(attributes)))
