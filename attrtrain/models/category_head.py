"""A head that also knows what kind of object it looks at: *striped* is common among zebras, whatever the crop shows."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NONE = 0
"""The code of an object whose category is not known, or that no training object had. It has an embedding of its own,
trained on objects whose category was withheld.
"""

_WIDTH = 64


class CategoryHead(nn.Module):
    """Features (B, F) beside an embedding of the category → hidden → logits (B, A)."""

    def __init__(self, features: int, categories: int, hidden: int, dropout: float, attributes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(categories + 1, _WIDTH)
        self.layers = nn.Sequential(
            nn.Linear(features + _WIDTH, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, attributes)
        )

    def forward(self, features: Tensor, category: Tensor | None = None) -> Tensor:
        """Computes logits.

        Args:
            features: (B, F).
            category: (B,) int64 codes; None where no category is known.
        """
        if category is None:
            category = torch.full((features.shape[0],), NONE, dtype=torch.int64, device=features.device)
        logits: Tensor = self.layers(torch.cat([features, self.embedding(category).to(features.dtype)], dim=1))
        return logits


def known_categories(names: Sequence[str]) -> list[str]:
    """The categories (C) that a network tells apart when it is trained on objects of these (N), in the order of their
    codes: sorted, without "".
    """
    return sorted(set(names) - {""})


def category_codes(categories: Sequence[str], names: Sequence[str]) -> Tensor:
    """(B,) int64: the code of each name (B), its place among the categories (C) from 1 on; 0 for one that is not among
    them, such as "".
    """
    code = {name: number for number, name in enumerate(categories, 1)}
    return torch.tensor([code.get(name, NONE) for name in names], dtype=torch.int64)
