"""The ml_decoder head: attribute queries that look at a feature map (Ridnik et al., "ML-Decoder", 2021, arXiv
2111.12933).
"""

import torch
from timm.layers.ml_decoder import MLDecoder
from torch import Tensor, nn

_WIDTH = 768  # of queries and of what they look at, as in the paper


class AttributeDecoder(nn.Module):
    """Attribute queries attend to the places of a feature map; each answers for one attribute, or for a few where there
    are more than 100.

    The parameters are those of timm's MLDecoder, drawn as it draws them. Queries are drawn once and never learnt (the
    paper's section 3.2), so they are part of the state dict. How they are put together is written here, because timm's
    own way through `nn.TransformerDecoder` asks for self-attention, which this decoder does without, and answers group
    by group in a loop, which makes an exported graph of a hundred nodes of it.
    """

    def __init__(self, channels: int, attributes: int) -> None:
        super().__init__()
        self.parts = MLDecoder(attributes, decoder_embedding=_WIDTH, initial_num_features=channels)
        self.attributes = attributes

    def forward(self, feature_map: Tensor) -> Tensor:
        """Computes logits.

        Args:
            feature_map: (B, C, h, w), or tokens (B, N, C).

        Returns:
            (B, A) logits.
        """
        tokens = feature_map.flatten(2).transpose(1, 2) if feature_map.ndim == 4 else feature_map  # (B, N, C)
        places = self.parts.embed_standart(tokens).relu().transpose(0, 1)  # (N, B, 768)
        answers = self.parts.query_embed.weight.unsqueeze(1).expand(-1, places.shape[1], -1)  # (Q, B, 768)
        for layer in self.parts.decoder.layers:
            answers = layer(answers, places)
        # (Q, B, 768) x (Q, 768, attributes a query) → (Q, B, attributes a query)
        logits = torch.bmm(answers, self.parts.duplicate_pooling.to(answers.dtype))
        said: Tensor = logits.transpose(0, 1).flatten(1)[:, : self.attributes] + self.parts.duplicate_pooling_bias
        return said
