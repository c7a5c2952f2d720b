"""attrtrain's own loader, as training uses it."""

import numpy as np
import torch

from attrtrain.data.loader import CropDataset, PackedBatch, load_batches
from attrtrain.data.order import TrainOrder
from attrtrain.data.reader import ShardSet
from tools.bench.data import SPLIT
from tools.bench.loader import Batches, Spec


def batches(spec: Spec) -> Batches:
    """Batches of uint8 images on the CPU, in training's order."""
    torch.set_num_threads(1)
    shards = ShardSet([spec.shards], SPLIT)
    order = TrainOrder(len(shards), spec.seed, spec.batch, spec.batch, rank=0, world_size=1)
    loaded = load_batches(
        CropDataset(shards, spec.image_px), order.requests(spec.epochs, 0, 0), torch.device("cpu"), spec.workers
    )
    for batch in loaded:
        yield batch.image, shards.column("object_id", np.asarray(batch.index))


def workers_share(spec: Spec) -> Batches:
    """What is left to workers where the device resizes: crops in their own sizes, in one tensor a batch."""
    shards = ShardSet([spec.shards], SPLIT)
    order = TrainOrder(len(shards), spec.seed, spec.batch, spec.batch, rank=0, world_size=1)
    dataset = CropDataset(shards, spec.image_px, "device")
    for request in order.requests(spec.epochs, 0, 0):
        packed = dataset[request]
        assert isinstance(packed, PackedBatch)
        yield packed.batch.image, shards.column("object_id", request.index)
