"""Small pictures and label tables for the tests of this folder, and the whole way from them to a shard folder."""

import gc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from attrtrain.annotations.table import ObjectTable, SourceFile
from attrtrain.shards import finish, write
from attrtrain.shards.manifest import CropSettings
from attrtrain.shards.plan import make_plan
from attrtrain.vocabulary import AttributeVocabulary

WIDTH, HEIGHT = 96, 64


def make_table(photographs: int = 12, objects: int = 4, attributes: int = 5, seed: int = 0) -> ObjectTable:
    """A table of `photographs` x `objects` rows in shuffled order; every third photograph is in "val"."""
    rng = np.random.default_rng(seed)
    n = photographs * objects
    image_id = np.repeat(np.arange(photographs) * 7 + 3, objects)
    labels = rng.choice([0, 0.1, 1 / 3, 0.5, 1, np.nan], size=(n, attributes)).astype(np.float32)
    box = np.c_[
        rng.uniform(0, WIDTH / 2, n), rng.uniform(0, HEIGHT / 2, n), rng.uniform(8, 40, n), rng.uniform(8, 30, n)
    ]
    table = ObjectTable(
        vocabulary=AttributeVocabulary.from_names(f"attribute {i}" for i in range(attributes)),
        object_id=rng.permutation(10 * n)[:n].astype(np.int64),
        image_id=image_id.astype(np.int64),
        image=np.array([f"{i:012d}.png" for i in image_id]),
        image_size=np.tile(np.array([WIDTH, HEIGHT], dtype=np.int64), (n, 1)),
        box=box,
        category=np.array(["cat", "dog", "äpfel"])[rng.integers(0, 3, n)],
        split=np.where(np.repeat(np.arange(photographs) % 3 == 2, objects), "val", "train"),
        crowd=np.zeros(n, dtype=bool),
        labels=labels,
        unmatched=np.array([999_999], dtype=np.int64),
        sources=(SourceFile("labels.csv", 1, "0" * 64),),
    )
    return replace(table.take(rng.permutation(n)), unmatched=table.unmatched)


def changed(table: ObjectTable, column: str, row: int, value: object) -> ObjectTable:
    """The table with one cell changed."""
    array = getattr(table, column).copy()
    if array.dtype.kind == "U":
        array = array.astype(object)
        array[row] = value
        array = array.astype(str)
    else:
        array[row] = value
    return replace(table, **{column: array})


def draw_photographs(folder: Path, table: ObjectTable) -> None:
    """Writes every photograph of the table, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image_id in sorted(set(zip(table.image.tolist(), table.image_id.tolist(), strict=True))):
        rng = np.random.default_rng(image_id)
        coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT)).save(folder / name)


def shard(
    out: Path, table: ObjectTable, images: Path, crop: CropSettings | None = None, shard_objects: int = 10
) -> finish.Summary:
    """Plan, write, finish, in this process."""
    crop = crop or CropSettings(store_px=24)
    plan = make_plan(table, crop, shard_objects)
    write.prepare(out, plan)
    for job in write.pending_jobs(out, plan.shards, table, [images], crop):
        write.write_shard(job)
    return finish.finish(out, plan, table, crop, "split: drawn")


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_with_webdataset(tars: list[Path]) -> list[dict[str, bytes]]:
    """All samples as plain webdataset gives them; it leaves the files it has read to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))
        gc.collect()
    return samples
