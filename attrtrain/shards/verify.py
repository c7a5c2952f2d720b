"""Rereads every byte of a shard folder and compares it with the manifest."""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attrtrain.shards.manifest import INDEX, LABELS, Manifest, read_manifest


def verify(folder: Path) -> Iterator[str]:
    """Yields a line for everything in the folder that is not as it was written, naming file and, where one is hit, sample.

    Raises:
        ShardError: the manifest itself cannot be read.
    """
    manifest = read_manifest(folder)
    index_is_whole = True
    for name, expected in ((INDEX, manifest.index_sha256), (LABELS, manifest.labels_sha256)):
        if (problem := _whole_file_problem(folder / name, expected)) is not None:
            index_is_whole &= name != INDEX
            yield problem
    for shard in manifest.shards:
        path = folder / shard.name
        if (problem := _whole_file_problem(path, shard.sha256, shard.bytes)) is not None:
            yield problem
            if index_is_whole and path.is_file():
                yield from _damaged_samples(folder, manifest, shard.name)
    for extra in sorted({path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards}):
        yield f"{folder / extra}: not in the manifest; it is read by plain webdataset but not by attrtrain: delete it"
    if index_is_whole:
        yield from _images_in_two_splits(folder, manifest)


def _whole_file_problem(path: Path, sha256: str, size: int | None = None) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    if size is not None and (actual := path.stat().st_size) != size:
        return f"{path}: damaged, {actual:,} bytes instead of {size:,}"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return None if digest == sha256 else f"{path}: damaged, its checksum differs"


def _damaged_samples(folder: Path, manifest: Manifest, name: str) -> Iterator[str]:
    index = np.load(folder / INDEX, allow_pickle=False)
    own = index[index["shard"] == [shard.name for shard in manifest.shards].index(name)]
    damaged = 0
    with (folder / name).open("rb") as file:
        for sample in own:
            file.seek(int(sample["start"]))
            content = file.read(int(sample["end"] - sample["start"]))
            if len(content) != sample["end"] - sample["start"] or zlib.crc32(content) != sample["crc32"]:
                damaged += 1
                yield f"{folder / name}: sample {sample['object_id']:012d} is damaged (bytes {sample['start']} to {sample['end']})"
    if not damaged:
        yield f"{folder / name}: no sample is damaged, only what follows the last one"


def _images_in_two_splits(folder: Path, manifest: Manifest) -> Iterator[str]:
    index = np.load(folder / INDEX, allow_pickle=False)
    splits = [shard.split for shard in manifest.shards]
    names = sorted(set(splits))
    code = np.array([names.index(split) for split in splits], dtype=np.int64)[index["shard"]]
    pairs = np.unique(np.stack([index["image_id"], code], axis=1), axis=0)
    images, counts = np.unique(pairs[:, 0], return_counts=True)
    for image in images[counts > 1]:
        yield f"{folder}: photograph {image} is in two splits"
