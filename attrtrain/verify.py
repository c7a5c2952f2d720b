"""`attrtrain verify`: are these shards still what was written?"""

import argparse
import sys
from pathlib import Path

from attrtrain.errors import AttrtrainError
from attrtrain.urls import as_place
from attrtrain.wording import counted

EXAMPLES = """example:
  attrtrain verify shards/coco"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folders", nargs="+", type=as_place, metavar="DIR", help="a shard folder, or its URL")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each damage to stderr; returns 1 when there is any."""
    return max([_verify_one(folder) for folder in arguments.folders])


def _verify_one(folder: Path | str) -> int:
    # Here, because NumPy and pydantic take longer than `--help` may.
    from attrtrain.shards.manifest import read_manifest
    from attrtrain.shards.verify import verify

    try:
        is_whole = True
        for problem in verify(folder):
            is_whole = False
            print(problem, file=sys.stderr)
        manifest = read_manifest(folder)
    except AttrtrainError as error:  # and on to the next folder
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not is_whole:
        print(
            f"{folder}: NOT as written; the `attrtrain shard` command that wrote it writes again what is missing or "
            "damaged, and nothing else; what is there too much is for you to delete",
            file=sys.stderr,
        )
        return 1
    samples = sum(shard.samples for shard in manifest.shards)
    print(f"{folder}: {counted(len(manifest.shards), 'shard')}, {counted(samples, 'sample')}, every byte as written")
    return 0
