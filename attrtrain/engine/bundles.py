"""The bundles a run leaves: that of its best epoch, and those of its newest where they are asked for."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from attrtrain import bundle
from attrtrain.data.meaning import mirroring
from attrtrain.engine.evaluate import Evaluation
from attrtrain.engine.judging import decision_thresholds, predictions_of
from attrtrain.engine.resume import full_tensors
from attrtrain.engine.state import Learner, RunState, Task
from attrtrain.run_layout import BUNDLE, BUNDLES
from attrtrain.shards.manifest import VocabularyRecord, unlabelled_attributes


def save_bundles(task: Task, learner: Learner, state: RunState, evaluation: Evaluation, is_best: bool) -> None:
    """Writes the bundle of the epoch just closed, as the best one, as one of the newest, as both or not at all; older
    ones go. Collective.
    """
    folders = [task.folder / BUNDLE] if is_best else []
    newest, keep = task.folder / BUNDLES, task.config.checkpoint.keep_bundles
    if keep:
        folders.append(newest / _epoch_name(state.epoch))
    if folders:
        write_bundles(task, learner, evaluation, folders)
    if keep and task.runtime.is_main:
        # Those of later epochs go too, which a run has that was taken up from an older checkpoint.
        kept = {_epoch_name(epoch) for epoch in range(max(1, state.epoch - keep + 1), state.epoch + 1)}
        for other in newest.glob("epoch-*"):
            if other.name not in kept:
                shutil.rmtree(other, ignore_errors=True)


def write_bundles(task: Task, learner: Learner, evaluation: Evaluation, folders: Sequence[Path]) -> None:
    """Writes the network as it is, with what its evaluation says of it, into each of these folders. Collective."""
    tensors = full_tensors(learner.judged)
    if task.runtime.is_main:
        card = _card(task, learner, evaluation)
        for folder in folders:
            bundle.save_bundle(folder, tensors, card)


def _epoch_name(epoch: int) -> str:
    return f"epoch-{epoch:03d}"


def _card(task: Task, learner: Learner, evaluation: Evaluation) -> bundle.ModelCard:
    config, shards = task.config, task.train_shards
    mean, std = learner.module.normalisation
    return bundle.ModelCard(
        architecture=bundle.Architecture(
            backbone=config.model.backbone,
            head=config.model.head,
            hidden=config.model.hidden,
            dropout=config.model.dropout,
            mean=mean,
            std=std,
            categories=list(learner.module.categories),
        ),
        vocabulary=VocabularyRecord.of(shards.vocabulary),
        image_px=config.data.image_px,
        crop=shards.crop,
        framing=task.framing,
        positive_at=config.labels.positive_at,
        precision=task.runtime.precision,
        channels_last=config.train.channels_last,
        data_fingerprint=shards.fingerprint,
        selected_on=config.data.val_split,
        untrained=unlabelled_attributes(shards.manifests, shards.split),
        thresholds=decision_thresholds(predictions_of(evaluation, task.val_shards), shards, config.labels.positive_at),
        mirrored=mirroring(config.data),
        metrics={
            "val.map": None if math.isnan(evaluation.scores.map) else evaluation.scores.map,
            "val.prior_map": None if math.isnan(evaluation.scores.prior_map) else evaluation.scores.prior_map,
            "val.objects": len(evaluation.labels),
        },
    )
