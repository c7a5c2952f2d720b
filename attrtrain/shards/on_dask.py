"""Shard jobs → the workers of a Dask cluster."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

from attrtrain.errors import ConfigError, ShardError
from attrtrain.shards.execute import progress_bar, write_with
from attrtrain.shards.write import ShardJob, clean

_CONNECT_SECONDS = 15
_WORKER_SECONDS = 60  # how long a cluster may be without a worker


def write_on_dask(jobs: Sequence[ShardJob], scheduler: str) -> None:
    """Writes shards on the workers of a Dask cluster, which must see the same folders under the same paths.

    A worker that dies costs its shards in progress; Dask gives them to another one, four times at most.

    Args:
        jobs: what to write.
        scheduler: its address, such as tcp://node1:8786.

    Raises:
        ConfigError: dask.distributed is not installed.
        ShardError: the scheduler does not answer or goes away, no worker is there, workers keep dying, or a shard
            cannot be written. Finished shards are kept.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import resolve_address
    except ImportError:
        raise ConfigError("--dask needs dask.distributed: pip install 'attrtrain[dask]'") from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # its tracebacks of a lost connection; we tell it in a line
    try:
        resolve_address(scheduler)  # a client that makes no sense of its address waits 30 s when it is thrown away
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ShardError(
            f"--dask {scheduler}: no scheduler answers there ({error}); start one with `dask scheduler`"
        ) from None
    last_seen = time.monotonic()

    def require_workers() -> None:
        nonlocal last_seen
        if client.status != "running":
            raise CancelledError
        if client.scheduler_info(n_workers=-1)["workers"]:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > _WORKER_SECONDS:
            raise ShardError(
                f"--dask {scheduler}: for {_WORKER_SECONDS} s it has had no worker; finished shards are kept: "
                "start some with `dask worker`, and run the same command again"
            )

    here = [_at_absolute_paths(job) for job in jobs]
    try:
        with client, progress_bar(sum(map(len, jobs))) as bar:
            executor = client.get_executor(pure=False)
            write_with(executor, here, on_shard=lambda job: bar.update(len(job)), on_idle=require_workers)
    except KilledWorker:
        raise ShardError(
            f"--dask {scheduler}: workers keep dying (out of memory?); finished shards are kept: "
            "run the same command again, with fewer threads a worker"
        ) from None
    except CancelledError:
        raise ShardError(
            f"--dask {scheduler}: the scheduler has gone; finished shards are kept: run the same command again"
        ) from None
    except (ImportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "deserialization" not in str(error):
            raise
        raise ShardError(
            f"--dask {scheduler}: scheduler and workers must have this version of attrtrain, and one has not"
        ) from None
    clean(jobs[0].folder, [job.name for job in jobs])  # after workers that died within a shard


def _at_absolute_paths(job: ShardJob) -> ShardJob:
    # Workers have working folders of their own.
    image_folders = (folder.absolute() if isinstance(folder, Path) else folder for folder in job.image_folders)
    return replace(job, folder=job.folder.absolute(), image_folders=tuple(image_folders))
