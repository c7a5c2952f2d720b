#!/usr/bin/env python
"""Draws a toy COCO: photographs of simple objects with visual attributes, in the files and folders of COCO 2017.

    python tools/make_toy_coco.py OUT [--photographs 240] [--seed 0]

    OUT/annotations/instances_{train,val}2017.json   boxes, polygons and categories; a few objects are crowds
    OUT/{train,val}2017/000000000139.jpg             the photographs
    OUT/cocottributes.pkl                            vote shares of 30 attributes, about a quarter of them unknown (-1)

As in the real files, the official split goes by photograph and half of its val2014 lies in train2017; some objects have
no labels, and some labels no object. The same arguments give the same bytes. OUT appears only once it is complete:
a folder drawn with the same arguments is left as it is, one that holds anything else is refused.
"""

import argparse
import colorsys
import json
import math
import pickle
import shlex
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

HUES = {"red": 0, "orange": 28, "yellow": 54, "green": 125, "blue": 218, "purple": 285}  # degrees
COLOURS = (*HUES, "black", "white")
PATTERNS = ("plain", "striped", "dotted", "checkered")
GROUPS = {
    "shape": ("round", "four-cornered", "pointed", "hollow"),
    "colour": (*COLOURS, "warm", "cold", "two-coloured"),
    "pattern": PATTERNS,
    "size and place": ("small", "large", "at the left", "at the right", "at the top", "at the bottom"),
    "look": ("tilted", "outlined", "shaded", "casting a shadow", "smiling"),
}
ATTRIBUTES = tuple((name, group) for group, names in GROUPS.items() for name in names)
PHOTOGRAPH_SIZES = ((480, 360), (427, 320), (400, 300), (320, 240), (360, 480), (300, 400), (360, 360))
SIZES, SIZE_SHARES = ((0.13, 0.18), (0.18, 0.32), (0.32, 0.42)), (0.12, 0.53, 0.35)
SUPERSAMPLING = 2  # objects are drawn this much larger, then scaled down: smooth edges
YES, NO = 0.97, 0.02  # how often an annotator says yes to what is plainly so, and plainly not so


