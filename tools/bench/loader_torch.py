"""The loaders people write around torch's DataLoader."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from attrtrain.data.reader import ShardSet
from attrtrain.shards.image_lookup import FetchedImage, find_image
from attrtrain.shards.manifest import read_manifest
from tools.bench.contest import BenchError
from tools.bench.data import SPLIT
from tools.bench.loader import Batches, Spec

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def common_transform(image_px: int) -> Callable[[Image.Image], Tensor]:
    """The recipe of torchvision for a PIL image, as its reference training script has it."""
    steps = [
        v2.Resize((image_px, image_px), antialias=True),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(_MEAN, _STD),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose(steps)
    return transform


def common_sample(jpeg: bytes, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """JPEG → (3, H, W) float32, with PIL."""
    return transform(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def webdataset_pil(spec: Spec) -> Batches:
    """The common recipe."""
    transform = common_transform(spec.image_px)
    yield from _webdataset(spec, lambda jpeg: common_sample(jpeg, transform))


def webdataset_torchvision(spec: Spec) -> Batches:
    """The same with torchvision's JPEG decoder and uint8 all the way."""
    resize = v2.Resize((spec.image_px, spec.image_px), antialias=True)

    def decode(jpeg: bytes) -> Tensor:
        data = torch.from_numpy(np.frombuffer(jpeg, dtype=np.uint8).copy())
        image: Tensor = resize(decode_jpeg(data, mode=ImageReadMode.RGB))
        return image

    yield from _webdataset(spec, decode)


def _webdataset(spec: Spec, decode: Callable[[bytes], Tensor]) -> Batches:
    import webdataset

    torch.set_num_threads(1)
    folder = Path(spec.shards)
    urls = [str(folder / shard.name) for shard in read_manifest(folder).shards if shard.split == SPLIT]

    def prepared(sample: dict[str, Any]) -> tuple[Tensor, int]:
        return decode(sample["jpg"]), int(sample["__key__"])

    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=spec.seed, empty_check=False).shuffle(1000)
    dataset = dataset.map(prepared).repeat(spec.epochs)
    yield from loaded(dataset, spec)


class PhotographDataset(Dataset[tuple[Tensor, int]]):
    """Like torchvision's ImageFolder, over the original photographs: open, cut out the box, transform."""

    def __init__(self, spec: Spec) -> None:
        """Looks every object's photograph and box up beforehand."""
        shards = ShardSet([spec.shards], SPLIT)
        self._transform = common_transform(spec.image_px)
        self._ids = shards.column("object_id")
        self._known: dict[int, tuple[Path | FetchedImage, tuple[int, int, int, int]]] = {}
        folders = [Path(folder) for folder in spec.images]
        if not folders:
            raise BenchError("needs the photographs: give --images")
        for position, object_id in enumerate(self._ids.tolist()):
            if object_id not in self._known:
                details = shards.details(position)
                x, y, width, height = details["source_box"]
                box = (math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height))
                self._known[object_id] = find_image(details["image"], folders), box

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        object_id = int(self._ids[position])
        path, (left, top, right, bottom) = self._known[object_id]
        with Image.open(path) as photograph:  # type: ignore[arg-type]  # folders alone were given
            frame = (max(left, 0), max(top, 0), min(right, photograph.width), min(bottom, photograph.height))
            return self._transform(photograph.convert("RGB").crop(frame)), object_id


def photographs(spec: Spec) -> Batches:
    """A Dataset and a shuffling DataLoader."""
    torch.set_num_threads(1)
    dataset = PhotographDataset(spec)
    for epoch in range(spec.epochs):
        generator = torch.Generator().manual_seed(spec.seed + epoch)
        sampler = RandomSampler(dataset, generator=generator)
        yield from loaded(dataset, spec, sampler)


def loaded(dataset: "Dataset[Any]", spec: Spec, sampler: "Sampler[int] | None" = None) -> Batches:
    """Batches of a dataset of (image, object id), through torch's DataLoader."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=spec.batch,
        sampler=sampler,
        num_workers=spec.workers,
        pin_memory=spec.pinned,
        prefetch_factor=4 if spec.workers else None,
    )
    for images, ids in loader:
        yield images, ids.numpy()
