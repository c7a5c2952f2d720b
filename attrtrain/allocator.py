"""The C library's memory, for networks that compute on a CPU and for photographs that are decoded one after the
other.
"""

import ctypes
import platform

# <malloc.h> of glibc; see mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER, _NONE, _ONE = -1, 0, 1


def keep_freed_memory() -> None:
    """Has glibc keep what this process frees, from now on; does nothing where the C library is another.

    Every batch takes hundreds of megabytes for what layers put out, every photograph one or two for its pixels, and
    frees them. Left to itself glibc gives most of that back to the system, which clears it and maps it again page by
    page for the next one. The process stays as large as it was at most.

    Where networks compute in another thread than the first, this is to be called before any thread has allocated and
    ended: the heap of one that has stays behind, goes on giving memory back, and may become the computing thread's.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in ((_M_TRIM_THRESHOLD, _NEVER), (_M_MMAP_MAX, _NONE), (_M_ARENA_MAX, _ONE)):
        libc.mallopt(parameter, value)
