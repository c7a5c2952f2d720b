"""The network as an ONNX model: made, described, and run by onnxruntime."""

import warnings

import onnx
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.export import ExportedProgram

from attrtrain.errors import ExportError
from attrtrain.exporting.graph import CATEGORY, INPUT, OUTPUTS
from attrtrain.exporting.record import KEY, ExportRecord
from attrtrain.models.category_head import NONE

OPSET = 18  # the first whose Resize is antialiased; no later one has anything that a ResNet needs
_MOST_BYTES = 2**31 - 1  # of a protocol buffer, and so of a model in one file


def onnx_model(program: ExportedProgram) -> ModelProto:
    """Translates a program; named sizes stay free."""
    sizes = _named_sizes(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns of its own way to ask what a leaf is
        exported = torch.onnx.export(
            program,
            input_names=list(sizes),
            output_names=list(OUTPUTS),
            dynamic_shapes=sizes,
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
    model.metadata_props.add(key=KEY, value=record.to_json())
    model.producer_name, model.producer_version = "attrtrain", record.attrtrain_version
    told = f"{record.input}. {record.category_input}. " if record.category_input else f"{record.input}. "
    model.doc_string = told + "; ".join(f"{name}: {text}" for name, text in record.outputs.items())
    if model.ByteSize() > _MOST_BYTES:
        raise ExportError(f"the model has {model.ByteSize() / 1e9:.1f} GB; an ONNX file in one piece holds 2 GB")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class OnnxNetwork(nn.Module):
    """An ONNX model run by onnxruntime on the CPU, to stand where the network itself does: images (B, 3, H, W) uint8,
    and codes of categories (B,) int64 where it reads them → logits (B, A).
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        # Between two pictures its threads would otherwise wait in a loop, on the cores that torch computes on in turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._reads_categories = any(given.name == CATEGORY for given in self._session.get_inputs())

    def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
        """Logits, on the device of the images; without codes those of objects whose category is not known."""
        given = {INPUT: images.cpu().contiguous().numpy()}
        if self._reads_categories:
            codes = torch.full((len(images),), NONE) if category is None else category
            given[CATEGORY] = codes.cpu().numpy()
        logits, _ = self._session.run(list(OUTPUTS), given)
        return torch.from_numpy(logits).to(images.device)


def _named_sizes(program: ExportedProgram) -> dict[str, dict[int, str | None]]:
    """Which sizes of each input are free, with their names in the ONNX model."""
    names = ("batch", "channels", "height", "width")
    sizes: dict[str, dict[int, str | None]] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == INPUT:
            free = [place for place, size in enumerate(node.meta["val"].shape) if not isinstance(size, int)]
            sizes[INPUT] = {place: names[place] for place in free}
        elif node.op == "placeholder" and node.name == CATEGORY:
            sizes[CATEGORY] = {0: None}  # it has the name of the images' already, and a second one would be warned of
    return sizes
