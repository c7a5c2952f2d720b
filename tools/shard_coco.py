#!/usr/bin/env python
"""Shards COCO Attributes from a COCO folder in its usual layout; the work is `attrtrain shard`'s.

    python tools/shard_coco.py COCO_FOLDER LABELS OUT [any option of `attrtrain shard`]

COCO_FOLDER holds annotations/instances_{train,val}{2017 or 2014}.json and the picture folders of the same names.
"""

import sys
from pathlib import Path

from attrtrain.cli import main


def arguments_for(coco: Path, labels: str, out: str, options: list[str]) -> list[str]:
    """The `attrtrain shard` arguments for a COCO folder, of 2017 where both years are there."""
    for year in ("2017", "2014"):
        instances = [
            path
            for split in ("train", "val")
            if (path := coco / "annotations" / f"instances_{split}{year}.json").is_file()
        ]
        images = [path for split in ("train", "val") if (path := coco / f"{split}{year}").is_dir()]
        if instances and images:
            break
    else:
        raise SystemExit(
            f"error: {coco}: no annotations/instances_train2017.json with a train2017 folder (nor val, nor 2014) in it"
        )
    return [
        "shard",
        "--labels",
        labels,
        "--instances",
        *map(str, instances),
        "--images",
        *map(str, images),
        "--out",
        out,
        *options,
    ]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        raise SystemExit(0)
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    sys.exit(main(arguments_for(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
