"""`attrtrain push`: writes a model with its card as a folder for others, and uploads it."""

import argparse
from pathlib import Path

from attrtrain.errors import ConfigError
from attrtrain.garbage import no_garbage_collection
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.options import add_arguments as add_card_arguments

EXAMPLES = """examples:
  attrtrain push runs/coco --to published/coco
  attrtrain push runs/coco --to published/coco --license apache-2.0 --upload me/coco-attributes

Afterwards, `--model published/coco` or `--model hf:me/coco-attributes` uses the model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_card_arguments(parser)
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="the folder to write")
    parser.add_argument(
        "--upload",
        metavar="OWNER/NAME",
        help="upload it to this repository, which is made if need be, as a private one",
    )
    parser.add_argument("--public", action="store_true", help="make a new repository a public one")


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder, uploads it if asked to, and says what is missing from the card; returns 0."""
    with no_garbage_collection():
        from attrtrain import hub
        from attrtrain.publishing.hub_folder import NAMES, write_hub_folder
        from attrtrain.publishing.model_card import write_card
        from attrtrain.publishing.published_model import read_published_model

    if arguments.public and not arguments.upload:
        raise ConfigError("--public: belongs to --upload OWNER/NAME")
    if arguments.upload is not None:
        hub.require_repository(arguments.upload)  # before a folder is written whose card names it
    options = CardOptions.of(arguments)
    model = read_published_model(arguments.run, options.evaluation)
    card = write_card(model, options, "." if arguments.upload is None else f"hf:{arguments.upload}")
    write_hub_folder(arguments.to, model, card)
    print("\n".join([str(arguments.to), *(f"missing from its card: {told}" for told in model.missing)]), flush=True)
    if arguments.upload is not None:
        print(hub.upload(arguments.to, arguments.upload, NAMES, private=not arguments.public))
    return 0
