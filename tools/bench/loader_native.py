"""Loaders that decode outside of Python."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attrtrain.data.reader import ShardSet
from attrtrain.shards.manifest import read_manifest
from tools.bench.data import SPLIT
from tools.bench.loader import Batches, Spec


def ffcv(spec: Spec) -> Batches:
    """FFCV over JPEG bytes. Its `workers` are threads, and at least one."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor, ToTorchImage

    class Squash(ResizedCropRGBImageDecoder):
        """The whole crop, squashed to a square."""

        scale = ratio = None

        @property
        def get_crop_generator(self) -> Any:
            def whole(height: int, width: int, *_: Any) -> tuple[int, int, int, int]:
                return 0, 0, height, width

            return whole

    loader = Loader(
        spec.converted,
        batch_size=spec.batch,
        num_workers=max(1, spec.workers),
        order=OrderOption.RANDOM,
        seed=spec.seed,
        os_cache=True,
        drop_last=False,
        pipelines={
            "image": [Squash((spec.image_px, spec.image_px)), ToTensor(), ToTorchImage(convert_back_int16=False)],
            "object_id": [IntDecoder(), ToTensor()],
        },
    )
    for _ in range(spec.epochs):
        for images, ids in loader:
            yield images, ids.numpy().ravel()


def write_ffcv(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Writes one .beton file."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    wanted = Spec(**spec)
    partial = f"{wanted.converted}.partial"
    quality = read_manifest(Path(wanted.shards)).crop.quality
    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=quality), "object_id": IntField()}
    DatasetWriter(partial, fields, num_workers=1).from_indexed_dataset(_DecodedCrops(wanted.shards))
    Path(partial).rename(wanted.converted)
    return {}


class _DecodedCrops:
    """What FFCV's writer takes: arrays, which it encodes anew at the shards' own quality."""

    def __init__(self, folder: str) -> None:
        self._shards = ShardSet([folder], SPLIT)
        self._ids = self._shards.column("object_id")

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, position: int) -> tuple[NDArray[np.uint8], int]:
        import simplejpeg

        return simplejpeg.decode_jpeg(self._shards.jpeg(position), "RGB"), int(self._ids[position])


def dali(spec: Spec) -> Batches:
    """NVIDIA DALI on the CPU: its WebDataset reader, decoder and resize. Its `workers` are threads, and at least
    one.
    """
    from nvidia.dali import fn, pipeline_def, types

    folder = Path(spec.shards)
    tars = [str(folder / shard.name) for shard in read_manifest(folder).shards if shard.split == SPLIT]

    @pipeline_def(batch_size=spec.batch, num_threads=max(1, spec.workers), device_id=None, seed=spec.seed)
    def pipeline() -> Any:
        jpeg, text = fn.readers.webdataset(
            paths=tars, ext=["jpg", "json"], random_shuffle=True, initial_fill=1000, name="reader"
        )
        image = fn.decoders.image(jpeg, device="cpu", output_type=types.RGB)
        image = fn.resize(image, size=[spec.image_px, spec.image_px], antialias=True)
        return fn.transpose(image, perm=[2, 0, 1]), text

    running = pipeline()
    running.build()
    size = next(iter(running.reader_meta().values()))["epoch_size"]
    for _ in range(spec.epochs):
        for begin in range(0, size, spec.batch):
            images, texts = running.run()
            count = min(spec.batch, size - begin)
            array = torch.from_numpy(images.as_array())[:count]
            ids = [_object_id(bytes(texts.at(row))) for row in range(count)]
            yield array, np.array(ids, dtype=np.int64)


def _object_id(text: bytes) -> int:
    """From the sample's JSON, which begins with it."""
    head, _, _ = text.partition(b",")
    return int(head.rpartition(b":")[2])
