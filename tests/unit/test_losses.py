"""The loss: BCE on vote shares over known cells, whatever the batch is cut into."""

import math

import pytest
import torch

from attrtrain.losses import masked_bce


def test_equals_a_plain_loop_over_known_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator)
    target = torch.rand(7, 5, generator=generator)
    known = torch.rand(7, 5, generator=generator) < 0.4
    total, count = 0.0, 0
    for row in range(7):
        for column in range(5):
            if known[row, column]:
                p = 1 / (1 + math.exp(-logits[row, column].item()))
                y = target[row, column].item()
                total -= y * math.log(p) + (1 - y) * math.log(1 - p)
                count += 1
    assert masked_bce(logits, target, known, count).item() == pytest.approx(total / count, rel=1e-5)


def test_unknown_cells_give_neither_loss_nor_gradient_even_from_infinite_logits() -> None:
    logits = torch.tensor([[float("inf"), 2.0], [float("-inf"), -1.0]], requires_grad=True)
    known = torch.tensor([[False, True], [False, True]])
    loss = masked_bce(logits, torch.zeros(2, 2), known, 2)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad is not None
    assert logits.grad[:, 0].tolist() == [0.0, 0.0]
    assert (logits.grad[:, 1] > 0).all()


def test_parts_with_the_whole_batch_as_denominator_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, target = torch.randn(8, 3, generator=generator), torch.rand(8, 3, generator=generator)
    known = torch.rand(8, 3, generator=generator) < 0.5
    whole = masked_bce(logits, target, known, known.sum())
    parts = sum(masked_bce(logits[i : i + 2], target[i : i + 2], known[i : i + 2], known.sum()) for i in range(0, 8, 2))
    assert torch.allclose(whole, parts)


def test_half_precision_logits_are_summed_in_float32() -> None:
    loss = masked_bce(
        torch.zeros(4, 4, dtype=torch.bfloat16), torch.zeros(4, 4), torch.ones(4, 4, dtype=torch.bool), 16
    )
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), rel=1e-6)
