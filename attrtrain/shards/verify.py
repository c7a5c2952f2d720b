"""Rereads every byte of a shard folder and compares it with the manifest."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.files import sha256_of
from attrtrain.shards.manifest import INDEX, LABELS, MANIFEST, Manifest, read_manifest, split_statistics


def verify(folder: Path) -> Iterator[str]:
    """Yields a line for everything in the folder that is not as it was written, naming file and, where one is hit,
    sample.

    Raises:
        ShardError: the manifest itself cannot be read.
    """
    manifest = read_manifest(folder)
    problems = {
        name: _file_problem(folder / name, sha256)
        for name, sha256 in ((INDEX, manifest.index_sha256), (LABELS, manifest.labels_sha256))
    }
    yield from (f"{folder / name}: {problem}" for name, problem in problems.items() if problem)
    index = None if problems[INDEX] else np.load(folder / INDEX, allow_pickle=False)
    for number, shard in enumerate(manifest.shards):
        path = folder / shard.name
        if problem := _file_problem(path, shard.sha256, shard.bytes):
            yield f"{path}: {problem}"
            if index is not None and path.is_file():
                yield from _damaged_samples(path, index[index["shard"] == number])
    for extra in sorted({path.name for path in folder.glob("*.tar")} - {shard.name for shard in manifest.shards}):
        yield f"{folder / extra}: not in the manifest; it is read by plain webdataset but not by attrtrain: delete it"
    if index is not None and not problems[LABELS]:
        yield from _wrong_counts(folder, manifest, index, np.load(folder / LABELS, allow_pickle=False))
    if index is not None:
        yield from _images_in_two_splits(folder, manifest, index)


def _file_problem(path: Path, sha256: str, size: int | None = None) -> str | None:
    if not path.is_file():
        return "missing"
    try:
        if size is not None and (actual := path.stat().st_size) != size:
            return f"damaged, {actual:,} bytes instead of {size:,}"
        return None if sha256_of(path) == sha256 else "damaged, its checksum differs"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _damaged_samples(path: Path, samples: NDArray[Any]) -> Iterator[str]:
    """Compares each sample of one shard, (K,) INDEX_DTYPE, with its own checksum."""
    damaged = 0
    with path.open("rb", buffering=0) as file:
        for sample in samples:
            size = int(sample["end"] - sample["start"])
            try:
                content = os.pread(file.fileno(), size, int(sample["start"]))
            except OSError:  # a bad block on the disk
                content = b""
            if len(content) != size or zlib.crc32(content) != sample["crc32"]:
                damaged += 1
                place = f"bytes {sample['start']} to {sample['end']}"
                yield f"{path}: sample {sample['object_id']:012d} is damaged ({place})"
    if not damaged:
        yield f"{path}: no sample is damaged, only what follows the last one"


def _wrong_counts(folder: Path, manifest: Manifest, index: NDArray[Any], labels: NDArray[np.float32]) -> Iterator[str]:
    """Compares the manifest's own figures with index and labels, which its checksums vouch for."""
    samples = np.bincount(index["shard"], minlength=len(manifest.shards)).tolist()
    for shard, counted in zip(manifest.shards, samples, strict=True):
        if shard.samples != counted:
            yield f"{folder / MANIFEST}: says {shard.samples} samples in {shard.name}, the index has {counted}"
    counts = split_statistics(index, labels, manifest.shards)
    for split in sorted(counts.keys() | manifest.splits.keys()):
        if counts.get(split) != manifest.splits.get(split):
            yield f"{folder / MANIFEST}: its counts of split '{split}' are not those of index and labels"
    if manifest.vocabulary.vocabulary().fingerprint != manifest.vocabulary.fingerprint:
        yield f"{folder / MANIFEST}: its attribute names or ids are not those of its fingerprint"


def _images_in_two_splits(folder: Path, manifest: Manifest, index: NDArray[Any]) -> Iterator[str]:
    splits = [shard.split for shard in manifest.shards]
    names = sorted(set(splits))
    code = np.array([names.index(split) for split in splits], dtype=np.int64)[index["shard"]]
    pairs = np.unique(np.stack([index["image_id"], code], axis=1), axis=0)
    images, counts = np.unique(pairs[:, 0], return_counts=True)
    for image in images[counts > 1]:
        yield f"{folder}: photograph {image} is in two splits"
