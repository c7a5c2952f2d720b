"""Objects → a result: cut, scored, and written in parts."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import BAR_SECONDS
from attrtrain.files import legible
from attrtrain.inference.captions import caption, present
from attrtrain.inference.crops import CropBatch, CropCutter, cut_batches, stored_batches
from attrtrain.inference.objects import Objects
from attrtrain.inference.parts import Parts, open_parts
from attrtrain.inference.predictor import Predictor
from attrtrain.inference.results import (
    FEATURES,
    AttributeColumn,
    Job,
    ResultInfo,
    attribute_columns,
    base_columns,
    fingerprint_of,
)
from attrtrain.inference.scoring import BATCH, Scored, score_batches
from attrtrain.runtime import decoding_workers

_BATCHES = 16
PART = _BATCHES * BATCH
"""Objects in a part: what a kill costs at most."""


@dataclass(frozen=True)
class Source:
    """Where crops come from.

    Attributes:
        objects: which they are.
        places: folders, or shards and their split, for the record.
        batches: from a row on, so many processes helping, batches of `BATCH` objects.
    """

    objects: Objects
    places: list[str]
    batches: Callable[[int, int], Iterator[CropBatch]]


def of_photographs(predictor: Predictor, objects: Objects, folders: list[Path | str]) -> Source:
    """Objects to be cut out of photographs."""
    card = predictor.card
    cutter = CropCutter(folders, card.crop, card.image_px, card.framing)
    is_cuda = predictor.device.type == "cuda"

    def batches(first: int, workers: int) -> Iterator[CropBatch]:
        return cut_batches(objects, first, BATCH, cutter, workers=workers, pin=is_cuda)

    return Source(objects, list(map(legible, folders)), batches)


def of_shards(predictor: Predictor, shards: ShardSet) -> Source:
    """Objects whose crops are stored already.

    Raises:
        ShardError: a sample cannot be read.
    """
    details = [shards.details(position) for position in range(len(shards))]
    objects = Objects(
        object_id=shards.object_ids,
        image=np.array([str(entry["image"]) for entry in details], dtype=str),
        image_size=np.array([entry["source_size"] for entry in details], dtype=np.int64).reshape(-1, 2),
        box=np.array([entry["source_box"] for entry in details], dtype=np.float64).reshape(-1, 4),
        category=np.array(shards.categories(), dtype=str),
        crowd=np.zeros(len(shards), dtype=bool),
        sources=(),
    )

    def batches(first: int, workers: int) -> Iterator[CropBatch]:
        card = predictor.card
        return stored_batches(shards, first, BATCH, card.image_px, card.framing, predictor.device, workers=workers)

    return Source(objects, [*map(legible, shards.folders), f"split {shards.split}, {shards.fingerprint}"], batches)


def annotate(predictor: Predictor, source: Source, out: Path, workers: int, captions: bool) -> ResultInfo:
    """Writes the scores of every object; goes on where a run that was killed had come to.

    Raises:
        PredictionsError: `out` is of something else, or cannot be written.
    """
    info = _info(predictor, source, "attributes", captions)
    return _write(predictor, source, out, workers, info, lambda scored: _score_columns(source.objects, info, scored))


def describe(predictor: Predictor, source: Source, out: Path, workers: int) -> ResultInfo:
    """Writes the features of every object, as Parquet or as an array, in the same way."""
    info = _info(predictor, source, "features", False)

    def columns(scored: Scored) -> dict[str, pa.Array]:
        return {FEATURES: pa.FixedSizeListArray.from_arrays(pa.array(scored.features.ravel()), predictor.feature_width)}

    return _write(predictor, source, out, workers, info, columns)


def _info(predictor: Predictor, source: Source, kind: Literal["attributes", "features"], captions: bool) -> ResultInfo:
    vocabulary = predictor.card.vocabulary
    attributes = attribute_columns(vocabulary.names, predictor.thresholds, vocabulary.groups)
    job = Job(
        kind=kind,
        model=predictor.fingerprint,
        precision=predictor.precision,
        thresholds=predictor.thresholds,
        objects=fingerprint_of(source.objects),
        images=source.places,
        captions=captions,
    )
    card = predictor.card
    return ResultInfo(
        job=job, attributes=attributes, threshold_note=predictor.threshold_note, crop=card.crop, framing=card.framing
    )


def _write(
    predictor: Predictor,
    source: Source,
    out: Path,
    workers: int,
    info: ResultInfo,
    columns: Callable[[Scored], dict[str, pa.Array]],
) -> ResultInfo:
    with open_parts(out, info.job) as parts:
        if not isinstance(parts, Parts):
            print(f"{out} is already complete, and is kept", file=sys.stderr)
            return parts
        done = min(parts.done * PART, len(source.objects))
        if done:
            print(f"{done:,} of {len(source.objects):,} objects are already done, and are kept", file=sys.stderr)
        if done < len(source.objects):
            batches = source.batches(done, decoding_workers(predictor.device, workers))
            shown = _shown(batches, done, len(source.objects))
            for scored in score_batches(predictor, shown, source.objects.category, _BATCHES):
                chosen = base_columns(source.objects.take(scored.rows))
                parts.add(pa.table({**chosen, **columns(scored)}), scored.failures)
        return parts.merge(info)


def _shown(batches: Iterable[CropBatch], done: int, objects: int) -> Iterator[CropBatch]:
    with tqdm(
        total=objects, initial=done, desc="looking at objects", unit=" objects", dynamic_ncols=True, mininterval=BAR_SECONDS
    ) as bar:  # fmt: skip
        for batch in batches:
            yield batch
            bar.update(len(batch.rows) + len(batch.failures))


def _score_columns(objects: Objects, info: ResultInfo, scored: Scored) -> dict[str, pa.Array]:
    scores: NDArray[np.float32] = torch.from_numpy(scored.logits).sigmoid().numpy()  # (n, A)
    told = {}
    if info.job.captions:
        categories = objects.category[scored.rows].tolist()
        told["caption"] = pa.array(
            [
                caption(_present(info.attributes, row), category)
                for row, category in zip(scores.tolist(), categories, strict=True)
            ],
            pa.string(),
        )
    return told | {
        attribute.column: pa.array(np.ascontiguousarray(scores[:, number]))
        for number, attribute in enumerate(info.attributes)
    }


def _present(attributes: list[AttributeColumn], scores: list[float]) -> list[str]:
    return [attributes[column].name for column in present(scores, [one.threshold for one in attributes])]
