"""What the training split tells the loss, against counts by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attrtrain.config.schema import LabelsConfig, LossConfig, TrainConfig
from attrtrain.data.loader import CropDataset
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.engine.objective import Objective
from attrtrain.losses import Cells
from attrtrain.metrics.baselines import CATEGORY_SMOOTHING


@pytest.fixture(scope="module")
def samples(toy_shards: Path) -> ShardSet:
    return ShardSet([str(toy_shards)], "train")


def test_positive_weights_are_counted_in_the_training_split(samples: ShardSet) -> None:
    config = replace(TrainConfig(), loss=LossConfig(positive_weight=4.0))
    weight = Objective.of(config, samples, torch.device("cpu")).loss.positive_weight
    labels = samples.labels(np.arange(len(samples)))
    for column, name in enumerate(samples.vocabulary.names):
        known = labels[:, column][~np.isnan(labels[:, column])]
        positives, negatives = (known >= 0.5).sum(), (known < 0.5).sum()
        expected = min(max(negatives / positives, 0.25), 4.0) if positives and negatives else 1.0
        assert weight[column].item() == pytest.approx(expected), name
    assert len({round(value, 3) for value in weight.tolist()}) > 3
    assert Objective.of(TrainConfig(), samples, torch.device("cpu")).loss.positive_weight is None


def test_unknown_labels_are_soft_negatives_where_their_category_hardly_has_the_attribute(samples: ShardSet) -> None:
    config = replace(TrainConfig(), labels=LabelsConfig(unknown="selective", selective_below=0.2))
    objective = Objective.of(config, samples, torch.device("cpu"))
    index = np.array([3, 50, 7, 111], dtype=np.int64)
    batch = CropDataset(samples, 32)[BatchRequest(0, index, index)]
    logits = torch.linspace(-2, 2, batch.target.numel()).reshape(batch.target.shape)
    labels, categories = samples.labels(np.arange(len(samples))), np.array(samples.categories())
    counted = ~np.isnan(labels)
    overall = (labels >= 0.5).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    overall[counted.sum(axis=0) == 0] = 0.5
    total, soft = 0.0, 0
    for row, position in enumerate(index):
        kind = categories == categories[position]
        positives, known = (labels[kind] >= 0.5).sum(axis=0), counted[kind].sum(axis=0)
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
