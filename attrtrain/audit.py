"""`attrtrain audit`: before a GPU is spent on them, are these labels learnable, or noise?"""

import argparse
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from attrtrain.errors import ConfigError
from attrtrain.run_layout import AUDIT
from attrtrain.urls import as_place, file_name_of, require_folders, require_writable
from attrtrain.wording import counted

if TYPE_CHECKING:  # imported where they are used: SciPy takes a second, which `--help` need not
    from attrtrain.auditing.assemble import FeaturesOf, Subject
    from attrtrain.auditing.document import AuditDocument

EXAMPLES = """examples:
  attrtrain audit boxes.csv --images photos/ --out audits/mine
  attrtrain audit cocottributes.jbl --instances instances_train2017.json instances_val2017.json --out audits/coco
  attrtrain audit shards/coco --weights resnet50.safetensors --out audits/coco

exit code: 0 learnable, 3 weak, 4 noise; 1 and 2 mean that there is no audit"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "audited",
        nargs="+",
        type=as_place,
        metavar="SHARDS_OR_LABELS",
        help="a shard folder, or label files as `attrtrain shard --labels` takes them; these and the files below may be URLs",
    )
    parser.add_argument(
        "--instances",
        nargs="+",
        type=as_place,
        default=[],
        metavar="PATH",
        help="COCO instances files the labels point into; 2014 or 2017, train and val together",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=as_place,
        default=[],
        metavar="PATH",
        help="folders that hold the photographs: finds the same picture under two names",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="a ResNet's state dict (.safetensors, .pth), with which the pixels of shards are tested",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where audit.html and audit.json go")


def run(arguments: argparse.Namespace) -> int:
    """Audits, prints the summary, and returns the verdict's exit code."""
    from attrtrain.auditing.assemble import audit
    from attrtrain.auditing.noise_test import EXIT_CODES
    from attrtrain.auditing.page import write_page
    from attrtrain.contract import write_contract

    require_folders("--images", arguments.images)
    require_writable("--out", arguments.out)
    subject = _shards(arguments) if _is_folder(arguments.audited[0]) else _labels(arguments)
    features_of, objects = _features(arguments.weights, subject)
    document = audit(subject, arguments.images, features_of, objects)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_contract(document, arguments.out / AUDIT)
        write_page(document, arguments.out / "audit.html")
    except OSError as error:
        raise ConfigError(f"--out {error.filename or arguments.out}: {error.strerror or error}") from None
    print(_summary(document))
    print(f"details: {arguments.out / 'audit.html'}")
    return EXIT_CODES[document.verdict]


def _is_folder(place: Path | str) -> bool:
    """Whether a place is a folder. Of a URL, which may be on a server without folders, its name says it."""
    from attrtrain.annotations import SUFFIXES

    return (
        place.is_dir() if isinstance(place, Path) else PurePosixPath(file_name_of(place)).suffix.lower() not in SUFFIXES
    )


def _labels(arguments: argparse.Namespace) -> "Subject":
    from attrtrain.annotations import read_labels_at
    from attrtrain.auditing.assemble import Subject
    from attrtrain.auditing.coverage import describe_coverage

    if arguments.weights is not None:
        raise ConfigError(
            "--weights: the pixels are tested on crops; make shards with `attrtrain shard` and audit those"
        )
    table, _ = read_labels_at(arguments.audited, arguments.instances)
    coverage = None
    if arguments.instances:
        matched = len(table)
        coverage = describe_coverage(
            matched + len(table.unmatched), matched, [PurePosixPath(path).name for path in arguments.instances], {}
        )
    return Subject("labels", [str(path) for path in arguments.audited], table, coverage, None)


def _shards(arguments: argparse.Namespace) -> "Subject":
    from attrtrain.auditing.assemble import Subject
    from attrtrain.auditing.coverage import describe_coverage
    from attrtrain.auditing.shard_table import read_shard_table

    if len(arguments.audited) > 1:
        raise ConfigError(f"{arguments.audited[1]}: shard folders are audited one at a time")
    if arguments.instances:
        raise ConfigError("--instances: belongs to label files; shards have their boxes already")
    shards = read_shard_table(arguments.audited[0])
    written = len(shards.table) + sum(shards.left_out.values())
    coverage = describe_coverage(shards.labelled or written, written, shards.instances, shards.left_out)
    return Subject("shards", [str(arguments.audited[0])], shards.table, coverage, shards.jpeg)


def _features(weights: Path | None, subject: "Subject") -> "tuple[FeaturesOf | None, int]":
    """What gives features of crops, and of how many; torch is only imported for it. The weights are read here, before
    photographs and labels are looked at for minutes.

    Raises:
        WeightsError: they cannot be read or are of no ResNet.
    """
    if weights is None or subject.jpeg is None:
        return None, 0
    from attrtrain.auditing.features import OBJECTS, crop_features, frozen_backbone

    model, jpeg = frozen_backbone(weights), subject.jpeg
    return (lambda rows: crop_features(model, jpeg, rows.tolist())), OBJECTS


def _summary(document: "AuditDocument") -> str:
    lines = [
        f"objects {document.objects:,}, photographs {document.images:,}, attributes {len(document.attributes):,}, "
        f"labels known {document.known_share:.0%}"
    ]
    for test in document.tests:
        judged = (
            "" if test.judged is None else f", {test.above_chance} of {counted(test.judged, 'attribute')} above chance"
        )
        lines.append(f"  {test.name:<17} {test.effect:+.3f} {test.effect_unit} (p = {test.p_value:.3g}{judged})")
    lines += [f"{finding.severity}: {finding.text}" for finding in document.findings if finding.severity != "note"]
    lines.append(
        f"verdict: {document.verdict} (p = {document.p_value:.3g}, effect {document.effect:.3f}): {document.reason}"
    )
    if document.open_question:
        lines.append(f"not known: {document.open_question}")
    return "\n".join(lines)
