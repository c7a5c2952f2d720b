"""`attrtrain export`: writes a model as one file that runs without attrtrain, once it has been seen to compute the
same.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from attrtrain.errors import ConfigError, ShardError
from attrtrain.files import atomic_write
from attrtrain.garbage import no_garbage_collection
from attrtrain.inference.command import add_model_argument
from attrtrain.urls import as_place, is_url, require_writable
from attrtrain.wording import counted

if TYPE_CHECKING:  # torch takes seconds, which `--help` need not
    from torch import Tensor

    from attrtrain.bundle import ModelCard
    from attrtrain.data.reader import ShardSet
    from attrtrain.exporting.check import Agreement
    from attrtrain.exporting.graph import ExportedNetwork

EXAMPLES = """examples:
  attrtrain export --model runs/coco --onnx model.onnx --check shards/coco
  attrtrain export --model runs/coco --onnx any_size.onnx --preprocess --check photo1.jpg photo2.jpg
  attrtrain export --model runs/coco --onnx int8.onnx --int8 --calibrate shards/coco
  attrtrain export --model runs/coco --torch-export model.pt2 --check shards/coco"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_argument(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--onnx", type=Path, metavar="FILE", help="write an ONNX model (needs attrtrain[export])")
    target.add_argument("--torch-export", type=Path, metavar="FILE", help="write a torch.export program (.pt2)")
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="resize pictures of any size to the network's square inside the file, as training did",
    )
    parser.add_argument("--int8", action="store_true", help="quantise the ONNX model, and say what that costs")
    parser.add_argument(
        "--calibrate",
        type=as_place,
        nargs="+",
        metavar="SHARDS",
        help="with --int8: shard folders whose split 'train' gives the ranges of activations",
    )
    parser.add_argument(
        "--check",
        type=as_place,
        nargs="+",
        default=[],
        metavar="SHARDS_OR_IMAGE",
        help="compare with PyTorch on crops of these shard folders or on these photographs (default: those of --calibrate, else drawn noise)",
    )
    parser.add_argument("--split", default="val", help="which split is compared and judged on (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Exports, compares, writes and prints; returns 0."""
    out: Path = arguments.onnx or arguments.torch_export
    _require_sense(arguments, out)
    if arguments.onnx:
        _require_onnx()
    with no_garbage_collection():
        from attrtrain.bundle import read_bundle
        from attrtrain.exporting.graph import ExportedNetwork
        from attrtrain.models.category_head import NONE

    model, card = read_bundle(arguments.model)
    judged, photographs = _sources(arguments, card)
    calibration = _opened(arguments.calibrate, "train", card) if arguments.int8 else None
    network = ExportedNetwork(
        model, card.image_px, arguments.preprocess, card.framing.fit, card.framing.interpolation
    ).eval()
    crops, origin = _crops(judged, photographs, card)
    if arguments.onnx:
        content, agreement, lines = _as_onnx(network, card, crops, calibration, judged)
    else:
        content, agreement, lines = _as_program(network, card, crops)
    try:
        with atomic_write(out) as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror or error}") from None
    if model.categories:
        lines.append(
            f"category: a second input, codes of {len(model.categories)} categories that the file lists, {NONE} for an object whose category is not known"
        )
    print("\n".join([*_told(agreement, origin), *lines, f"{out}: {len(content) / 1e6:.1f} MB"]))
    return 0


def _require_sense(arguments: argparse.Namespace, out: Path) -> None:
    """Refuses before anything slow begins.

    Raises:
        ConfigError: options that do not go together, or a file that cannot be written.
    """
    if arguments.int8 and not arguments.onnx:
        raise ConfigError("--int8 quantises an ONNX model: give --onnx FILE")
    if arguments.int8 != bool(arguments.calibrate):
        raise ConfigError("--int8 and --calibrate SHARDS are given together: quantisation needs crops to see ranges on")
    if arguments.torch_export and out.suffix != ".pt2":
        raise ConfigError(f"--torch-export {out}: torch.export.load reads only names that end in .pt2")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"{out}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    require_writable(f"{out}: cannot be written into", out.parent)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--onnx needs onnx, onnxscript and onnxruntime ({error}): pip install 'attrtrain[export]'"
        ) from None


