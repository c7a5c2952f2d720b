"""`shard`: crops per second and core, from photographs and boxes to shards.

The limit decodes each photograph once and encodes each crop once, with the fastest JPEG library, and writes nothing.
Everybody gets the same boxes in the same photographs, which are repeated under other names until there are enough, and
stores crops as `attrtrain shard` does by default: short side 256 at most, quality 90. attrtrain's turn is the whole
command, with reading the labels, starting workers and writing index and manifest, and gets as many objects as the
limit: by default half of what COCO Attributes has. Peers only loop, and get a tenth of them.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from attrtrain.data.reader import ShardSet
from attrtrain.errors import LeftOutError
from attrtrain.shards.image_lookup import find_image
from tools.bench.contest import BenchError, Contender, run_fresh, take_turns
from tools.bench.data import SPLIT, Source
from tools.bench.result import Case, Result

_FEW, _MANY = 1000, 100_000
_PEERS_SHARE = 10
_PLACE = "tools.bench.shard_contenders"


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares on one core and on two; then looks at how memory grows with the number of objects."""
    assert source is not None
    many = arguments.objects or _MANY
    for_peers = -(-many // _PEERS_SHARE)
    folders = {size: write_boxes(source, work / f"objects-{size}", size) for size in {many, for_peers, _FEW}}
    compared, fewer = folders[many], folders[for_peers]
    cases = [
        _case(f"{count} core{'s' if count > 1 else ''}", arguments.cores[:count], compared, fewer, work, arguments)
        for count in (1, 2)
        if count <= len(arguments.cores)
    ]
    memory = {}
    for size in (_FEW, many):
        settings = {"folder": str(folders[size]), "out": str(work / "memory"), "cores": arguments.cores[:1]}
        outcome = run_fresh(f"{_PLACE}:ours", settings, arguments.cores[:1], arguments.limit_seconds)
        if "missing" in outcome:
            raise BenchError(f"attrtrain with {size} objects: {outcome['missing']}")
        memory[str(size)] = {"peak_mb": outcome["peak_mb"], "crops_per_second": outcome["value"]}
    ratio = memory[str(many)]["peak_mb"] / memory[str(_FEW)]["peak_mb"]
    extra: dict[str, Any] = {"memory": {**memory, "ratio_of_peak_mb": ratio}}
    if len(cases) > 1:
        one, two = (case.summary()["attrtrain"] for case in cases)
        extra["speed_up_on_2_cores"] = 2 * two / one
    return Result(
        "shard",
        cases,
        {"objects": many, "objects_of_peers": for_peers, "objects_for_memory": [_FEW, many]},
        extra,
    )


def _case(
    name: str, cores: list[int], folder: Path, for_peers: Path, work: Path, arguments: argparse.Namespace
) -> Case:
    def contender(title: str, role: Any, function: str) -> Contender:
        settings = {
            "folder": str(for_peers if role == "peer" else folder),
            "out": str(work / "written"),
            "cores": cores,
        }
        return Contender(title, role, f"{_PLACE}:{function}", settings)

    contenders = [
        contender("decode once, encode once", "limit", "limit"),
        contender("attrtrain", "attrtrain", "ours"),
        contender("loop over objects", "peer", "loop"),
        contender("loop + img2dataset's writer", "peer", "img2dataset_writer"),
    ]
    rows = take_turns(contenders, arguments.repeats, cores, arguments.limit_seconds)
    return Case(
        name, rows, "crops per second per core", note="attrtrain: the whole command, label file and checksums too"
    )


def write_boxes(source: Source, folder: Path, objects: int) -> Path:
    """Makes photos/ with links to the photographs, as often as it takes, and boxes.csv with exactly so many objects in
    them.

    Raises:
        BenchError: there are no photographs.
    """
    if not source.images:
        raise BenchError("the photographs are needed: give --images")
    shards = ShardSet([source.shards], SPLIT)
    boxes = [(details["image"], details["source_box"]) for details in map(shards.details, range(len(shards)))]
    boxes.sort(key=lambda entry: str(entry[0]))
    try:
        paths = {name: find_image(name, source.images) for name, _ in boxes}
    except LeftOutError as error:
        raise BenchError(str(error)) from None
    (folder / "photos").mkdir(parents=True)
    with (folder / "boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "split", "x", "y", "w", "h", "an attribute"])
        for number in range(objects):
            repeat, place = divmod(number, len(boxes))
            image, box = boxes[place]
            name = f"{repeat:06d}-{Path(image).name}"
            link = folder / "photos" / name
            if not link.is_symlink():
                link.symlink_to(Path(str(paths[image])).resolve())
            writer.writerow([name, "val" if repeat % 5 == 4 else "train", *box, number % 2])
    return folder
