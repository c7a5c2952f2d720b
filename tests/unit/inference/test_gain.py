"""What answering together is worth, as a table tells it, against scikit-learn."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from drawn_cells import draw_shares, plain_map

from attrtrain.inference.gain import PassResult, describe_gain
from attrtrain.inference.members import PLAIN, Member


@pytest.mark.parametrize("positive_at", [0.3, 0.5, 0.8])
def test_every_part_has_its_map_and_its_gain_over_the_first_by_what_counts_as_present(positive_at: float) -> None:
    first, second = draw_shares(skill=0.5), draw_shares(skill=1.5)
    members = [cast(Member, SimpleNamespace(name=name)) for name in ("first", "second")]
    results = [
        PassResult(member, PLAIN, predictions, 1.5)
        for member, predictions in zip(members, (first, second), strict=True)
    ]
    both = replace(first, logits=np.mean([first.logits, second.logits], axis=0))
    head, *rows = describe_gain(results, positive_at)
    assert head.split("  ")[-1] == "cost" and len(rows) == 3
    maps = [plain_map(predictions, positive_at) for predictions in (first, second, both)]
    for row, name, value in zip(rows, ("first", "second", "all 2 models"), maps, strict=True):
        assert row.startswith(f"{name} ") and f" {value:.4f} " in row
        assert name == "first" or f" {value - maps[0]:+.4f} [" in row
