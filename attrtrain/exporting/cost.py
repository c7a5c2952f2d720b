"""What quantisation costs, on objects with labels, and what it gains on this machine."""

import time

import torch
from torch import Tensor

from attrtrain.bundle import ModelCard
from attrtrain.cores import core_count
from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import evaluate
from attrtrain.engine.judging import headline, judge_split, predictions_of
from attrtrain.exporting.onnx_file import OnnxNetwork
from attrtrain.metrics.paired import paired_difference
from attrtrain.predictions import Predictions
from attrtrain.runtime import Runtime, build_runtime

_ROUNDS, _BATCH = 5, 32


def quantisation_cost(
    plain: bytes, quantised: bytes, shards: ShardSet, training: ShardSet | None, card: ModelCard
) -> list[str]:
    """Judges both models on every object of a split by the code of `attrtrain evaluate`, and times them. Gives lines
    that tell it.

    Args:
        plain, quantised: the ONNX models.
        shards: the split that is judged.
        training: the split that guessers learn rates from, None where there is none.

    Raises:
        AttrtrainError: a model's output is not finite.
    """
    runtime = build_runtime("no")
    networks = {"float32": OnnxNetwork(plain), "int8": OnnxNetwork(quantised)}
    judged, lines = {}, []
    for name, network in networks.items():
        judged[name] = _predict(runtime, network, shards, card)
        document = judge_split(judged[name], shards, training, source={"model": name}, positive_at=card.positive_at)
        lines.append(f"{name:<8} split '{shards.split}': {headline(document)}")
    apart = paired_difference(judged["float32"], judged["int8"], positive_at=card.positive_at)
    if (difference := apart.overall.get("map")) is not None:
        lines.append(f"int8 changes mAP by {difference}, judged on the same objects")
    lines.append(
        f"int8 has {len(quantised) / 1e6:.1f} MB, float32 {len(plain) / 1e6:.1f} MB ({len(quantised) / len(plain):.2f} of it); "
        f"on this machine, {core_count()} cores, batches of {_BATCH}, it is {_speed_up(networks, card.image_px):.2f} times as fast"
    )
    return lines


def _predict(runtime: Runtime, network: OnnxNetwork, shards: ShardSet, card: ModelCard) -> Predictions:
    evaluation = evaluate(
        runtime,
        network,
        shards,
        image_px=card.image_px,
        framing=card.framing,
        positive_at=card.positive_at,
        channels_last=False,
        categories=card.architecture.categories,
        workers=runtime.workers(-1),
    )
    return predictions_of(evaluation, shards)


def _speed_up(networks: dict[str, OnnxNetwork], image_px: int) -> float:
    """How many times as fast int8 is: the best of some rounds in which both take turns, so that a busy moment hits
    both.
    """
    images = torch.zeros((_BATCH, 3, image_px, image_px), dtype=torch.uint8)
    rounds = [{name: _seconds(network, images) for name, network in networks.items()} for _ in range(_ROUNDS)]
    return min(times["float32"] for times in rounds) / min(times["int8"] for times in rounds)


def _seconds(network: OnnxNetwork, images: Tensor) -> float:
    begin = time.perf_counter()
    network(images)
    return time.perf_counter() - begin
