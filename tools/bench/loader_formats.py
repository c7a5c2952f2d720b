"""Loaders with shards of a format of their own; what they store is the same JPEG bytes."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrtrain.data.reader import ShardSet
from tools.bench.data import SPLIT
from tools.bench.loader import Batches, Spec
from tools.bench.loader_torch import common_sample, common_transform, loaded

_CHUNK = "64MB"


def litdata(spec: Spec) -> Batches:
    """Lightning's StreamingDataset from a local folder, PIL and torchvision v2."""
    from litdata import StreamingDataLoader, StreamingDataset

    torch.set_num_threads(1)
    transform = common_transform(spec.image_px)

    class Crops(StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[Tensor, int]:
            sample = super().__getitem__(index)
            return common_sample(sample["jpeg"], transform), int(sample["object_id"])

    dataset = Crops(spec.converted, shuffle=True, seed=spec.seed, drop_last=False)
    loader = StreamingDataLoader(
        dataset, batch_size=spec.batch, num_workers=spec.workers, prefetch_factor=4 if spec.workers else None
    )
    for _ in range(spec.epochs):
        for images, ids in loader:
            yield images, ids.numpy()


def write_litdata(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Packs the crops into chunks."""
    from litdata.streaming.writer import BinaryWriter

    wanted = Spec(**spec)
    partial = _fresh(wanted.converted)
    writer = BinaryWriter(str(partial), chunk_bytes=_CHUNK)
    for number, (object_id, jpeg) in enumerate(_crops(wanted)):
        writer.add_item(number, {"object_id": object_id, "jpeg": jpeg})
    writer.done()
    writer.merge()
    partial.rename(wanted.converted)
    return {}


def mosaic(spec: Spec) -> Batches:
    """MosaicML's StreamingDataset from a local folder, PIL and torchvision v2."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    torch.set_num_threads(1)
    clean_stale_shared_memory()
    transform = common_transform(spec.image_px)

    class Crops(StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[Tensor, int]:
            sample = super().__getitem__(index)
            return common_sample(sample["jpeg"], transform), int(sample["object_id"])

    dataset = Crops(local=spec.converted, shuffle=True, shuffle_seed=spec.seed, batch_size=spec.batch)
    for _ in range(spec.epochs):
        yield from loaded(dataset, spec)


def write_mosaic(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Packs the crops into MDS shards."""
    from streaming import MDSWriter

    wanted = Spec(**spec)
    partial = _fresh(wanted.converted)
    with MDSWriter(out=str(partial), columns={"object_id": "int", "jpeg": "bytes"}, size_limit="64mb") as writer:
        for object_id, jpeg in _crops(wanted):
            writer.write({"object_id": object_id, "jpeg": jpeg})
    partial.rename(wanted.converted)
    return {}


def _crops(spec: Spec) -> Any:
    shards = ShardSet([spec.shards], SPLIT)
    for position, object_id in enumerate(shards.column("object_id").tolist()):
        yield object_id, shards.jpeg(position)


def _fresh(folder: str) -> Path:
    """Where to write before the final name is given: conversion that fails leaves nothing behind under it."""
    partial = Path(f"{folder}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial
