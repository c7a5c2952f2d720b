"""Repeat factors, against LVIS's rule as a plain loop."""

from pathlib import Path

import numpy as np
import pytest

from attrtrain.data import sampling
from attrtrain.data.reader import ShardSet


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_factors_are_those_of_a_plain_loop(
    toy_shards: Path, monkeypatch: pytest.MonkeyPatch, positive_at: float
) -> None:
    shards = ShardSet([str(toy_shards)], "train")
    labels = shards.labels(np.arange(len(shards)))
    monkeypatch.setattr(sampling, "_AT_A_TIME", 37)
    found = sampling.repeat_factors(shards, 0.3, positive_at)
    shares = [
        sum(label >= positive_at for label in labels[:, column]) / len(labels) for column in range(labels.shape[1])
    ]
    for row, factor in zip(labels, found, strict=True):
        own = [max(1.0, (0.3 / share) ** 0.5) for label, share in zip(row, shares, strict=True) if label >= positive_at]
        assert factor == pytest.approx(max(own, default=1.0))
    assert found.max() > 1.5 and (found == 1).any()
