"""The head that knows categories: what it is told changes what it says, and not being told is a case of its own."""

import pytest
import torch

from attrtrain.models.category_head import CategoryHead, category_codes, known_categories
from attrtrain.models.network import build_network


def test_codes_are_places_from_one_on_and_zero_is_for_what_is_not_known() -> None:
    categories = known_categories(["zebra", "", "dog", "zebra", "cat"])
    assert categories == ["cat", "dog", "zebra"]
    assert category_codes(categories, ["zebra", "", "horse", "cat"]).tolist() == [3, 0, 0, 1]


def test_logits_depend_on_the_category_and_none_is_the_code_zero() -> None:
    torch.manual_seed(0)
    head = CategoryHead(6, 3, 16, 0.5, 4).eval()
    features = torch.randn(5, 6)
    said = [head(features, torch.full((5,), code)) for code in range(4)]
    assert torch.equal(head(features), said[0]) and said[0].shape == (5, 4)
    for first in range(4):
        for second in range(first):
            assert (said[first] - said[second]).abs().max() > 0.01
    mixed = head(features, torch.tensor([0, 1, 2, 3, 1]))
    assert torch.allclose(mixed, torch.stack([said[code][row] for row, code in enumerate([0, 1, 2, 3, 1])]), atol=1e-6)


def test_the_network_passes_categories_on_and_other_heads_have_none() -> None:
    torch.manual_seed(0)
    network = build_network("resnet18", "category", 8, 0.0, 3, categories=["cat", "dog"]).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        told = network(images, network.codes(["dog", "nothing known"]))
        logits, features = network.outputs(images, network.codes(["dog", "nothing known"]))
        assert torch.equal(told, logits) and features.shape == (2, 512)
        blind = network(images)
        assert torch.equal(told[1], blind[1]) and not torch.equal(told[0], blind[0])
    assert build_network("resnet18", "mlp", 8, 0.0, 3, categories=["cat"]).categories == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_computes_in_the_precision_of_the_context(dtype: torch.dtype) -> None:
    head = CategoryHead(6, 3, 16, 0.5, 4).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert head(torch.randn(5, 6, dtype=dtype), torch.tensor([0, 1, 2, 3, 1])).dtype == dtype
