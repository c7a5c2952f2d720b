"""Shard jobs → any executor; or the processes of this machine, with a progress bar, stopped without leaving anything
half done.
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from attrtrain.allocator import keep_freed_memory
from attrtrain.errors import ShardError
from attrtrain.parent_process import end_with_parent
from attrtrain.shards.manifest import ShardInfo
from attrtrain.shards.start_workers import children_deaf_to_stops, workers_context
from attrtrain.shards.write import ShardJob, TakenAwayError, clean, write_shard
from attrtrain.signals import interrupts_held_back
from attrtrain.urls import is_url

P = ParamSpec("P")
T = TypeVar("T")


def write_with(
    executor: Executor,
    jobs: Sequence[ShardJob],
    on_shard: Callable[[ShardJob], object] = lambda job: None,
    on_idle: Callable[[], object] = lambda: None,
    task: Callable[[ShardJob], ShardInfo] = write_shard,
) -> None:
    """Writes each shard as a task of its own of any executor, in any order; the bytes are the same.

    After an error, what to do with the tasks that are still waiting is left to whoever made the executor.

    Args:
        executor: its workers must see the folders of the jobs.
        jobs: what to write.
        on_shard: called after each shard.
        on_idle: called in every second in which no shard is finished; what it raises ends the wait.
        task: what is submitted for a job.

    Raises:
        ShardError: a shard cannot be written.
        CancelledError: the executor has given a task up.
    """
    waiting = {executor.submit(task, job): job for job in jobs}
    while waiting:
        finished, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        for future in finished:
            job = waiting.pop(future)
            future.result()
            on_shard(job)
        if not finished:
            on_idle()


def write_here(jobs: Sequence[ShardJob], workers: int) -> None:
    """Writes shards with so many processes of this machine, and shows how far it is.

    Raises:
        ShardError: a shard cannot be written, or a process died. Finished shards are kept.
    """
    objects = sum(map(len, jobs))
    # One that waits for a server hears no Ctrl-C; a process can be ended all the same.
    is_remote = any(map(is_url, jobs[0].image_folders))
    if (workers == 1 or len(jobs) == 1) and not is_remote:
        keep_freed_memory()
        with progress_bar(objects) as bar, interrupts_held_back() as stop_if_interrupted, _nothing_here_is_garbage():

            def after_object() -> None:
                bar.update()
                stop_if_interrupted()

            for job in jobs:
                write_shard(job, after_object)
        return
    context = workers_context()
    done: Synchronized[int] = context.Value("q", 0)
    try:
        with (
            _DeafProcesses(min(workers, len(jobs)), context, _start_worker, (done, {**os.environ})) as executor,
            _stopped_at_once(executor),
            progress_bar(objects) as bar,
            _follow(bar, done),
        ):
            write_with(executor, jobs, task=_write_and_count)
    except TakenAwayError:
        raise  # what else lies there is the other's
    except BaseException as error:
        clean(jobs[0].folder, [job.name for job in jobs])  # after workers that were stopped within a shard
        if isinstance(error, BrokenProcessPool):
            raise ShardError(
                "a worker process died (out of memory?); finished shards are kept: "
                "run the same command again, with fewer --workers"
            ) from None
        raise


class _DeafProcesses(ProcessPoolExecutor):
    """Worker processes that leave it to us what a stop means."""

    def submit(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submits a task, which is where processes are started."""
        with interrupts_held_back(), children_deaf_to_stops():
            try:
                return super().submit(task, *args, **kwargs)
            except EOFError:
                raise BrokenProcessPool("the process died that workers are forks of") from None


@contextmanager
def _nothing_here_is_garbage() -> Iterator[None]:
    """Keeps the garbage collector from looking, again and again while the block runs, through all that is there before
    it: modules and tables, which stay.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def progress_bar(objects: int) -> "tqdm[Any]":
    """The bar that every way of writing shards moves on by objects."""
    # In a log file each update stays to be read: one in half a minute is enough there.
    seconds = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=objects,
        desc="sharding",
        unit=" objects",
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=seconds,
        maxinterval=10 * seconds,
    )


# Each worker process counts the objects it has done into one number that the parent's progress bar follows.
_done: "Synchronized[int] | None" = None


def _start_worker(done: "Synchronized[int]", environment: dict[str, str]) -> None:
    global _done
    _done = done
    os.environ.clear()
    os.environ.update(environment)  # which may be another than when the server started that this is a fork of
    keep_freed_memory()
    gc.freeze()  # as in `_nothing_here_is_garbage`, until the process ends
    end_with_parent()


def _count_object() -> None:
    if _done is not None:
        with _done.get_lock():
            _done.value += 1


def _write_and_count(job: ShardJob) -> ShardInfo:
    return write_shard(job, _count_object)


@contextmanager
def _follow(bar: "tqdm[Any]", done: "Synchronized[int]") -> Iterator[None]:
    """Moves the bar to the workers' count, several times a second, while the block runs."""
    finished = threading.Event()
    count = done.get_obj()  # read without its lock, which a worker that was killed may hold for ever

    def update() -> None:
        while not finished.wait(0.2):
            bar.update(count.value - bar.n)

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        bar.update(count.value - bar.n)


@contextmanager
def _stopped_at_once(executor: ProcessPoolExecutor) -> Iterator[None]:
    """Ends the workers when the block is left by an exception, Ctrl-C among them, without waiting for their shards."""
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C need not hurry what takes no time
        for process in list((executor._processes or {}).values()):
            process.kill()
        raise
