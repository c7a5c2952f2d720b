"""What answering together is worth, as a table tells it, against scikit-learn."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from drawn_cells import draw_shares, plain_map

from attrtrain.inference.gain import PassResult, describe_gain
from attrtrain.inference.members import PLAIN, Member, views_of


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


def test_each_kind_of_view_is_judged_by_what_it_says_itself_and_costs_what_it_took() -> None:
    members = [cast(Member, SimpleNamespace(name=name)) for name in ("first", "second")]
    asked = [(member, view) for member in members for view in views_of(True, [0.75, 1.25])]
    drawn = draw_shares(skill=1.0)
    rng = np.random.default_rng(1)
    said = [rng.normal(0, 3, drawn.logits.shape).astype(np.float32) + drawn.logits for _ in asked]
    results = [
        PassResult(member, view, replace(drawn, logits=logits), 2.0**number)
        for number, ((member, view), logits) in enumerate(zip(asked, said, strict=True))
    ]
    parts = {  # views lie as 1 x, 1 x mirrored, 0.75 x, 0.75 x mirrored, 1.25 x, 1.25 x mirrored
        "first": [0],
        "second": [6],
        "first, mirrored too": [0, 1],
        "first, in 3 sizes": [0, 2, 4],
        "first, all 6 views": [0, 1, 2, 3, 4, 5],
        "all 2 models": [0, 6],
        "all 2 models, all 6 views": list(range(12)),
    }
    maps = {
        name: plain_map(replace(drawn, logits=np.mean([said[number] for number in chosen], axis=0)), 0.5)
        for name, chosen in parts.items()
    }
    assert len({f"{value:.4f}" for value in maps.values()}) == len(maps)
    rows = describe_gain(results, 0.5)[1:]
    assert [row.split("  ")[0] for row in rows] == list(parts)
    for row, (name, chosen) in zip(rows, parts.items(), strict=True):
        assert f" {maps[name]:.4f} " in row
        assert name == "first" or f" {maps[name] - maps['first']:+.4f} [" in row
        passes = "1 pass" if len(chosen) == 1 else f"{len(chosen)} passes"
        assert row.endswith(f"  {passes}, {sum(2.0**number for number in chosen):.1f} s")
