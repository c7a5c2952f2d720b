"""Objects become a result in parts, beside what the predictor says of their crops one batch at a time; and what shards
say of their objects, beside the COCO files that they were made from.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attrtrain.data.decode import decode_crop
from attrtrain.data.reader import ShardSet
from attrtrain.inference.annotating import PART, Source, annotate, describe, of_shards
from attrtrain.inference.captions import caption
from attrtrain.inference.crops import CropBatch
from attrtrain.inference.objects import Objects
from attrtrain.inference.parts import failures_path
from attrtrain.inference.predictor import Predictor
from attrtrain.inference.results import FEATURES, METADATA
from attrtrain.inference.scoring import BATCH
from attrtrain.shards.manifest import Failure
from tests.bundles import IMAGE_PX, NAMES, draw_bundle

COUNT = PART + BATCH + 6
GONE = {3, PART - 1, PART + 1}
THRESHOLDS = [0.5, 0.3, 0.8, None, 0.5, 1.0, 0.4]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(draw_bundle(tmp_path_factory.mktemp("model") / "bundle", thresholds=THRESHOLDS), "cpu")


@pytest.fixture(scope="module")
def objects() -> Objects:
    rng = np.random.default_rng(0)
    return Objects(
        object_id=rng.permutation(COUNT) + 100,
        image=np.array([f"{row // 3}.jpg" for row in range(COUNT)]),
        image_size=rng.integers(50, 90, (COUNT, 2)),
        box=rng.uniform(0, 40, (COUNT, 4)),
        category=rng.choice(["cat", "owl", ""], COUNT),
        crowd=np.zeros(COUNT, dtype=bool),
        sources=(),
    )


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """One crop (3, IMAGE_PX, IMAGE_PX) uint8 for each object."""
    coarse = torch.randint(0, 256, (COUNT, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return coarse.repeat_interleave(IMAGE_PX // 4, 2).repeat_interleave(IMAGE_PX // 4, 3)


class Crops:
    """Where they come from: without those that are gone, and killed before the row `end`."""

    def __init__(self, objects: Objects, pixels: torch.Tensor, end: int = COUNT) -> None:
        self.objects, self.pixels, self.end = objects, pixels, end
        self.asked: list[int] = []

    def source(self) -> Source:
        return Source(self.objects, ["photographs"], self.batches)

    def batches(self, first: int, workers: int) -> Iterator[CropBatch]:
        self.asked.append(first)
        for begin in range(first, COUNT, BATCH):
            if begin + BATCH > self.end and self.end < COUNT:
                raise KeyboardInterrupt
            batch = range(begin, min(begin + BATCH, COUNT))
            rows = np.array([row for row in batch if row not in GONE])
            failures = [
                Failure(object_id=int(self.objects.object_id[row]), image="", reason="image_missing", detail="")
                for row in batch
                if row in GONE
            ]
            yield CropBatch(rows, self.pixels[rows], failures)


@pytest.fixture(scope="module")
def expected(predictor: Predictor, objects: Objects, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores (COUNT, A) and features (COUNT, F)."""
    outputs = [
        predictor(pixels[begin : begin + 100], objects.category[begin : begin + 100].tolist())
        for begin in range(0, COUNT, 100)
    ]
    scores = torch.cat([one.logits for one in outputs]).double().sigmoid()
    return scores.numpy(), torch.cat([one.features for one in outputs]).numpy()


