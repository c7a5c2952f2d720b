"""What the report shows of a run, as trackers take it: tables, curves, pictures, files."""

import base64
from pathlib import Path

import numpy as np

from attrtrain import bundle
from attrtrain.contract import to_json
from attrtrain.data.reader import ShardSet
from attrtrain.metrics.document import AttributeEntry, MetricsDocument
from attrtrain.predictions import Predictions
from attrtrain.report.cells import Cells, probabilities
from attrtrain.report.curves import calibration, precision_recall, thinned
from attrtrain.report.gallery import Card, draw_gallery
from attrtrain.report.pictures import Pictures
from attrtrain.shards.manifest import MANIFEST
from attrtrain.tracking.trackers import Artifact, Curves, Picture, Table, Tracker
from attrtrain.urls import is_url, name_of

_DRAWN_ATTRIBUTES = 8
_GALLERY_BYTES = 1_000_000
_ALL = "all attributes"
_COLUMNS = {
    "attribute": "name", "group": "group", "judged": "judged", "AP": "ap", "prior": "prior", "shuffled": "permutation_ap",
    "category": "category_ap", "AUROC": "auroc", "F1": "f1", "calibration error": "ece", "positives": "positives",
    "negatives": "negatives", "unknowns": "unknowns",
}  # fmt: skip
_SIGNS = {"right": "✓", "wrong": "✗", "missed": "missed", "unknown": "?"}


def track_judgement(
    tracker: Tracker, step: int, document: MetricsDocument, predictions: Predictions, shards: ShardSet
) -> None:
    """Shows the best model's evaluation: every attribute beside its prior, curves, and some crops with what it says of
    them.

    Args:
        step: optimizer steps taken when it is shown.
        document: what was measured of the predictions.
        shards: where the objects' crops are.

    Raises:
        ShardError: a crop cannot be read.
    """
    cells = Cells.of(predictions, document.positive_at, document.threshold)
    tracker.log_table("best/attributes", step, attribute_table(document))
    tracker.log_curves("best/precision_recall", step, precision_recall_curves(document, predictions, cells))
    tracker.log_curves("best/calibration", step, calibration_curve(cells))
    pictures = Pictures(shards, predictions.object_id, _GALLERY_BYTES)
    gallery = draw_gallery(predictions, cells, pictures)
    tracker.log_pictures("best/gallery", step, [_picture(card) for card in gallery if card.uri])


def attribute_table(document: MetricsDocument) -> Table:
    """Every attribute of a judgement, the highest AP first; None where a number does not exist."""
    entries = sorted(document.attributes, key=lambda entry: -1.0 if entry.ap is None else entry.ap, reverse=True)
    return Table(tuple(_COLUMNS), [[getattr(entry, field) for field in _COLUMNS.values()] for entry in entries])


def precision_recall_curves(document: MetricsDocument, predictions: Predictions, cells: Cells) -> Curves:
    """All known cells as one ranking, and the judged attributes with the most positives each; more lines than these
    nobody can tell apart.
    """
    known = cells.known
    judged = sorted((entry for entry in document.attributes if entry.judged), key=_positives, reverse=True)
    lines = {_ALL: _curve(cells, known)}
    for entry in judged[:_DRAWN_ATTRIBUTES]:
        column = predictions.names.index(entry.name)
        only = np.zeros_like(known)
        only[:, column] = known[:, column]
        lines[entry.name] = _curve(cells, only)
    return Curves("Precision over recall, best epoch", "recall", lines)


def calibration_curve(cells: Cells) -> Curves:
    """The share of known cells that are present, over the score the model gives them."""
    known = cells.known
    bins = calibration(probabilities(cells.logits[known]), cells.present[known])
    lines = {
        "share present": ([entry.score for entry in bins], [entry.present for entry in bins]),
        "perfect": ([0.0, 1.0], [0.0, 1.0]),
    }
    return Curves("Calibration, best epoch", "score", lines)


def describe_shards(shards: ShardSet) -> Artifact:
    """The manifests of the shards a run trains on: they hold the checksum of every shard, and so stand for all of the
    data.
    """
    folders = [str(folder) for folder in shards.folders]
    single = len(folders) == 1
    files = {
        MANIFEST if single else f"{number}/{MANIFEST}": to_json(manifest)
        for number, manifest in enumerate(shards.manifests)
    }
    return Artifact(
        name="shards-" + "-".join(name_of(folder) for folder in folders),
        kind="dataset",
        files=files,
        facts={
            "fingerprint": shards.fingerprint,
            "folders": [folder if is_url(folder) else str(Path(folder).resolve()) for folder in folders],
            "attributes": len(shards.vocabulary),
            "objects": {
                split: sum(manifest.splits[split].objects for manifest in shards.manifests if split in manifest.splits)
                for split in sorted({name for manifest in shards.manifests for name in manifest.splits})
            },
        },
    )


def describe_bundle(folder: Path, card: bundle.ModelCard, epoch: int) -> Artifact:
    """A bundle, with what its card says but for the names of the attributes."""
    return Artifact(
        name="bundle",
        kind="model",
        files={name: folder / name for name in (bundle.WEIGHTS, bundle.CARD)},
        facts={**card.model_dump(mode="json", exclude={"vocabulary"}), "epoch": epoch},
    )


def _positives(entry: AttributeEntry) -> int:
    return entry.positives


def _curve(cells: Cells, chosen: np.ndarray) -> tuple[list[float], list[float]]:
    recall, precision = precision_recall(cells.logits[chosen], cells.present[chosen])
    kept = thinned(recall, precision)
    return recall[kept].tolist(), precision[kept].tolist()


def _picture(card: Card) -> Picture:
    guesses = ", ".join(f"{guess.name} {guess.score:.2f} {_SIGNS[guess.verdict]}" for guess in card.guesses)
    caption = f"{card.category} {card.object_id}: {guesses or 'nothing named, nothing missed'}".strip()
    return Picture(base64.b64decode(str(card.uri).partition(",")[2]), caption)
