"""Rereads every byte of a shard folder and compares it with the manifest."""

import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from attrtrain.errors import ShardError
from attrtrain.shards.manifest import INDEX, LABELS, MANIFEST, Manifest, read_manifest, split_statistics
from attrtrain.urls import chunks_of, names_in, read_url


def verify(folder: Path | str) -> Iterator[str]:
    """Yields a line for everything in the folder, a path or a URL, that is not as it was written, naming file and,
    where one is hit, sample.

    Raises:
        ShardError: the manifest itself cannot be read.
    """
    manifest = read_manifest(folder)
    problems = {
        name: _file_problem(folder, name, sha256)
        for name, sha256 in ((INDEX, manifest.index_sha256), (LABELS, manifest.labels_sha256))
    }
    yield from (f"{folder}/{name}: {problem}" for name, problem in problems.items() if problem)
    index = None if problems[INDEX] else _load(folder, INDEX)
    if index is not None and (odd := list(_beyond_manifest(folder, manifest, index))):
        yield from odd
        index = None  # which does not belong to this manifest
    for number, shard in enumerate(manifest.shards):
        if problem := _file_problem(folder, shard.name, shard.sha256, shard.bytes):
            yield f"{folder}/{shard.name}: {problem}"
            if index is not None and problem != "missing":
                yield from _damaged_samples(folder, shard.name, index[index["shard"] == number])
    for extra in sorted(_tars_in(folder) - {shard.name for shard in manifest.shards}):
        yield f"{folder}/{extra}: not in the manifest; it is read by plain webdataset but not by attrtrain: delete it"
    if index is not None and not problems[LABELS]:
        yield from _wrong_counts(folder, manifest, index, _load(folder, LABELS))
    if index is not None:
        yield from _images_in_two_splits(folder, manifest, index)


def _beyond_manifest(folder: Path | str, manifest: Manifest, index: NDArray[Any]) -> Iterator[str]:
    """What the index, which its checksum vouches for, points to and the manifest does not list."""
    for field, listed in (("shard", manifest.shards), ("category", manifest.categories)):
        if len(index) and not 0 <= index[field].min() <= index[field].max() < len(listed):
            count = int(index[field].max()) + 1
            yield f"{folder}/{MANIFEST}: lists {len(listed)} {'shards' if field == 'shard' else 'categories'}, the index is of {count} or more"


def _chunks(folder: Path | str, name: str) -> Iterator[bytes]:
    """A file's content, piece by piece, from a disk or a URL. Raises OSError or ShardError."""
    if isinstance(folder, str):
        yield from chunks_of(f"{folder}/{name}")
        return
    with (folder / name).open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _load(folder: Path | str, name: str) -> NDArray[Any]:
    content = read_url(f"{folder}/{name}") if isinstance(folder, str) else (folder / name).read_bytes()
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _tars_in(folder: Path | str) -> set[str]:
    names = names_in(folder) if isinstance(folder, str) else [path.name for path in folder.iterdir()]
    return {name for name in names if name.endswith(".tar")}


def _file_problem(folder: Path | str, name: str, sha256: str, size: int | None = None) -> str | None:
    digest, actual = hashlib.sha256(), 0
    try:
        for chunk in _chunks(folder, name):
            digest.update(chunk)
            actual += len(chunk)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except ShardError as error:
        return f"cannot be read ({error})"
    if size is not None and actual != size:
        return f"damaged, {actual:,} bytes instead of {size:,}"
    return None if digest.hexdigest() == sha256 else "damaged, its checksum differs"


def _damaged_samples(folder: Path | str, name: str, samples: NDArray[Any]) -> Iterator[str]:
    """Compares each sample of one shard, (K,) INDEX_DTYPE, with its own checksum."""
    damaged = 0
    try:
        opened = _seekable(folder, name)
    except (OSError, ShardError):  # which was told
        return
    with opened as file:
        for sample in samples:
            size = int(sample["end"] - sample["start"])
            try:
                file.seek(int(sample["start"]))
                content = file.read(size)
            except OSError:  # a bad block on the disk
                content = b""
            if len(content) != size or zlib.crc32(content) != sample["crc32"]:
                damaged += 1
                place = f"bytes {sample['start']} to {sample['end']}"
                yield f"{folder}/{name}: sample {sample['object_id']:012d} is damaged ({place})"
    if not damaged:
        yield f"{folder}/{name}: no sample is damaged, only what follows the last one"


def _seekable(folder: Path | str, name: str) -> BinaryIO:
    if isinstance(folder, str):
        return io.BytesIO(read_url(f"{folder}/{name}"))
    return cast(BinaryIO, (folder / name).open("rb", buffering=0))


def _wrong_counts(
    folder: Path | str, manifest: Manifest, index: NDArray[Any], labels: NDArray[np.float32]
) -> Iterator[str]:
    """Compares the manifest's own figures with index and labels, which its checksums vouch for."""
    samples = np.bincount(index["shard"], minlength=len(manifest.shards)).tolist()
    for shard, counted in zip(manifest.shards, samples, strict=True):
        if shard.samples != counted:
            yield f"{folder}/{MANIFEST}: says {shard.samples} samples in {shard.name}, the index has {counted}"
    counts = split_statistics(index, labels, manifest.shards)
    for split in sorted(counts.keys() | manifest.splits.keys()):
        if counts.get(split) != manifest.splits.get(split):
            yield f"{folder}/{MANIFEST}: its counts of split '{split}' are not those of index and labels"
    if manifest.vocabulary.vocabulary().fingerprint != manifest.vocabulary.fingerprint:
        yield f"{folder}/{MANIFEST}: its attribute names or ids are not those of its fingerprint"


def _images_in_two_splits(folder: Path | str, manifest: Manifest, index: NDArray[Any]) -> Iterator[str]:
    splits = [shard.split for shard in manifest.shards]
    names = sorted(set(splits))
    code = np.array([names.index(split) for split in splits], dtype=np.int64)[index["shard"]]
    pairs = np.unique(np.stack([index["image_id"], code], axis=1), axis=0)
    images, counts = np.unique(pairs[:, 0], return_counts=True)
    for image in images[counts > 1]:
        yield f"{folder}: photograph {image} is in two splits"
