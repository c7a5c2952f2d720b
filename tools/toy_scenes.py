"""Scenes of simple objects with visual attributes: what is in them, how they look, and what annotators would say of
them.
"""

import colorsys
import math
from dataclasses import dataclass

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
