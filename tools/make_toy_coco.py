#!/usr/bin/env python
"""Draws a toy COCO: photographs of simple objects with visual attributes, in the files and folders of COCO 2017.

    python -m tools.make_toy_coco OUT [--photographs 240] [--seed 0]

    OUT/annotations/instances_{train,val}2017.json   boxes, polygons and categories; a few objects are crowds
    OUT/{train,val}2017/000000000139.jpg             the photographs
    OUT/cocottributes.pkl                            vote shares of 30 attributes, about a quarter of them unknown (-1)

As in the real files, the official split goes by photograph and half of its val2014 lies in train2017; some objects have
no labels, and some labels no object. The same arguments give the same bytes. OUT appears only once it is complete:
a folder drawn with the same arguments is left as it is, one that holds anything else is refused.
"""

import argparse
import json
import pickle
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.files import atomic_folder
from tools.toy_scenes import ATTRIBUTES, CATEGORIES, Scene, chances_of_yes, draw_scene, plan_scene


def _labels(scenes: list[Scene]) -> dict[str, Any]:
    """The content of cocottributes.pkl: vote shares of 3 or 5 annotators an object, -1 where nobody was asked."""
    vectors: dict[int, NDArray[np.float64]] = {}
    annotation_of: defaultdict[int, int] = defaultdict(int)
    split: dict[int, str] = {}
    for scene in scenes:
        rng = np.random.default_rng((scene.seed, scene.image_id, 2))
        for place, toy in enumerate(scene.objects):
            chances, annotators, fate = chances_of_yes(toy, scene), rng.choice((3, 5)), rng.random()
            votes = rng.binomial(annotators, [chances[name] for name, _ in ATTRIBUTES]) / annotators  # (A,)
            votes[rng.random(len(votes)) < rng.uniform(0.1, 0.4)] = -1
            patch = 1 + len(vectors) * 3
            if fate > 0.04:  # the others have no labels at all, and a few labels belong to an annotation that is gone
                vectors[patch], split[patch] = votes, scene.split
                annotation_of[patch] = scene.image_id * 8 + place + (2_000_000_000 if fate < 0.06 else 0)
    # Position i of a vector belongs to the i-th id. As published: gaps between ids, a space after some names, no order.
    records: list[dict[str, Any]] = [
        {"id": 408 + i + i // 7, "name": name + " " * (name in ("striped", "smiling")), "supercategory": group}
        for i, (name, group) in enumerate(ATTRIBUTES)
    ]
    shuffled = [records[i] for i in np.random.default_rng(scenes[0].seed).permutation(len(records))]
    return {"attributes": shuffled, "ann_vecs": vectors, "patch_id_to_ann_id": annotation_of, "split": split}


def _instances(scenes: list[Scene], info: dict[str, Any]) -> dict[str, Any]:
    """The content of an instances JSON file."""
    sides = [{"id": s.image_id, "width": s.width, "height": s.height} for s in scenes]
    return {
        "info": info,
        "licenses": [{"id": 1, "name": "none needed: drawn by a program", "url": ""}],
        "images": [side | {"file_name": f"{side['id']:012d}.jpg", "license": 1} for side in sides],
        "annotations": [_annotation(scene, place) for scene in scenes for place in range(len(scene.objects))],
        "categories": [{"supercategory": "shape", "id": i, "name": name} for i, name in enumerate(CATEGORIES, 1)],
    }


def _annotation(scene: Scene, place: int) -> dict[str, Any]:
    toy, outlines = scene.objects[place], scene.objects[place].outlines()
    area = sum(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2 for x, y in (o.T for o in outlines))
    box, category_id = toy.box(), CATEGORIES.index(toy.category) + 1
    region: Any = [np.round(outline, 2).ravel().tolist() for outline in outlines]
    if toy.crowd:  # COCO gives a crowd's region as uncompressed run lengths down the columns; here it is the box
        left, top, width, height = map(int, box)
        runs = [left * scene.height + top, *[height, scene.height - height] * (width - 1), height]
        region = {"counts": [*runs, scene.height * scene.width - sum(runs)], "size": [scene.height, scene.width]}
        area = width * height
    ids = {"id": scene.image_id * 8 + place, "image_id": scene.image_id, "category_id": category_id}
    return ids | {"bbox": box, "area": round(area, 2), "iscrowd": int(toy.crowd), "segmentation": region}


def draw_toy_coco(folder: Path, photographs: int = 240, seed: int = 0) -> int:
    """Draws a toy COCO into `folder`, unless it is there already, and returns the number of labelled objects.

    Raises OSError where the folder cannot be written, and its FileExistsError where it holds something else.
    """
    info = {"description": "toy COCO, drawn", "version": "1", "year": 2017, "photographs": photographs, "seed": seed}
    scenes = [plan_scene(seed, number) for number in range(photographs)]
    labels = _labels(scenes)
    # As published: a pickle of protocol 0, Python 2's, with NumPy 1's module names.
    files = {"cocottributes.pkl": pickle.dumps(labels, protocol=0).replace(b"numpy._core.", b"numpy.core.")}
    for name in ("train2017", "val2017"):
        content = _instances([scene for scene in scenes if scene.folder == name], info)
        files[f"annotations/instances_{name}.json"] = json.dumps(content).encode()
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        is_whole = all((folder / name).is_file() and (folder / name).read_bytes() == files[name] for name in files)
        if not is_whole or not all((folder / _photograph(scene)).is_file() for scene in scenes):
            raise FileExistsError("holds something else; name another folder, or remove it first")
        return len(labels["ann_vecs"])
    with atomic_folder(folder) as partial:
        for name in ("annotations", "train2017", "val2017"):
            (partial / name).mkdir()
        for name, data in files.items():
            (partial / name).write_bytes(data)
        for scene in scenes:
            draw_scene(scene).save(partial / _photograph(scene), quality=92)
    return len(labels["ann_vecs"])


def _photograph(scene: Scene) -> str:
    return f"{scene.folder}/{scene.image_id:012d}.jpg"


def main(argv: list[str] | None = None) -> int:
    """Draws, says what was drawn and how to go on, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw a toy COCO with COCO Attributes labels.")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument("--photographs", type=int, default=240, metavar="N", help="at least 8 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="0 or more (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.photographs < 8 or arguments.seed < 0:
        parser.error("--photographs must be at least 8, --seed at least 0")
    try:
        labelled = draw_toy_coco(arguments.out, arguments.photographs, arguments.seed)
    except OSError as error:
        print(f"error: {arguments.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    out, name = shlex.quote(str(arguments.out)), shlex.quote(arguments.out.resolve().name)
    instances = f"{out}/annotations/instances_train2017.json {out}/annotations/instances_val2017.json"
    command = f"attrtrain shard --labels {out}/cocottributes.pkl --instances {instances}"
    command += f" --images {out}/train2017 {out}/val2017 --out shards/{name}"
    print(f"{labelled} labelled objects in {arguments.photographs} photographs; next: {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
