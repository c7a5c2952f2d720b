"""The network as an ONNX model: made, described, and run by onnxruntime."""

import onnx
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.export import ExportedProgram

from attrtrain.errors import ExportError
from attrtrain.exporting.graph import INPUT, OUTPUTS
from attrtrain.exporting.record import KEY, ExportRecord

OPSET = 18  # the first whose Resize is antialiased; no later one has anything that a ResNet needs
_MOST_BYTES = 2**31 - 1  # of a protocol buffer, and so of a model in one file


def onnx_model(program: ExportedProgram) -> ModelProto:
    """Translates a program; named sizes stay free."""
    exported = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={INPUT: _named_sizes(program)},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's notes to itself
    return model


def serialise(model: ModelProto, record: ExportRecord) -> bytes:
    """The bytes of a model that has been checked and says what it is.

    Raises:
        ExportError: it is too large for one file.
    """
    del model.metadata_props[:]  # of quantisation, if any
    model.metadata_props.add(key=KEY, value=record.model_dump_json())
    model.producer_name, model.producer_version = "attrtrain", record.attrtrain_version
    model.doc_string = f"{record.input}. " + "; ".join(f"{name}: {text}" for name, text in record.outputs.items())
    if model.ByteSize() > _MOST_BYTES:
        raise ExportError(f"the model has {model.ByteSize() / 1e9:.1f} GB; an ONNX file in one piece holds 2 GB")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class OnnxNetwork(nn.Module):
    """An ONNX model run by onnxruntime on the CPU, to stand where the network itself does: images (B, 3, H, W) uint8 → logits (B, A)."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        # Between two pictures its threads would otherwise wait in a loop, on the cores that torch computes on in turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """Logits, on the device of the images."""
        logits, _ = self._session.run(list(OUTPUTS), {INPUT: images.cpu().contiguous().numpy()})
        return torch.from_numpy(logits).to(images.device)


def _named_sizes(program: ExportedProgram) -> dict[int, str]:
    """Which sizes of the input are free, with their names in the ONNX model."""
    (placeholder,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == INPUT)
    names = ("batch", "channels", "height", "width")
    return {
        place: names[place] for place, size in enumerate(placeholder.meta["val"].shape) if not isinstance(size, int)
    }