def _sources(arguments: argparse.Namespace, card: "ModelCard") -> tuple["ShardSet | None", list[Path]]:
    """The split to compare and judge on, and photographs to compare on.

    Raises:
        ShardError: shards of other attributes, or none of that split.
    """
    folders = [place for place in arguments.check if is_url(place) or Path(place).is_dir()]
    photographs = [Path(place) for place in arguments.check if place not in folders]
    folders = folders or arguments.calibrate or []
    return (_opened(folders, arguments.split, card) if folders else None), photographs


def _opened(folders: list[Path | str], split: str, card: "ModelCard") -> "ShardSet":
    from attrtrain.data.overlap import require_each_once
    from attrtrain.data.reader import ShardSet

    shards = ShardSet(folders, split)
    require_each_once(shards)
    if shards.vocabulary.fingerprint != card.vocabulary.fingerprint:
        raise ShardError(f"{folders[0]} has other attributes than the model; give shards of the same vocabulary")
    return shards


def _crops(judged: "ShardSet | None", photographs: list[Path], card: "ModelCard") -> tuple[list["Tensor"], str]:
    """What to compare on, and where it is from."""
    from attrtrain.exporting.check import crops_of_photographs, crops_of_shards, noise_crops

    crops, origins = [], []
    if judged is not None:
        crops += crops_of_shards(judged, card.framing)
        origins.append(f"{counted(len(crops), 'crop')} of split '{judged.split}'")
    if photographs:
        crops += crops_of_photographs(photographs, card.crop)
        origins.append(counted(len(photographs), "photograph"))
    if not crops:
        return noise_crops(card.image_px), "drawn noise alone, since --check named no pictures"
    return crops, " and ".join(origins)


def _as_program(
    network: "ExportedNetwork", card: "ModelCard", crops: list["Tensor"]
) -> tuple[bytes, "Agreement", list[str]]:
    from attrtrain.exporting.check import compare
    from attrtrain.exporting.graph import export_program
    from attrtrain.exporting.record import record_of
    from attrtrain.exporting.torch_file import loaded, serialise

    content = serialise(export_program(network), record_of(network, card, "float32"))
    agreement = compare(network, loaded(content), crops)
    agreement.require()
    return content, agreement, []


def _as_onnx(
    network: "ExportedNetwork",
    card: "ModelCard",
    crops: list["Tensor"],
    calibration: "ShardSet | None",
    judged: "ShardSet | None",
) -> tuple[bytes, "Agreement", list[str]]:
    """The content of the file, how far its float32 form is from PyTorch, and what quantisation costs where there are
    shards to calibrate on.
    """
    from attrtrain.exporting.check import compare
    from attrtrain.exporting.graph import export_program
    from attrtrain.exporting.onnx_file import OPSET, OnnxNetwork, onnx_model, serialise
    from attrtrain.exporting.record import record_of

    model = onnx_model(export_program(network))
    plain = serialise(model, record_of(network, card, "float32"))
    agreement = compare(network, OnnxNetwork(plain), crops)
    agreement.require()
    given = "inputs images and category" if network.model.categories else "input images"
    lines = [f"ONNX opset {OPSET}, {given}, outputs logits and scores"]
    if calibration is None or judged is None:
        return plain, agreement, lines
    from attrtrain.exporting.cost import quantisation_cost
    from attrtrain.exporting.quantise import quantise

    in_8_bits = quantise(model, calibration, card.image_px, card.framing, card.architecture.categories)
    quantised = serialise(in_8_bits, record_of(network, card, "int8"))
    known = "train" in judged.manifests[0].splits and judged.split != "train"
    training = _opened(list(judged.folders), "train", card) if known else None
    return quantised, agreement, [*lines, *quantisation_cost(plain, quantised, judged, training, card)]


def _told(agreement: "Agreement", origin: str) -> list[str]:
    lines = [
        f"checked on {origin}: logits in float32 differ from PyTorch's by at most {agreement.largest:.2g} (tolerance {agreement.tolerance:g})"
    ]
    if agreement.resizing is not None:
        largest, mean = agreement.resizing
        lines.append(
            f"resizing inside the file instead of as training does changes logits by at most {largest:.2g}, {mean:.2g} on average"
        )
    return lines
