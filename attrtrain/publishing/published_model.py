"""What a run directory says of its model, gathered for its card; what is not there is told as missing, never made
up.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrtrain import bundle
from attrtrain.errors import AttrtrainError, ConfigError, PredictionsError
from attrtrain.metrics.document import METRICS, MetricsDocument, read_metrics
from attrtrain.report.run_directory import read_audit, read_config, shard_folders, why_unread
from attrtrain.run_layout import AUDIT, CONFIG, EVALUATION, RESULT
from attrtrain.shards.manifest import Manifest, fingerprint_of, read_manifest
from attrtrain.urls import as_place, name_of


@dataclass(frozen=True)
class PublishedModel:
    """A model and what its run's files say.

    Attributes:
        name: of the run directory.
        folder: of its bundle.
        card: the bundle's model.json.
        metrics: of its evaluation; None where there is none.
        config: config.yaml, parsed; empty where there is none.
        audit: what audit.json holds, or None.
        result: what result.json holds; empty where the run is not finished.
        data_names: what the shard folders are called; empty where nothing says.
        manifests: of the shards it was trained on; empty where they are not at hand.
        missing: what was not there, a line each, for who publishes the model.
    """

    name: str
    folder: Path
    card: bundle.ModelCard
    metrics: MetricsDocument | None
    config: dict[str, Any]
    audit: dict[str, Any] | None
    result: dict[str, Any]
    data_names: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    missing: tuple[str, ...]

    @property
    def is_judged_on_own_data(self) -> bool:
        """Whether the evaluation is of the shards that it was trained on, whichever split."""
        return self.metrics is not None and self.metrics.source.get("data_fingerprint") == self.card.data_fingerprint

    def setting(self, section: str, key: str) -> Any:
        """One value of config.yaml, None where it has none."""
        values = self.config.get(section)
        return values.get(key) if isinstance(values, dict) else None


def read_published_model(run: Path, evaluation: Path | None = None) -> PublishedModel:
    """Reads a run directory or bundle.

    Args:
        run: the folder.
        evaluation: where metrics.json is; None for RUN/evaluation, or beside the bundle of a model that was published.

    Raises:
        WeightsError: there is no bundle, or its card is damaged.
        PredictionsError: `evaluation` has no metrics.json, or one of another model's attributes.
        AttrtrainError: another file of the run is damaged.
    """
    folder = bundle.require_bundle(run)
    card = bundle.read_card(folder)
    _, config = read_config(run / CONFIG)
    metrics = _read_metrics(run, evaluation, card)
    places = shard_folders(config)
    manifests, trouble = _read_manifests(places, card)
    missing = [
        *(
            []
            if metrics
            else [f"no metrics: {run / EVALUATION / METRICS} is not there; `attrtrain evaluate` makes one"]
        ),
        *([] if config else [f"no training settings: {run / CONFIG} is not there"]),
        *([trouble] if trouble else []),
    ]
    return PublishedModel(
        name=bundle.model_name(run),
        folder=folder,
        card=card,
        metrics=metrics,
        config=config,
        audit=read_audit(run / AUDIT),
        result=_read_result(run / RESULT),
        data_names=tuple(name_of(place) for place in places),
        manifests=tuple(manifests),
        missing=tuple(missing),
    )


def _read_metrics(run: Path, given: Path | None, card: bundle.ModelCard) -> MetricsDocument | None:
    folder = given or next((place for place in (run / EVALUATION, run) if (place / METRICS).is_file()), None)
    if folder is None:
        return None
    if not (folder / METRICS).is_file():
        raise PredictionsError(f"--evaluation {given}: has no {METRICS}; `attrtrain evaluate --out {given}` makes one")
    metrics = read_metrics(folder / METRICS)
    if [entry.name for entry in metrics.attributes] != card.vocabulary.names:
        raise PredictionsError(f"{folder / METRICS}: is of other attributes than the model {run}")
    several = [f"several {name}" for name in ("models", "views") if metrics.source.get(name)]
    if several:
        raise PredictionsError(
            f"{folder / METRICS}: is of {' and '.join(several)} together ({metrics.source.get('model')}), not of this model as it is; "
            "evaluate it alone, without --tta flags, and name that folder with --evaluation"
        )
    return metrics


def _read_manifests(places: Sequence[str], card: bundle.ModelCard) -> tuple[list[Manifest], str]:
    """The manifests of the shards that the model was trained on, or none and why."""
    if not places:
        return [], "no counts of the data: nothing says where the shards are"
    try:
        manifests = [read_manifest(as_place(place)) for place in places]
    except AttrtrainError as error:
        return [], f"no counts of the data: {why_unread(places, error)}"
    if fingerprint_of(manifests) != card.data_fingerprint:
        return [], f"no counts of the data: {', '.join(places)} holds other data than the model was trained on"
    return manifests, ""


def _read_result(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: damaged; the same training command writes it anew")
    return content
