"""The data that the page's script draws from, as little JSON as it needs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrtrain.metrics.document import AttributeEntry, MetricsDocument
from attrtrain.predictions import Predictions
from attrtrain.report.cells import Cells, probabilities
from attrtrain.report.curves import calibration, precision_recall, thinned
from attrtrain.report.gallery import Card
from attrtrain.report.history import Points
from attrtrain.report.mistakes import Mistakes
from attrtrain.report.pictures import Pictures
from attrtrain.report.samples import SampleTable

SHOWN = 3
"""Decimals of a score on the page. What the script rounds as it shows it is rounded to them here: of a number that was
cut to other digits before, the last one may differ from what stands elsewhere on the page.
"""


def build_payload(
    document: MetricsDocument,
    predictions: Predictions,
    cells: Cells,
    *,
    curves: dict[str, Points],
    mistakes: list[Mistakes],
    samples: SampleTable,
    pictures: Pictures,
    gallery: list[Card],
) -> dict[str, Any]:
    """Gathers it. Scores are in thousandths, objects are rows of the predictions, attributes are columns."""
    entries = {entry.name: entry for entry in document.attributes}
    categories = sorted(set(predictions.category.tolist()))
    code = {category: number for number, category in enumerate(categories)}
    shown = sorted({row for entry in mistakes for row in (*entry.wrong, *entry.missed)})
    in_gallery = {card.row for card in gallery}
    return {
        "names": list(predictions.names),
        "threshold": document.threshold,
        "curves": {name: [[_short(x), _short(y)] for x, y in points] for name, points in curves.items()},
        "attributes": [
            _attribute(entries[name], cells, column, mistakes[column]) for column, name in enumerate(predictions.names)
        ],
        "categories": categories,
        "objects": {row: [str(predictions.object_id[row]), code[str(predictions.category[row])]] for row in shown},
        "pictures": {row: uri for row, uri in pictures.uris.items() if row not in in_gallery},
        "samples": {
            # 64 bits are more than a number in JavaScript holds
            "id": [str(number) for number in predictions.object_id[samples.rows]],
            "category": [code[str(name)] for name in predictions.category[samples.rows]],
            **{
                name: getattr(samples, name).tolist()
                for name in ("known", "correct", "named", "present", "unknown")
            },
            "right": samples.right,
            "wrong": samples.wrong,
            "missed": samples.missed,
        },
    }  # fmt: skip


def _attribute(entry: AttributeEntry, cells: Cells, column: int, mistakes: Mistakes) -> dict[str, Any]:
    known = cells.present[:, column] | cells.absent[:, column]
    logits, present = cells.logits[known, column], cells.present[known, column]
    recall, precision = precision_recall(logits, present)
    kept = thinned(recall, precision)
    return {
        **{
            name: round(value, SHOWN) if isinstance(value, float) else value
            for name, value in entry.model_dump().items()
            if name not in ("name", "ap_interval") and value is not None
        },
        "interval": None if entry.ap_interval is None else [round(end, SHOWN) for end in entry.ap_interval],
        "pr": [_thousandths(recall[kept]), _thousandths(precision[kept])],
        "bins": [
            [round(1000 * part.score), round(1000 * part.present), part.objects]
            for part in calibration(probabilities(logits), present)
        ],
        "mistakes": [
            [[row, score] for row, score in zip(rows, _thousandths(np.round(probabilities(cells.logits[rows, column]), 2)), strict=True)]
            for rows in (mistakes.wrong, mistakes.missed)
        ],
    }  # fmt: skip


def _thousandths(values: NDArray[np.float64]) -> list[int]:
    return [int(value) for value in np.rint(1000 * values)]


def _short(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
