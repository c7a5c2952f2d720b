#!/usr/bin/env python
"""Makes known labels unknown, to see what a way of dealing with unknown ones is worth: the split that is judged stays
whole.

    python -m tools.hide_labels OUT.csv --labels labels.csv --share 0.8 [--instances ...] [--split train] [--seed 0]

Reads labels as `attrtrain shard` does, deals photographs out to splits as it does, and writes a CSV in which the given
share of the known ones of one split is empty, drawn cell by cell whatever they say. The same seed empties the same
cells, and a larger share those of a smaller one too. Crowds, of which no crop is made, are left out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attrtrain.annotations import read_labels
from attrtrain.annotations.split import apply_split
from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import AttrtrainError
from attrtrain.files import atomic_write
from attrtrain.keyed_random import uniform
from tools.reference_report import write_csv


def hidden(table: ObjectTable, split: str, share: float, seed: int) -> NDArray[np.float32]:
    """The labels (N, A) with a share of the known ones of one split turned into NaN."""
    attributes = np.arange(table.labels.shape[1])
    draws = uniform(seed, table.object_id[:, None], attributes)  # by what they are of, not by where they stand
    return np.where((draws < share) & (table.split == split)[:, None], np.float32(np.nan), table.labels)


def main() -> int:
    """Parses the command line, reads, hides, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument(
        "--labels", type=Path, nargs="+", required=True, metavar="PATH", help="as for `attrtrain shard`"
    )
    parser.add_argument(
        "--instances", type=Path, nargs="+", default=[], metavar="PATH", help="as for `attrtrain shard`"
    )
    parser.add_argument("--share", type=float, required=True, metavar="SHARE", help="of known labels, in [0, 1]")
    parser.add_argument("--split", default="train", help="in which (default: train)")
    parser.add_argument("--val-share", type=float, default=0.2, metavar="SHARE", help="as for `attrtrain shard`")
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="as for `attrtrain shard`")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 1:
        parser.error(f"--share {arguments.share}: must be from 0 to 1")
    if not 0 < arguments.val_share < 1:
        parser.error(f"--val-share {arguments.val_share}: must be between 0 and 1")
    try:
        table, _ = read_labels(arguments.labels, arguments.instances)
        table, note = apply_split(table, "auto", arguments.val_share, arguments.split_seed)
        table = table.take(np.flatnonzero(~table.crowd))
    except AttrtrainError as error:
        raise SystemExit(f"error: {error}") from None
    if not (table.split == arguments.split).any():
        names = ", ".join(sorted(set(table.split.tolist())))
        raise SystemExit(f"error: --split: no object of split '{arguments.split}'; there are: {names}")
    labels = hidden(table, arguments.split, arguments.share, arguments.seed)
    try:
        with atomic_write(arguments.out) as file:
            write_csv(Path(file.name), table, table.vocabulary.names, labels)
    except OSError as error:
        raise SystemExit(f"error: {arguments.out}: {error.strerror}") from None
    left, before = (int((~np.isnan(cells[table.split == arguments.split])).sum()) for cells in (labels, table.labels))
    print(note)
    print(f"{arguments.out}: {left:,} of {before:,} known labels of split '{arguments.split}' are left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
