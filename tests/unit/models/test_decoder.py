"""The ml_decoder head: the arithmetic of timm's parts, on maps and on tokens, in every arithmetic that trains."""

import pytest
import torch
from timm.layers.ml_decoder import MLDecoder
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from attrtrain.models.decoder import AttributeDecoder
from attrtrain.models.layers import freeze
from attrtrain.models.network import build_network
from attrtrain.models.timm_backbone import try_out


class Layers(nn.Module):
    """What timm's decoder had in mind: its layers, one after the other."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, queries: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            queries = layer(queries, places)
        return queries


@pytest.mark.parametrize("attributes", [1, 7, 100, 101, 204])
@pytest.mark.parametrize("shape", [(2, 24, 3, 2), (2, 5, 24)])
def test_logits_are_those_of_timms_decoder(attributes: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = AttributeDecoder(24, attributes).eval()
    nn.init.normal_(head.parts.duplicate_pooling_bias)
    theirs = MLDecoder(attributes, initial_num_features=24).eval()
    theirs.load_state_dict(head.parts.state_dict())
    theirs.decoder = Layers(theirs.decoder.layers)
    found = torch.randn(shape)
    with torch.inference_mode():
        logits = head(found)
        assert logits.shape == (2, attributes)
        assert torch.allclose(logits, theirs(found.clone()), atol=1e-5)


def test_queries_are_saved_and_never_learn() -> None:
    head = AttributeDecoder(24, 7)
    assert "parts.query_embed.weight" in head.state_dict()
    head(torch.randn(2, 24, 3, 3)).sum().backward()
    still = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert still == ["parts.query_embed.weight"]


@pytest.mark.parametrize(
    "backbone", ["resnet18", "timm:test_vit", "timm:test_resnet", "timm:test_mambaout", "timm:test_convnext"]
)
def test_it_reads_maps_and_tokens_and_pooled_features_stay(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_network(backbone, "ml_decoder", 8, 0.0, 7, image_px=64).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        logits, features = model.outputs(images)
        assert torch.equal(logits, model(images)) and logits.shape == (2, 7)
        assert torch.allclose(features, model.backbone(model.normalise(images)), atol=1e-6)
        assert torch.equal(model.head(model.feature_map(model.normalise(images))), logits)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(model(images).float(), logits, atol=0.1)


def test_what_logits_do_without_stops_learning() -> None:
    """ConvNeXt has a norm behind the pooling. Processes that train together would wait for its gradient."""
    model = build_network("timm:test_convnext", "ml_decoder", 8, 0.0, 7, image_px=64).train()
    try_out(model, 64, "timm:test_convnext")
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == {"backbone.head.norm.weight", "backbone.head.norm.bias", "head.parts.query_embed.weight"}
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == still


def test_seeds_decide_the_queries() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(build_network("resnet18", "ml_decoder", 8, 0.0, 7).head.parts.query_embed.weight)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_processes_that_train_together_wait_for_no_gradient_that_never_comes() -> None:
    """One process of a world of one checks it as two do: DDP fails in the second step where a parameter got no gradient
    in the first.
    """
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = build_network("timm:test_vit2", "ml_decoder", 8, 0.0, 7, image_px=64)
        try_out(model, 64, "timm:test_vit2")
        freeze(model, 2)
        together = DistributedDataParallel(model).train()
        for _ in range(2):
            together(torch.rand(2, 3, 64, 64)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
