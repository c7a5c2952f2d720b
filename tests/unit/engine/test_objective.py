"""What the training split tells the loss, against counts by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attrtrain.config.schema import LabelsConfig, LossConfig, TrainConfig, TrainSection
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.engine.objective import Objective
from attrtrain.losses import Cells
from attrtrain.metrics.baselines import CATEGORY_SMOOTHING


@pytest.fixture(scope="module")
def samples(toy_shards: Path) -> ShardSet:
    return ShardSet([str(toy_shards)], "train")


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_positive_weights_are_counted_in_the_training_split(samples: ShardSet, positive_at: float) -> None:
    labels_config = LabelsConfig(positive_at=positive_at)
    config = replace(TrainConfig(), loss=LossConfig(positive_weight=8.0), labels=labels_config)
    weight = Objective.of(config, samples, torch.device("cpu")).loss.positive_weight
    labels = samples.labels(np.arange(len(samples)))
    for column, name in enumerate(samples.vocabulary.names):
        known = labels[:, column][~np.isnan(labels[:, column])]
        positives, negatives = (known >= positive_at).sum(), (known < positive_at).sum()
        expected = min(max(negatives / positives, 0.125), 8.0) if positives and negatives else 1.0
        assert weight[column].item() == pytest.approx(expected), name
    assert len({round(value, 3) for value in weight.tolist()}) > 3
    assert Objective.of(TrainConfig(), samples, torch.device("cpu")).loss.positive_weight is None


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_unknown_labels_are_soft_negatives_where_their_category_hardly_has_the_attribute(
    samples: ShardSet, positive_at: float
) -> None:
    labels_config = LabelsConfig(unknown="selective", selective_below=0.2, positive_at=positive_at)
    config = replace(TrainConfig(), labels=labels_config)
    objective = Objective.of(config, samples, torch.device("cpu"))
    index = np.array([3, 50, 7, 111], dtype=np.int64)
    batch = CropDataset(samples, 32)[BatchRequest(0, index, index)]
    logits = torch.linspace(-2, 2, batch.target.numel()).reshape(batch.target.shape)
    labels, categories = samples.labels(np.arange(len(samples))), np.array(samples.categories())
    counted = ~np.isnan(labels)
    overall = (labels >= positive_at).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    overall[counted.sum(axis=0) == 0] = 0.5
    total, soft = 0.0, 0
    for row, position in enumerate(index):
        kind = categories == categories[position]
        positives, known = (labels[kind] >= positive_at).sum(axis=0), counted[kind].sum(axis=0)
        rates = (positives + CATEGORY_SMOOTHING * overall) / (known + CATEGORY_SMOOTHING)
        for column, rate in enumerate(rates):
            label, p = labels[position, column], 1 / (1 + np.exp(-logits[row, column].item()))
            if np.isnan(label):
                if rate > 0.2:
                    continue
                label, soft = rate, soft + 1
            total -= label * np.log(p) + (1 - label) * np.log(1 - p)
    assert soft > 10
    cells = Cells(batch.target, batch.known, 0, batch.step_known, objective.rates_of(batch.index))
    found = objective.loss(logits, cells)
    assert found.item() == pytest.approx(total / (config.train.global_batch * logits.shape[1]), rel=1e-5)


@pytest.mark.parametrize("unknown", ["negative", "hill", "splc", "selective"])
def test_where_unknown_labels_count_a_micro_batch_costs_its_part_of_the_whole_step(
    samples: ShardSet, unknown: str
) -> None:
    """At a logit of 0 every cell that counts costs log 2, whatever its label, but in the Hill loss an unknown one costs
    (1.5 - 1/2) / 4.
    """
    labels_config = LabelsConfig(unknown=unknown, selective_below=1.0)  # type: ignore[arg-type]
    config = replace(TrainConfig(), labels=labels_config, train=TrainSection(global_batch=24, micro_batch=6))
    objective = Objective.of(config, samples, torch.device("cpu"))
    index, step = np.arange(6, dtype=np.int64), np.arange(24, dtype=np.int64)
    batch = CropDataset(samples, 32)[BatchRequest(0, index, step)]
    cells = Cells(batch.target, batch.known, 0, batch.step_known, objective.rates_of(batch.index))
    of_unknown = 0.25 if unknown == "hill" else np.log(2)
    known = int(batch.known.sum())
    total = known * np.log(2) + (batch.known.numel() - known) * of_unknown
    found = objective.loss(torch.zeros(batch.target.shape), cells).item()
    assert found == pytest.approx(total / (24 * batch.target.shape[1]), rel=1e-5)