def test_each_object_has_its_own_row_scores_and_caption(
    predictor: Predictor,
    objects: Objects,
    pixels: torch.Tensor,
    expected: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    out = tmp_path / "result.parquet"
    info = annotate(predictor, Crops(objects, pixels).source(), out, 0, True)
    rows = [row for row in range(COUNT) if row not in GONE]
    assert (info.written, info.left_out) == (len(rows), {"image_missing": len(GONE)})
    table = pq.read_table(out)
    assert table.column("object_id").to_pylist() == objects.object_id[rows].tolist()
    assert table.column("image").to_pylist() == objects.image[rows].tolist()
    assert table.column("category").to_pylist() == objects.category[rows].tolist()
    assert [tuple(size.values()) for size in table.column("image_size").to_pylist()] == [
        tuple(size) for size in objects.image_size[rows].tolist()
    ]
    assert [tuple(box.values()) for box in table.column("box").to_pylist()] == [
        tuple(box) for box in objects.box[rows].tolist()
    ]
    columns = [one.column for one in info.attributes]
    scores = np.column_stack([table.column(column).to_numpy() for column in columns])
    np.testing.assert_allclose(scores, expected[0][rows], atol=2e-5)
    for row, own, told in zip(rows, scores.tolist(), table.column("caption").to_pylist(), strict=True):
        least = [0.5, 0.3, 0.8, 0.5, 0.5, 2.0, 0.4]  # of what the training never saw there is none
        present = sorted((a for a in range(len(NAMES)) if own[a] >= least[a]), key=lambda a: -own[a])
        assert told == caption([NAMES[a] for a in present], str(objects.category[row]))
    gone = [json.loads(line)["object_id"] for line in failures_path(out).read_text().splitlines()]
    assert gone == objects.object_id[sorted(GONE)].tolist()


@pytest.mark.parametrize("kind", ["annotate", "npy"])
def test_what_was_killed_goes_on_with_the_first_object_of_the_next_part(
    predictor: Predictor,
    objects: Objects,
    pixels: torch.Tensor,
    expected: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    def make(crops: Crops, name: str) -> Path:
        out = tmp_path / f"{name}.{'npy' if kind == 'npy' else 'parquet'}"
        if kind == "npy":
            describe(predictor, crops.source(), out, 0)
        else:
            annotate(predictor, crops.source(), out, 0, False)
        return out

    killed = Crops(objects, pixels, PART + BATCH)
    with pytest.raises(KeyboardInterrupt):
        make(killed, "torn")
    capsys.readouterr()
    again = Crops(objects, pixels)
    torn = make(again, "torn")
    assert (killed.asked, again.asked) == ([0], [PART])
    assert f"{PART:,} of {COUNT:,} objects are already done, and are kept" in capsys.readouterr().err
    whole = make(Crops(objects, pixels), "whole")
    assert "already" not in capsys.readouterr().err
    assert torn.read_bytes() == whole.read_bytes()
    assert failures_path(torn).read_bytes() == failures_path(whole).read_bytes()
    complete = Crops(objects, pixels)
    assert make(complete, "torn") == torn and not complete.asked
    assert f"{torn} is already complete, and is kept" in capsys.readouterr().err
    if kind == "npy":
        rows = [row for row in range(COUNT) if row not in GONE]
        table = pq.read_table(whole.with_suffix(".objects.parquet"))
        assert table.column("object_id").to_pylist() == objects.object_id[rows].tolist()
        np.testing.assert_allclose(np.load(whole), expected[1][rows], atol=1e-4)


def test_objects_of_shards_are_those_of_the_files_that_they_were_made_from(
    predictor: Predictor, toy_coco: Path, toy_shards: Path, tmp_path: Path
) -> None:
    shards = ShardSet([toy_shards], "val")
    source = of_shards(predictor, shards)
    told = {}
    for year in ("train2017", "val2017"):
        content = json.loads((toy_coco / "annotations" / f"instances_{year}.json").read_text())
        images = {image["id"]: image for image in content["images"]}
        kinds = {category["id"]: category["name"] for category in content["categories"]}
        for one in content["annotations"]:
            image = images[one["image_id"]]
            size = [image["width"], image["height"]]
            told[one["id"]] = (image["file_name"], size, one["bbox"], kinds[one["category_id"]])
    mine = source.objects
    assert mine.object_id.tolist() == shards.object_ids.tolist() and len(mine) > 20
    for row, object_id in enumerate(mine.object_id.tolist()):
        name, size, box, kind = told[object_id]
        assert Path(str(mine.image[row])).name == name and mine.category[row] == kind
        assert mine.image_size[row].tolist() == size and mine.box[row] == pytest.approx(box)
    out = tmp_path / "features.parquet"
    info = describe(predictor, source, out, 0)
    assert info.job.images == [str(toy_shards), f"split val, {shards.fingerprint}"] and info.written == len(shards)
    assert json.loads(pq.read_schema(out).metadata[METADATA])["job"]["kind"] == "features"
    described = np.array(pq.read_table(out).column(FEATURES).to_pylist())
    crops = torch.stack([decode_crop(shards.jpeg(row), IMAGE_PX) for row in range(len(shards))])
    np.testing.assert_allclose(described, predictor(crops, mine.category.tolist()).features.numpy(), atol=1e-4)