def _around(reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners at these distances, evenly around the middle, clockwise from the top."""
    angle = np.arange(len(reach)) * 2 * math.pi / len(reach)
    return np.stack([np.sin(angle) * reach, -np.cos(angle) * reach], axis=1)


_T = np.linspace(0, 2 * math.pi, 41)[:-1]
_HEART = (2.5 + 13 * np.cos(_T) - 5 * np.cos(2 * _T) - 2 * np.cos(3 * _T) - np.cos(4 * _T)) / -14.5
_SQUARE = np.array([(-0.92, -0.92), (0.92, -0.92), (0.92, 0.92), (-0.92, 0.92)])
_ARM, _QUARTER_TURN = np.array([(-0.36, -1), (0.36, -1), (0.36, -0.36)]), np.array([(0, 1), (-1, 0)])
OUTLINES = {  # of each category: (K, 2) x, y about within ±1, y downwards
    "disc": _around(np.ones(40)),
    "ring": _around(np.ones(40)),
    "heart": np.stack([np.sin(_T) ** 3, _HEART], axis=1),
    "square": _SQUARE,
    "frame": _SQUARE,
    "triangle": _around(np.full(3, 1.1)),
    "star": _around(np.tile((1.05, 0.45), 5)),
    "cross": np.concatenate([_ARM @ np.linalg.matrix_power(_QUARTER_TURN, turns) for turns in range(4)]),
    "hexagon": _around(np.ones(6)),
}
CATEGORIES = tuple(OUTLINES)


@dataclass(frozen=True)
class ToyObject:
    """How one object looks, and where (x, y, radius in pixels)."""

    category: str
    colour: str
    hue: float  # degrees; without meaning for black and white
    second: str  # colour of the other half of its pattern
    pattern: str
    x: float
    y: float
    radius: float
    tilt: float  # degrees
    shading: float  # from 0, flat, to 1, strongly lit from one side
    outlined: bool
    shadow: bool
    smiling: bool
    crowd: bool  # five small ones in place of one

    def outlines(self) -> list[NDArray[np.float64]]:
        """Outer outlines, (K, 2) x, y in pixels of the photograph: one, or one a member of a crowd."""
        angle = math.radians(self.tilt)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        unit, places = OUTLINES[self.category], ((0, 0), (-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7))
        parts = [unit * 0.3 + place for place in places] if self.crowd else [unit]
        return [part @ turn * self.radius + (self.x, self.y) for part in parts]

    def box(self) -> list[float]:
        """x, y, width, height in pixels, to two decimals as in COCO."""
        points = np.concatenate(self.outlines())
        return [round(float(value), 2) for value in (*points.min(axis=0), *np.ptp(points, axis=0))]


@dataclass(frozen=True)
class Scene:
    """What is on one photograph. `split` is the label file's, `folder` where the photograph lies."""

    seed: int
    image_id: int
    width: int
    height: int
    split: str
    folder: str
    objects: tuple[ToyObject, ...]


def plan_scene(seed: int, number: int) -> Scene:
    """Decides what is where on photograph `number`; a pure function, so a larger set begins with a smaller one's."""
    rng = np.random.default_rng((seed, number))
    width, height = PHOTOGRAPH_SIZES[rng.integers(len(PHOTOGRAPH_SIZES))]
    objects: list[ToyObject] = []
    wanted = rng.integers(4, 8)
    for _ in range(200):
        new = _random_object(rng, width, height, crowd=number % 16 == 5 and not objects)
        if all(math.dist((new.x, new.y), (o.x, o.y)) > 1.12 * (new.radius + o.radius) for o in objects):
            objects.append(new)
        if len(objects) == wanted:
            break
    split, folder = "val2014" if number % 4 == 3 else "train2014", "val2017" if number % 8 == 7 else "train2017"
    return Scene(seed, 139 + 146 * number, width, height, split, folder, tuple(objects))


def _random_object(rng: np.random.Generator, width: int, height: int, crowd: bool) -> ToyObject:
    smiling = bool(rng.random() < 0.08) and not crowd  # a face needs a plain object with room in its middle
    colour, other = map(str, rng.choice(COLOURS, 2, replace=False))
    pattern = "plain" if smiling or crowd else str(rng.choice(PATTERNS, p=(0.25, 0.27, 0.25, 0.23)))
    size = 0.4 if crowd else float(rng.uniform(*SIZES[rng.choice(3, p=SIZE_SHARES)]))
    radius = size * min(width, height) / 2
    margin = radius * 1.3 + 3  # a turned square reaches further than its radius
    return ToyObject(
        category=str(rng.choice(("disc", "square", "hexagon", "heart") if smiling else CATEGORIES)),
        colour=colour,
        hue=(HUES.get(colour, 0) + float(rng.uniform(-10, 10))) % 360,
        second=other if pattern != "plain" and rng.random() < 0.22 else colour,
        pattern=pattern,
        x=float(rng.uniform(margin, width - margin)),
        y=float(rng.uniform(margin, height - margin)),
        radius=radius,
        tilt=float(rng.uniform(13, 32) * rng.choice((-1, 1)) if rng.random() < 0.28 else rng.normal(0, 2.5)),
        shading=float(rng.uniform(0.45, 1) if rng.random() < 0.24 else rng.uniform(0, 0.1)),
        outlined=bool(rng.random() < 0.22),
        shadow=bool(rng.random() < 0.2),
        smiling=smiling,
        crowd=crowd,
    )


def draw_scene(scene: Scene) -> Image.Image:
    """Draws a photograph: textured background, objects, uneven light, sensor noise."""
    rng = np.random.default_rng((scene.seed, scene.image_id, 1))
    size = (scene.width, scene.height)
    corners = np.clip(rng.uniform(85, 175) + rng.normal(0, 14, (2, 2, 3)), 60, 200).astype(np.uint8)
    photograph = Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)
    grain = [max(2, side // int(rng.integers(6, 60))) for side in size[::-1]]
    texture = Image.fromarray(rng.integers(90, 166, grain, dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    photograph = ImageChops.overlay(photograph, Image.merge("RGB", [texture] * 3))
    for toy in scene.objects:
        _paint(photograph, toy)
    light = (rng.uniform(0.82, 1.1) * rng.normal(1, 0.025, 3)).astype(np.float32)  # brightness and tint, (3,)
    noise = rng.standard_normal((scene.height, scene.width, 3), dtype=np.float32) * np.float32(rng.uniform(2, 7))
    return Image.fromarray(np.clip(np.asarray(photograph) * light + noise, 0, 255).astype(np.uint8))


def _paint(photograph: Image.Image, toy: ToyObject) -> None:
    """Paints one object, and its shadow before it, onto the photograph."""
    points = np.concatenate(toy.outlines())
    left, top = (int(value) - 2 for value in points.min(axis=0))
    right, bottom = (int(value) + 4 for value in points.max(axis=0))
    size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
    outlines = [(outline - (left, top)) * SUPERSAMPLING for outline in toy.outlines()]
    hollow = outlines if toy.category in ("ring", "frame") else []
    holes = [outline * 0.55 + outline.mean(axis=0) * 0.45 for outline in hollow]
    mask = Image.new("L", size)
    for polygon, fill in [*((outline, 255) for outline in outlines), *((hole, 0) for hole in holes)]:
        ImageDraw.Draw(mask).polygon(polygon.ravel().tolist(), fill=fill)
    x, y = (toy.x - left) * SUPERSAMPLING, (toy.y - top) * SUPERSAMPLING
    coat = _coat(toy, size, x, y)
    pen, r = ImageDraw.Draw(coat), toy.radius * SUPERSAMPLING
    ink = (20, 20, 20) if toy.colour != "black" else (235, 235, 235)
    if toy.outlined:
        for polygon in (*outlines, *holes):
            closed = np.concatenate([polygon, polygon[:2]]).ravel().tolist()
            pen.line(closed, fill=ink, width=max(2, round(r * (0.05 if toy.crowd else 0.16))), joint="curve")
    if toy.smiling:
        for eye in (-0.33, 0.33):
            pen.ellipse((x + (eye - 0.1) * r, y - 0.4 * r, x + (eye + 0.1) * r, y - 0.1 * r), fill=ink)
        pen.arc((x - 0.42 * r, y - 0.3 * r, x + 0.42 * r, y + 0.45 * r), 20, 160, fill=ink, width=round(0.12 * r))
    mask = mask.reduce(SUPERSAMPLING)
    if toy.shadow:
        shift, shade = round(toy.radius * 0.26) + 1, Image.new("L", photograph.size)
        shade.paste(mask.point(lambda value: value * 0.75), (left + shift, top + shift))
        photograph.paste((8, 8, 12), mask=shade.filter(ImageFilter.GaussianBlur(toy.radius * 0.07 + 1)))
    photograph.paste(coat.reduce(SUPERSAMPLING), (left, top), mask)


def _coat(toy: ToyObject, size: tuple[int, int], middle_x: float, middle_y: float) -> Image.Image:
    """The object's colours, with pattern and shading, over a whole patch of `size` (width, height)."""
    unit = toy.radius * SUPERSAMPLING
    x = ((np.arange(size[0]) - middle_x) / unit).astype(np.float32)[None, :]
    y = ((np.arange(size[1]) - middle_y) / unit).astype(np.float32)[:, None]
    angle = math.radians(toy.tilt)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    marks = {
        "plain": np.zeros(size[::-1], dtype=bool),
        "striped": np.floor(v * 2.6 + 0.5) % 2 == 0,
        "checkered": (np.floor(u * 2.2) + np.floor(v * 2.2)) % 2 == 0,
        "dotted": ((u * 2.1) % 1 - 0.5) ** 2 + ((v * 2.1) % 1 - 0.5) ** 2 < 0.09,
    }[toy.pattern]
    main = _rgb(toy.colour, toy.hue)
    other_tone = main * np.float32(0.55) if toy.colour != "black" else main + 75
    second = other_tone if toy.second == toy.colour else _rgb(toy.second, HUES.get(toy.second, 0))
    coat = np.where(marks[..., None], second, main)
    from_light = np.hypot(x + 0.45, y + 0.45)[..., None]
    coat = coat * (1 - np.float32(toy.shading) * np.clip(from_light * 0.55 - 0.1, 0, 0.85))
    coat += np.float32(150 * toy.shading) * np.clip(1 - from_light * 2.2, 0, 1)
    return Image.fromarray(np.clip(coat, 0, 255).astype(np.uint8))


def _rgb(colour: str, hue: float) -> NDArray[np.float32]:
    value = {"black": 0.11, "white": 0.94}.get(colour, 0.88)
    return np.array(colorsys.hsv_to_rgb(hue / 360, 0.88 if colour in HUES else 0, value), dtype=np.float32) * 255


def chances_of_yes(toy: ToyObject, scene: Scene) -> dict[str, float]:
    """How likely one annotator is to see each attribute: near 0 or 1 where it is plain, between where it is not."""

    def ramp(value: float, surely_not: float, surely: float) -> float:
        return min(1.0, max(0.0, (value - surely_not) / (surely - surely_not)))

    colours, size = {toy.colour, toy.second}, 2 * toy.radius / min(scene.width, scene.height)
    right, bottom = toy.x / scene.width, toy.y / scene.height
    sides = {"left": 1 - right, "right": right, "top": 1 - bottom, "bottom": bottom}
    seen: dict[str, float] = {
        "round": 0.2 if toy.category == "hexagon" else toy.category in ("disc", "ring"),
        "four-cornered": toy.category in ("square", "frame"),
        "pointed": 0.2 if toy.category == "heart" else toy.category in ("star", "triangle"),
        "hollow": toy.category in ("ring", "frame"),
        **{colour: colour in colours for colour in COLOURS},
        "warm": not colours.isdisjoint({"red", "orange", "yellow"}),
        "cold": not colours.isdisjoint({"blue", "purple"}),
        "two-coloured": len(colours) == 2,
        **{pattern: pattern == toy.pattern for pattern in PATTERNS},
        "small": ramp(-size, -0.195, -0.175),
        "large": ramp(size, 0.3, 0.33),
        **{f"at the {side}": ramp(share, 0.72, 0.8) for side, share in sides.items()},
        "tilted": ramp(abs(toy.tilt), 7, 14) if toy.category not in ("disc", "ring") else 0,
        "outlined": toy.outlined,
        "shaded": ramp(toy.shading, 0.1, 0.45),
        "casting a shadow": toy.shadow,
        "smiling": toy.smiling,
    }
    return {name: NO + (YES - NO) * share for name, share in seen.items()}


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
        if not all((folder / name).is_file() and (folder / name).read_bytes() == files[name] for name in files):
            raise FileExistsError("holds something else; name another folder, or remove it first")
        return len(labels["ann_vecs"])
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a drawing that was stopped
    for name in ("annotations", "train2017", "val2017"):
        (partial / name).mkdir(parents=True)
    for name, data in files.items():
        (partial / name).write_bytes(data)
    for scene in scenes:
        draw_scene(scene).save(partial / scene.folder / f"{scene.image_id:012d}.jpg", quality=92)
    partial.rename(folder)
    return len(labels["ann_vecs"])


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
