"""What a run directory, or the folder of an evaluation, says of one set of predictions."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attrtrain.config.load import YAML_ERRORS
from attrtrain.data.reader import ShardSet
from attrtrain.errors import AttrtrainError, ConfigError, LabelError, PredictionsError
from attrtrain.metrics.document import METRICS, SHARDS, MetricsDocument, read_metrics
from attrtrain.metrics.functional import bce
from attrtrain.metrics.known_cells import KnownCells
from attrtrain.predictions import PREDICTIONS, Predictions, read_predictions
from attrtrain.report.run_report import installed_versions, write_report
from attrtrain.run_layout import AUDIT, CONFIG, EVALUATION, HISTORY
from attrtrain.urls import as_place
from attrtrain.wording import one_line


@dataclass(frozen=True)
class JudgedRun:
    """A run and its evaluation.

    Attributes:
        folder: the run directory, or that of an evaluation without one.
        settings: config.yaml as text; "" where there is none.
        config: the same, parsed; whatever version of attrtrain wrote it.
        history: metrics.jsonl, or None.
        audit: what audit.json holds, or None.
    """

    folder: Path
    document: MetricsDocument
    predictions: Predictions
    settings: str
    config: dict[str, Any]
    history: Path | None
    audit: dict[str, Any] | None


def read_run(folder: Path) -> JudgedRun:
    """Reads RUN/config.yaml, RUN/metrics.jsonl, RUN/audit.json and what lies in RUN/evaluation, or in RUN itself if
    `attrtrain evaluate --out RUN` made it.

    Args:
        folder: RUN, or RUN/evaluation, which stands for it.

    Raises:
        PredictionsError: there is no evaluation, and the message has the command that makes one; or its two files are
            not of one.
        AttrtrainError: a file is damaged.
    """
    here = folder.resolve()
    if here.name == EVALUATION and not (here / CONFIG).is_file() and (here.parent / CONFIG).is_file():
        folder = folder.parent if folder.name == EVALUATION else here.parent  # as it was given, where it says so
    settings, config = read_config(folder / CONFIG)
    evaluation = _find_evaluation(folder, config)
    document, predictions = read_metrics(evaluation / METRICS), read_predictions(evaluation / PREDICTIONS)
    _require_one_evaluation(evaluation, document, predictions)
    return JudgedRun(
        folder=folder,
        document=document,
        predictions=predictions,
        settings=settings,
        config=config,
        history=folder / HISTORY if (folder / HISTORY).is_file() else None,
        audit=read_audit(folder / AUDIT),
    )


def _require_one_evaluation(folder: Path, document: MetricsDocument, predictions: Predictions) -> None:
    """Raises PredictionsError for files of two evaluations, by the loss, which every known cell is in: copied from two
    places, or the second was killed when it had written only its predictions.
    """
    measured, known = document.overall.get("loss"), KnownCells.of(predictions.labels, document.positive_at)
    loss = bce(known.gather(predictions.logits), known.shares)
    if measured is not None and len(known) and not math.isclose(measured, loss, rel_tol=1e-4):
        raise PredictionsError(
            f"{folder}: {METRICS} and {PREDICTIONS} are of different evaluations, with a loss of {measured:.4g} and {loss:.4g}; evaluate again to make them anew"
        )


def write_run_report(out: Path, run: JudgedRun, shards: ShardSet | None, no_pictures: str = "") -> None:
    """Writes a run's page, titled after its folder. Arguments and errors as in `write_report`."""
    write_report(
        out,
        title=run.folder.resolve().name,
        document=run.document,
        predictions=run.predictions,
        shards=shards,
        settings=run.settings,
        history=run.history,
        audit=run.audit,
        versions=installed_versions(),
        no_pictures=no_pictures,
        val_split=_val_split(run.config),
    )


def joined(folders: Sequence[Path | str]) -> str:
    """Shard folders as one text of metrics.json, from which `open_shards` finds them again wherever it is called."""
    return json.dumps([str(folder.resolve()) if isinstance(folder, Path) else folder for folder in folders])


def why_unread(folders: Sequence[str], error: AttrtrainError) -> str:
    """Why the shards of a run cannot be read: the folders of them that are not there from here, or else the error."""
    gone = [str(place) for place in map(as_place, folders) if isinstance(place, Path) and not place.exists()]
    return f"{', '.join(gone)} is not there, seen from {Path.cwd()}" if gone else str(error)


def open_shards(run: JudgedRun) -> tuple[ShardSet | None, str]:
    """The shards that the run was judged on and "", or None and why they cannot be shown."""
    folders, split = shard_folders(run.config), _val_split(run.config)
    if judged_in := run.document.source.get(SHARDS):
        folders = _folders_of(judged_in) or folders
    if not folders:
        return None, "There are no pictures: no config.yaml says where the shards are."
    try:
        shards = ShardSet(list(map(as_place, folders)), run.document.source.get("split") or split)
    except AttrtrainError as error:
        return None, f"There are no pictures: {why_unread(folders, error)}."
    judged_on = run.document.source.get("data_fingerprint")
    if judged_on is not None and judged_on != shards.fingerprint:
        return (
            None,
            f"There are no pictures: {', '.join(folders)} holds other data than the run was judged on.",
        )
    return shards, ""


def _folders_of(text: str) -> list[str]:
    """The shard folders that a text of `joined` names; none where somebody has edited it and it is no such text."""
    try:
        folders = json.loads(text)
    except (ValueError, RecursionError):
        return []
    whole = isinstance(folders, list) and all(isinstance(folder, str) for folder in folders)
    return folders if whole else []


def _find_evaluation(folder: Path, config: dict[str, Any]) -> Path:
    for place in (folder / EVALUATION, folder):
        if (place / METRICS).is_file() and (place / PREDICTIONS).is_file():
            return place
    if not folder.is_dir():
        raise PredictionsError(f"{folder}: no such folder; give a run directory")
    shards = " ".join(shard_folders(config) or ["DIR"])
    raise PredictionsError(
        f"{folder}: has no {EVALUATION}/{METRICS} and {PREDICTIONS} to report on; make them with "
        f"`attrtrain evaluate --model {folder} --shards {shards} --out {folder / EVALUATION}`"
    )


def shard_folders(config: dict[str, Any]) -> list[str]:
    """The shard folders that a config.yaml names, none if it names none. People edit it: one folder may stand there
    without a list.
    """
    folders = _data_section(config).get("shards")
    if isinstance(folders, str):
        folders = [folders]
    return [str(folder) for folder in folders] if isinstance(folders, list) else []


def _val_split(config: dict[str, Any]) -> str:
    return str(_data_section(config).get("val_split", "val"))


def _data_section(config: dict[str, Any]) -> dict[str, Any]:
    data = config.get("data")
    return data if isinstance(data, dict) else {}


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """A run's config.yaml: the text and what it says; empty without the file. Not by `load_config`: another version may
    have had other knobs.

    Raises:
        ConfigError: it cannot be read.
    """
    if not path.is_file():
        return "", {}
    try:
        settings = path.read_text(encoding="utf-8")
        content = yaml.safe_load(settings) or {}
    except (OSError, *YAML_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no sections such as `train:`")
    return settings, content


def read_audit(path: Path) -> dict[str, Any] | None:
    """What a run's audit.json holds, None without the file. Raises LabelError if it is damaged."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise LabelError(f"{path}: damaged; remove it, or make it anew with `attrtrain audit`")
    return content
