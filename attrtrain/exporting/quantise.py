"""An ONNX model in 8 bits, by onnxruntime's static quantisation."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from attrtrain.data.loader import CropDataset, load_batches
from attrtrain.data.order import BatchRequest
from attrtrain.data.reader import ShardSet
from attrtrain.exporting.check import spread
from attrtrain.exporting.graph import CATEGORY, INPUT, OUTPUTS
from attrtrain.framing import Framing
from attrtrain.models.category_head import category_codes

CALIBRATION_CROPS = 256
_BATCH = 16


def quantise(
    model: ModelProto, shards: ShardSet, image_px: int, framing: Framing, categories: Sequence[str]
) -> ModelProto:
    """Weights in 7 of 8 bits a channel, activations in 8 bits between the least and the greatest value that calibration
    crops gave them (QDQ format).

    The eighth bit of weights is left free because processors without VNNI add pairs of products in 16 bits, which would
    overflow in silence (onnxruntime's `reduce_range`). What comes before the first convolution stays as it is, and so
    do logits and scores: in 256 levels, many objects would share a score. Neither is attention quantised, from where
    places are weighed: a weight among 200 places is one or two of 256 levels in the mean, and onnxruntime before 1.32
    takes the weight of a map's only place, 1, for 0.

    Args:
        model: in float32.
        shards: what to calibrate on: real crops, but not those that are judged.
        image_px: side of the square that crops are resized to.
        framing: what of the crops is seen.
        categories: what the network tells apart; with them it is given the crops' codes too.
    """
    with TemporaryDirectory() as folder:
        plain, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantised"))
        onnx.save(model, plain)
        # Shapes by ONNX's own inference: onnxruntime's symbolic one, before 1.32, stumbles over the resizing that torch
        # 2.8 exports.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _CalibrationCrops(shards, image_px, framing, categories),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_kept_in_float(onnx.load(prepared)),
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        return onnx.load(quantised)


class _CalibrationCrops(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands crops, spread over a split, to onnxruntime by the batch."""

    def __init__(self, shards: ShardSet, image_px: int, framing: Framing, categories: Sequence[str]) -> None:
        dataset = CropDataset(shards, image_px, framing=framing)
        self._batches = self._read(dataset, spread(len(shards), CALIBRATION_CROPS), categories)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None after the last."""
        return next(self._batches, None)

    @staticmethod
    def _read(dataset: CropDataset, positions: list[int], categories: Sequence[str]) -> Iterator[dict[str, Any]]:
        parts = (np.array(positions[start : start + _BATCH], np.int64) for start in range(0, len(positions), _BATCH))
        requests = (BatchRequest(0, index, index) for index in parts)
        for batch in load_batches(dataset, requests, torch.device("cpu"), workers=0):
            given = {INPUT: batch.image.contiguous().numpy()}
            if categories:
                names = dataset.shards.categories(batch.index.numpy())
                given[CATEGORY] = category_codes(categories, names).numpy()
            yield given


def _kept_in_float(model: ModelProto) -> list[str]:
    """Names of the nodes before the first convolution, which come first in a sorted graph, of those that make or read
    weights of attention, and of those from the last product to the scores. Where that is a `Gemm`, the last layer of
    most heads, it is quantised itself: its output is not.
    """
    names = [node.name for node in takewhile(lambda node: node.op_type != "Conv", model.graph.node)]
    weights = {output for node in model.graph.node if node.op_type == "Softmax" for output in node.output}
    names += [node.name for node in model.graph.node if weights.intersection((*node.input, *node.output))]
    made_by = {output: node for node in model.graph.node for output in node.output}
    node = made_by[OUTPUTS[1]]
    while node.op_type != "Gemm":
        names.append(node.name)
        if node.op_type == "MatMul":
            break
        node = made_by[node.input[0]]
    return names
