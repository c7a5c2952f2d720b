"""The same real JPEG crops for every contender."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attrtrain.cli import main as attrtrain_command
from attrtrain.contract import write_contract
from attrtrain.errors import ShardError
from attrtrain.files import sha256_of
from attrtrain.shards.manifest import INDEX, LABELS, MANIFEST, ShardInfo, read_manifest, split_statistics
from tools.bench.contest import BenchError
from tools.make_toy_coco import draw_toy_coco

SPLIT = "train"
_ROWS_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class Source:
    """Photographs with labels, and shards made of them.

    Attributes:
        shards: a folder as `attrtrain shard` writes it, with a split "train".
        images: folders of the photographs; empty where only shards were given.
        labels, instances: label files.
    """

    shards: Path
    images: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    instances: tuple[Path, ...] = ()


def open_source(
    work: Path,
    shards: Path | None,
    images: Sequence[Path],
    labels: Sequence[Path],
    instances: Sequence[Path],
    toy_photographs: int,
) -> Source:
    """What the arguments name; without any, a toy COCO that is drawn into `work`.

    Raises:
        BenchError: the arguments do not go together, or sharding failed.
    """
    if not shards and not labels:
        print(f"drawing {toy_photographs} photographs ...", flush=True)
        draw_toy_coco(work / "toy", toy_photographs)
        toy = work / "toy"
        labels = [toy / "cocottributes.pkl"]
        instances = [toy / "annotations" / f"instances_{name}2017.json" for name in ("train", "val")]
        images = [toy / "train2017", toy / "val2017"]
    if not shards:
        if not images:
            raise BenchError("--labels needs --images, the folders of the photographs")
        shards = work / "shards"
        run_shard(labels, instances, images, shards)
    try:
        manifest = read_manifest(shards)
    except ShardError as error:
        raise BenchError(str(error)) from None
    if SPLIT not in manifest.splits:
        raise BenchError(f"{shards}: has no split '{SPLIT}'; there are: {', '.join(manifest.splits)}")
    return Source(
        *(_whole(shards), tuple(map(_whole, images)), tuple(map(_whole, labels)), tuple(map(_whole, instances)))
    )


def run_shard(labels: Sequence[Path], instances: Sequence[Path], images: Sequence[Path], out: Path) -> None:
    """Runs `attrtrain shard` with one worker. Raises BenchError if it fails."""
    command = ["shard", "--labels", *map(str, labels), "--images", *map(str, images), "--out", str(out)]
    command += ["--instances", *map(str, instances)] if instances else []
    if attrtrain_command([*command, "--workers", "1", "--max-failure-rate", "1"]) != 0:
        raise BenchError("the crops could not be made; see above")


def repeat_shards(source: Path, folder: Path, samples: int) -> int:
    """Makes a shard folder whose split "train" has the crops of another over and over, at least `samples` of them.

    Nothing is copied: every repetition is a link to the tar, with rows of the index of its own, as if it were another
    shard. Other splits stay as they are.

    Returns:
        How many samples it has: a whole number of repetitions.
    """
    manifest = read_manifest(source)
    index, labels = (np.load(source / name, mmap_mode="r", allow_pickle=False) for name in (INDEX, LABELS))
    rows_of = {number: np.flatnonzero(index["shard"] == number) for number in range(len(manifest.shards))}
    base = sum(len(rows_of[number]) for number, shard in enumerate(manifest.shards) if shard.split == SPLIT)
    repeats = -(-samples // base)
    folder.mkdir(parents=True)
    shards: list[ShardInfo] = []
    origins = []  # (number of the shard that is repeated) for each
    for split in dict.fromkeys(shard.split for shard in manifest.shards):
        members = [number for number, shard in enumerate(manifest.shards) if shard.split == split]
        for repeat in range(repeats if split == SPLIT else 1):
            for number in members:
                name = f"{Path(manifest.shards[number].name).stem}-{repeat:06d}.tar"
                (folder / name).symlink_to((source / manifest.shards[number].name).resolve())
                shards.append(manifest.shards[number].model_copy(update={"name": name}))
                origins.append(number)
    rows = np.concatenate([rows_of[number] for number in origins])
    new_index = np.lib.format.open_memmap(folder / INDEX, "w+", index.dtype, (len(rows),), version=(1, 0))
    new_index[:] = index[rows]
    new_index["shard"] = np.repeat(np.arange(len(shards)), [len(rows_of[number]) for number in origins])
    new_labels = np.lib.format.open_memmap(
        folder / LABELS, "w+", labels.dtype, (len(rows), labels.shape[1]), version=(1, 0)
    )
    for begin in range(0, len(rows), _ROWS_AT_A_TIME):
        new_labels[begin : begin + _ROWS_AT_A_TIME] = labels[rows[begin : begin + _ROWS_AT_A_TIME]]
    new_index.flush()
    new_labels.flush()
    changed = {
        "shards": shards,
        "splits": split_statistics(new_index, new_labels, shards),
        "index_sha256": sha256_of(folder / INDEX),
        "labels_sha256": sha256_of(folder / LABELS),
    }
    write_contract(manifest.model_copy(update=changed), folder / MANIFEST)
    return repeats * base


def read_once(folder: Path) -> None:
    """Brings the files of a folder into the page cache, so that no turn pays for the disk."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def _whole(path: Path) -> Path:
    return path.resolve()
