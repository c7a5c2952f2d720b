"""`attrtrain card`: writes a run's model card."""

import argparse
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.files import atomic_write
from attrtrain.garbage import no_garbage_collection
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.options import add_arguments as add_card_arguments

EXAMPLES = """examples:
  attrtrain card runs/coco
  attrtrain card runs/coco --license apache-2.0 --evaluation runs/coco/test --out README.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_card_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the card (default: RUN/README.md)")


def run(arguments: argparse.Namespace) -> int:
    """Writes the card and says where it is, and what is missing from it; returns 0."""
    with no_garbage_collection():
        from attrtrain.publishing.model_card import write_card
        from attrtrain.publishing.published_model import read_published_model

    out: Path = arguments.out or arguments.run / "README.md"
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file, such as {out / 'README.md'}")
    options = CardOptions.of(arguments)
    model = read_published_model(arguments.run, options.evaluation)
    content = write_card(model, options, ".")
    try:
        with atomic_write(out) as file:
            file.write(content.encode())
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}") from None
    print("\n".join([str(out), *(f"missing from it: {told}" for told in model.missing)]))
    return 0
