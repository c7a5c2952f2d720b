"""Whose worker a process of multiprocessing's is."""

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent() -> None:
    """Has this worker process end at once when its parent is gone, killed perhaps, before it can write beside the run
    that takes over.

    Processes that a fork server started keep that server going, so whether it is there says nothing of the parent.
    """
    threading.Thread(target=_wait_for_parents_end, daemon=True).start()


def _wait_for_parents_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
