"""`attrtrain verify`: are these shards still what was written?"""

import argparse
import sys
from pathlib import Path

from attrtrain.shards.manifest import read_manifest
from attrtrain.shards.verify import verify

HELP = "reread every byte of shard folders against their manifests"
EXAMPLES = """example:
  attrtrain verify shards/coco"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a shard folder")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each damage to stderr; returns 1 when there is any."""
    exit_code = 0
    for folder in arguments.folders:
        problems = 0
        for problem in verify(folder):
            print(problem, file=sys.stderr)
            problems += 1
        if problems:
            exit_code = 1
            print(
                f"{folder}: NOT as written; delete the damaged shards' files in {folder}/records and run `attrtrain shard` again",
                file=sys.stderr,
            )
        else:
            manifest = read_manifest(folder)
            samples = sum(shard.samples for shard in manifest.shards)
            print(f"{folder}: {len(manifest.shards)} shards, {samples:,} samples, every byte as written")
    return exit_code
