"""`attrtrain predict`: tells the attributes of objects in a photograph."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrtrain.errors import AttrtrainError, ConfigError, ImageError
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import add_models_arguments, check_scales
from attrtrain.wording import shown

if TYPE_CHECKING:  # torch takes seconds, which `--help` need not
    from attrtrain.inference.predictor import Predictor
    from attrtrain.shards.crop import Box

EXAMPLES = """examples:
  attrtrain predict --model runs/coco photo.jpg --box 120,40,200,310
  attrtrain predict --model runs/coco photo.jpg --box 120,40,200,310 --box 400,90,80,60 --top 5 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_models_arguments(parser)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a photograph")
    parser.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="X,Y,W,H",
        help="an object in it, pixels; may be given several times; --box=-5,0,40,30 where the first number is negative (default: the whole picture)",
    )
    parser.add_argument(
        "--category",
        default="",
        metavar="NAME",
        help="what the objects are, for a model whose head reads it (default: not known)",
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="attributes shown for each object (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Predicts and prints; returns 0."""
    boxes = [_box(text) for text in arguments.box]
    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top}: must be at least 1")
    check_scales(arguments.tta_scales)
    with no_garbage_collection():
        from attrtrain.inference.members import views_of
        from attrtrain.inference.predictor import Predictor

    predictor = Predictor(arguments.model, views=views_of(arguments.tta_flip, arguments.tta_scales))
    _check_category(predictor, arguments.category)
    for note in predictor.mirror_notes:
        print(f"note: {note}", file=sys.stderr)
    objects = predict(predictor, arguments.image, boxes, arguments.top, arguments.category)
    if arguments.json:
        print(json.dumps({"image": str(arguments.image), "objects": objects}, indent=1))
        return 0
    for found in objects:
        print(f"{arguments.image}  box {', '.join(f'{value:g}' for value in found['box'])}")
        for attribute in found["attributes"]:
            bar = "█" * round(20 * attribute["score"])
            print(f"  {attribute['score']:.3f}  {bar:<20}  {shown(attribute['name'])}")
    return 0


def _check_category(predictor: "Predictor", category: str) -> None:
    if not category:
        return
    known = predictor.categories
    if not known:
        raise ConfigError(f"--category {category}: this model looks at crops alone; leave it out")
    if category not in known:
        raise ConfigError(
            f"--category {category}: the model was trained on {', '.join(known)}; leave it out for anything else"
        )


def predict(
    predictor: "Predictor", image_path: Path, boxes: "list[Box]", top: int, category: str = ""
) -> list[dict[str, Any]]:
    """The likeliest attributes of each box (x, y, width, height in pixels), or of the whole picture without boxes.

    `category` is what all of them are, for heads that read it; "" where that is not known.

    Attributes that had no label in training are left out: what the model says of them is luck.

    Raises:
        ImageError: the picture cannot be read, or a box lies outside it.
        AttrtrainError: a score is no number.
    """
    import torch

    from attrtrain.errors import LeftOutError
    from attrtrain.inference.scoring import BATCH
    from attrtrain.shards.crop import whole_picture
    from attrtrain.shards.image_decode import load_image

    names = predictor.names
    if image_path.is_dir():
        raise ImageError(f"{image_path}: is a folder; give a picture, or look at many with `attrtrain annotate`")
    if not image_path.is_file():
        raise ImageError(f"{image_path}: no such picture")
    try:
        image = load_image(image_path)
        boxes = boxes or [whole_picture(image)]
        crops = torch.stack([predictor.crop(image, box) for box in boxes])
    except LeftOutError as error:
        raise ImageError(f"{image_path}: {error}" if str(image_path) not in str(error) else str(error)) from None
    scores = torch.cat(
        [predictor(part, [category] * len(part)).logits.sigmoid().cpu() for part in torch.split(crops, BATCH)]
    )  # (B, A)
    if not scores.isfinite().all():
        raise AttrtrainError("the model's output is not finite; its training has diverged")
    untrained = set(predictor.card.untrained)
    return [
        {
            "box": list(box),
            "attributes": [
                {"name": names[column], "score": round(float(row[column]), 6)}
                for column in [one for one in row.argsort(descending=True) if names[one] not in untrained][:top]
            ],
        }
        for box, row in zip(boxes, scores, strict=True)
    ]


def _box(text: str) -> "Box":
    parts = text.split(",")
    try:
        x, y, width, height = map(float, parts)
    except ValueError:
        raise ConfigError(f"--box {text}: give four numbers as x,y,width,height") from None
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        raise ConfigError(f"--box {text}: width and height must be above 0")
    return x, y, width, height
